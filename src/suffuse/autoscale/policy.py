"""How many workers a server should have now: from what is measured to a number, without clock, network or state.

The load a = arrivals a second x seconds of a worker is the number of busy workers (Little's law). Wished are the fewest
workers that keep

- the workers busy for no more than a part of the time (head-room),
- the 99th percentile of wait and service within the goal, by Erlang's formula (`queueing`),
- some workers free beyond the load (warm spares, since a start takes seconds),
- and that empty, within a part of the goal, whatever queue there will be when workers asked for now are ready.

More are asked for at once, fewer step by step and late: a worker too many costs its seconds, one too few the goal.
"""

from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import Protocol

from suffuse.autoscale.queueing import EXPONENTIAL, workers_for_wait
from suffuse.errors import InputError

GOAL_SHARE = 0.99
"""The goal is on this percentile."""


@dataclass(frozen=True)
class Signals:
    """What is measured of one model on one server, or on several together.

    Args:
        arrival_rate_per_s: requests that came, also those that were refused, as `arrival_rate` has it.
        service_s: seconds of a worker for one request, at the batch sizes in use. Not a request's latency.
        backlog: requests that wait, wherever they do.
        in_flight: requests that workers have in hand.
        ready: workers that take requests.
        starting: workers that were asked for and do not take requests yet.
    """

    arrival_rate_per_s: float
    service_s: float
    backlog: float
    in_flight: float
    ready: int
    starting: int

    @property
    def load(self) -> float:
        """Workers that the arrivals keep busy."""
        return self.arrival_rate_per_s * self.service_s

    @property
    def workers(self) -> int:
        """Workers that are there or will be soon."""
        return self.ready + self.starting

    @property
    def readable(self) -> bool:
        """Whether these are measurements at all: finite, and not less than 0."""
        values = (
            self.arrival_rate_per_s,
            self.service_s,
            self.backlog,
            self.in_flight,
            self.ready,
            self.starting,
        )
        return all(isfinite(value) and value >= 0 for value in values)


@dataclass(frozen=True)
class Decision:
    """How many workers there should be, and why in one word of a fixed set: it labels logs and metrics.

    Up or as they are: ``load``, ``goal``, ``spare``, ``backlog`` (the reason for that many), ``minimum``, ``maximum``.
    More than are needed: ``cooling`` (until fewer have sufficed for long enough), ``draining`` (while requests wait).
    Fewer than before: ``lower``. As before: ``unreadable``, for signals that are no measurements.
    """

    workers: int
    reason: str


@dataclass(frozen=True)
class Memory:
    """What a rule knows of the past; opaque. `Memory()` knows nothing and is safe at any time, as after a restart.

    Args:
        workers: wished last; None: take those that are there.
        low_since_s: since when fewer have sufficed.
        low_peak: the most that were needed since then.
        asked_at_s: when more were asked for last.
    """

    workers: int | None = None
    low_since_s: float | None = None
    low_peak: int = 0
    asked_at_s: float | None = None


class Rule(Protocol):
    """Anything that decides: the policy, and its rivals in `rules`."""

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        """How many workers there should be.

        Args:
            signals: as measured now.
            memory: what the last call returned, or `Memory()`.
            now_s: of any clock that does not stop.

        Returns:
            The decision, and the memory for the next call.
        """


