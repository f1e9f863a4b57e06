"""Read, decide, act, twice a second: keeps a model's workers, on one server or several, at what the policy wishes.

Everything that must outlive the controller is in the servers: how many workers each was asked for. So it may be killed
and started again at any time, and a server that comes back with another number is set anew.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Protocol

from suffuse.autoscale.meter import Meter
from suffuse.autoscale.policy import Memory, Rule, Signals
from suffuse.autoscale.signals import Reading, ServerView, Source
from suffuse.errors import ClientError, ServerError

POLL_S = 0.5
PATIENCE_S = 2.0
"""So long a server may be unreadable before the others take its share; until then nothing changes."""
RETRY_S = 2.0
"""After a server has refused to scale."""


class Scaler(Protocol):
    """One server that takes a number of workers, such as `Probe`."""

    def idle_since(self, before: ServerView) -> bool:
        """Whether workers have had nothing in hand since a view."""

    def scale(self, workers: int) -> None:
        """Ask for so many and return at once; raises ClientError."""


@dataclass(frozen=True)
class Event:
    """One decision, and what it was made of.

    Args:
        time: when.
        model: of which.
        wished: workers, of all servers together.
        reason: of the policy.
        signals: as measured; where they were unreadable, not all of them are numbers.
        servers: ready workers and those asked for, by server.
        errors: what could not be read or was refused, by server.
    """

    time: datetime
    model: str
    wished: int
    reason: str
    signals: Signals
    servers: Mapping[str, tuple[int, int]]
    errors: Mapping[str, str]

    @property
    def substance(self) -> tuple[object, ...]:
        """What makes it worth a line of its own in a log: all but the measured times and rates."""
        unreadable = self.reason == "unreadable"
        return self.wished, unreadable, dict(self.servers), dict(self.errors)

    def as_json(self) -> str:
        """One line; what is no number is null."""
        signals = self.signals
        measured = {
            "arrival_rate_per_s": signals.arrival_rate_per_s,
            "service_s": signals.service_s,
            "backlog": signals.backlog,
            "in_flight": signals.in_flight,
        }
        content = {
            "time": self.time.isoformat(timespec="milliseconds"),
            "model": self.model,
            "wished": self.wished,
            "ready": signals.ready,
            "starting": signals.starting,
            "reason": self.reason,
            "signals": {name: _number(value) for name, value in measured.items()},
            "servers": {url: {"ready": ready, "asked": asked} for url, (ready, asked) in self.servers.items()},
            "errors": dict(self.errors),
        }
        return json.dumps(content, allow_nan=False)


@dataclass(frozen=True)
class Lowering:
    """How a server gives up workers, since TorchServe fails what the worker that goes has in hand, or worse.

    Args:
        quiet_wait_s: so long a server waits for a moment without requests.
        emptied: a context in which a server, by its URL, has no requests, such as a drain. It may raise ServerError;
            then the server keeps its workers for now.
    """

    quiet_wait_s: float = 0.0
    emptied: Callable[[str], AbstractContextManager[object]] = nullcontext


class Controller:
    """The loop.

    Args:
        model: its name.
        source: of readings.
        meter: of the service time.
        rule: decides, such as `Policy`.
        scalers: by server.
        observers: told of every decision.
        lowering: how a server gives up workers.
    """

    def __init__(
        self,
        model: str,
        source: Source,
        meter: Meter,
        rule: Rule,
        scalers: Mapping[str, Scaler],
        observers: Sequence[Callable[[Event], None]] = (),
        lowering: Lowering = Lowering(),
    ) -> None:
        self._model = model
        self._source = source
        self._meter = meter
        self._rule = rule
        self._scalers = scalers
        self._observers = observers
        self._lowering = lowering
        self._memory = Memory()
        self._readable_at_s: dict[str, float] = {}
        self._refused_at_s: dict[str, float] = {}
        self._to_lower_since_s: dict[str, float] = {}

    def run(self, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Step until `stop` is set."""
        while not stop.is_set():
            began_s = clock()
            self.step(began_s)
            stop.wait(max(0.0, POLL_S - (clock() - began_s)))

    def step(self, now_s: float) -> Event:
        """Read, decide and act once.

        Args:
            now_s: of a clock that does not stop.
        """
        reading = self._source.read(now_s)
        self._meter.update(reading)
        signals = self._signals(reading)
        decision, memory = self._rule.decide(signals, self._memory, now_s)
        errors = dict(reading.errors)
        if signals.readable:
            self._memory = memory
            errors |= self._act(decision.workers, reading)
        event = Event(
            datetime.now(UTC),
            self._model,
            decision.workers,
            decision.reason,
            signals,
            {view.server: (view.ready, view.asked) for view in reading.views},
            errors,
        )
        for observe in self._observers:
            observe(event)
        return event

    def _signals(self, reading: Reading) -> Signals:
        """The reading as the policy takes it; not a number is what cannot be told, and then nothing is changed."""
        rate = reading.arrival_rate_per_s
        service_s = self._meter.service_s
        if self._waits_for_a_server(reading) or not reading.views or rate is None:
            return Signals(nan, nan, nan, nan, reading.ready, reading.starting)
        if service_s is None:  # before the first answer; it needs to be known only where there is something to do
            service_s = nan if rate or reading.backlog else 0.0
        in_flight = reading.in_flight
        if in_flight is None:  # Little's law
            in_flight = min(rate * service_s, reading.ready)
        return Signals(rate, service_s, reading.backlog, in_flight, reading.ready, reading.starting)

    def _waits_for_a_server(self, reading: Reading) -> bool:
        """Whether one is unreadable, but not long enough to be left out."""
        now_s = reading.at_s
        self._readable_at_s |= {view.server: now_s for view in reading.views}
        return any(
            now_s - self._readable_at_s.get(server, now_s - PATIENCE_S) < PATIENCE_S
            for server in self._scalers
            if server in reading.errors
        )

    def _act(self, workers: int, reading: Reading) -> dict[str, str]:
        """Have each server that answers keep its share; returns what went wrong, by server."""
        errors: dict[str, str] = {}
        ready = reading.ready
        shares = share_out(workers, reading.views)
        # Those that get more come first.
        for view in sorted(reading.views, key=lambda view: shares[view.server] < view.asked):
            share = shares[view.server]
            if share >= view.asked:
                self._to_lower_since_s.pop(view.server, None)
            else:
                excess = view.ready - share
                # Not one that starts: `suffuse serve` takes the end of a first worker for a fault of its model.
                if excess <= 0 or ready - excess < workers or not self._may_lower(view, reading.at_s):
                    continue
                ready -= excess
            if not share == view.asked == view.bound:
                context = self._lowering.emptied(view.server) if share < view.asked else nullcontext()
                errors |= self._set(view.server, share, reading.at_s, context)
        return errors

    def _may_lower(self, view: ServerView, now_s: float) -> bool:
        """Whether nothing is lost, or too little to wait any longer.

        What a worker that goes has in hand is put back into the queue, or fails, as it happens. Into a full queue it
        cannot be put: TorchServe then answers 500 and the requests fail. To ask for more is safe at any time.
        """
        if view.remaining <= view.pending:
            return False
        since_s = self._to_lower_since_s.setdefault(view.server, now_s)
        return now_s - since_s >= self._lowering.quiet_wait_s or self._scalers[view.server].idle_since(view)

    def _set(self, server: str, workers: int, now_s: float, context: AbstractContextManager[object]) -> dict[str, str]:
        if now_s - self._refused_at_s.get(server, now_s - RETRY_S) < RETRY_S:
            return {}
        try:
            with context:
                self._scalers[server].scale(workers)
        except (ClientError, ServerError) as error:
            self._refused_at_s[server] = now_s
            return {server: str(error)}
        return {}


def share_out(workers: int, views: Sequence[ServerView]) -> dict[str, int]:
    """How many workers each server should have: as equal as can be, at least one, and with few changes.

    Args:
        workers: of all together.
        views: the servers that answer; those that have the most now get what cannot be divided.
    """
    if not views:
        return {}
    each, rest = divmod(workers, len(views))
    order = sorted(views, key=lambda view: -view.asked)
    return {view.server: max(1, each + (place < rest)) for place, view in enumerate(order)}


def _number(value: float) -> float | None:
    return round(value, 4) if value == value else None  # noqa: PLR0124 - false of nan alone