@dataclass(frozen=True)
class Policy:
    """The rule that suffuse scales by.

    Args:
        min_workers: never fewer; at least 1, since a server without workers refuses all.
        max_workers: never more.
        goal_p99_s: 99 of 100 requests should be answered within this, in seconds.
        utilization: part of the time that workers may be busy.
        spare: workers free beyond the load; head-room counts as such.
        start_s: seconds from asking for a worker until it is ready. So far ahead a queue is foreseen, and so long those
            asked for are waited for instead of asking again.
        down_after_s: seconds that fewer workers must have sufficed before a step down, which is half of those that were
            never needed meanwhile, and at least one.
        drain_share: part of the goal within which a queue should be emptied.
        variability: (ca2 + cs2) / 2 of arrivals and service times, as in `queueing`.

    Raises:
        InputError: a setting makes no sense.
    """

    min_workers: int
    max_workers: int
    goal_p99_s: float
    utilization: float = 0.7
    spare: int = 1
    start_s: float = 6.0  # measured: 3.5 to 6 s under load, more where several start at once
    down_after_s: float = 8.0
    drain_share: float = 0.5
    variability: float = EXPONENTIAL

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.max_workers:
            raise InputError(
                f"min_workers is {self.min_workers} and max_workers {self.max_workers}; "
                "expected 1 <= min_workers <= max_workers"
            )
        for name in ("goal_p99_s", "variability"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"{name} is {value:g}; expected more than 0")
        for name in ("utilization", "drain_share"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(f"{name} is {value:g}; expected more than 0, at most 1")
        for name in ("spare", "start_s", "down_after_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value:g}; expected 0 or more")

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        """As `Rule.decide`; never outside the bounds, whatever the signals and the memory are."""
        current = self._current(signals, memory)
        if not signals.readable:
            return Decision(current, "unreadable"), replace(memory, workers=current)
        asked_at_s = _not_after(now_s, memory.asked_at_s)
        needed = self.needed(signals, self._until_ready_s(signals, asked_at_s, now_s))
        if needed.workers > current:
            # Those that are starting come sooner than a start from now on: the first to be asked for sets the time.
            still_waiting = signals.starting > 0 and asked_at_s is not None and now_s < asked_at_s + self.start_s
            return needed, Memory(needed.workers, asked_at_s=asked_at_s if still_waiting else now_s)
        if needed.workers == current:
            return needed, Memory(current, asked_at_s=asked_at_s)
        low_since_s, low_peak = _not_after(now_s, memory.low_since_s), needed.workers
        if low_since_s is None:
            low_since_s = now_s
        else:
            low_peak = max(low_peak, memory.low_peak)
        if now_s - low_since_s < self.down_after_s:
            return Decision(current, "cooling"), Memory(current, low_since_s, low_peak, asked_at_s)
        if signals.backlog > 0:
            return Decision(current, "draining"), Memory(current, low_since_s, low_peak, asked_at_s)
        fewer = current - max(1, (current - low_peak) // 2)
        return Decision(fewer, "lower"), Memory(fewer, asked_at_s=asked_at_s)

    def needed(self, signals: Signals, until_ready_s: float) -> Decision:
        """How many workers readable signals ask for, whatever was wished before.

        Args:
            signals: as measured.
            until_ready_s: seconds until workers that are asked for now, or were before, take requests.
        """
        wishes = {
            "spare": max(1, _ceil(signals.load)) + self.spare,
            "load": _ceil(signals.load / self.utilization),
            "goal": self._for_goal(signals),
            "backlog": _ceil(signals.load + self._to_drain(signals, until_ready_s)),
        }
        reason, workers = max(wishes.items(), key=lambda wish: wish[1])
        if workers > self.max_workers:
            return Decision(self.max_workers, "maximum")
        if workers < self.min_workers:
            return Decision(self.min_workers, "minimum")
        return Decision(workers, reason)

    def _current(self, signals: Signals, memory: Memory) -> int:
        current = memory.workers
        if current is None:
            current = signals.workers if signals.readable else self.min_workers
        return min(self.max_workers, max(self.min_workers, current))

    def _for_goal(self, signals: Signals) -> int:
        """Workers that keep the 99th percentile; where service alone takes the whole goal, more do not help."""
        wait_s = self.goal_p99_s - signals.service_s
        if wait_s <= 0 or signals.load <= 0:
            return 1
        return workers_for_wait(
            GOAL_SHARE,
            wait_s,
            signals.load,
            signals.service_s,
            most=self.max_workers,
            variability=self.variability,
        )

    def _to_drain(self, signals: Signals, until_ready_s: float) -> float:
        """Workers, beyond those that the arrivals keep busy, that empty the queue in time.

        A queue that the ready workers empty in time by themselves needs none, and neither does one that they will have
        emptied before another worker could start. While workers start the queue grows as foreseen when they were asked
        for, so that nothing is asked for twice.
        """
        drain_s = self.drain_share * self.goal_p99_s
        if signals.backlog * signals.service_s <= drain_s * signals.ready:
            return 0.0
        growth = (signals.load - signals.ready) * until_ready_s
        return max(0.0, signals.backlog * signals.service_s + growth) / drain_s

    def _until_ready_s(self, signals: Signals, asked_at_s: float | None, now_s: float) -> float:
        if signals.starting == 0 or asked_at_s is None:
            return self.start_s
        return max(0.0, asked_at_s + self.start_s - now_s)


def _not_after(now_s: float, time_s: float | None) -> float | None:
    """A time that is remembered; a clock that went back must not make it last for ever."""
    return None if time_s is None else min(time_s, now_s)


def _ceil(workers: float) -> int:
    """The next whole number, a rounding error aside; some large number where there is none."""
    return ceil(min(workers, 1e9) - 1e-9)
