"""What was measured of a load: a row a request, and the figures that are made of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.load_test.workers import Workers

FloatArray = NDArray[np.float64]

QUANTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
WINDOW_S = 10.0
"""In which a goal is to be met as well: a minute of trouble must not vanish in an hour's figures."""

OK, REFUSED = "ok", "refused"

_LATE_S = 0.01
_LATE_SHARE = 0.1
_BUSY = 0.9


@dataclass(frozen=True, eq=False)
class LoadResult:
    """A finished load; times are in seconds from its start.

    Args:
        start_s: when each request was to be sent, ascending, (R,).
        sent_s: when it was, (R,).
        latency_s: from `start_s` until its answer was whole, or it had failed, (R,).
        transport: ``rest`` or ``grpc``, (R,).
        outcome: ``ok``, ``refused``, or the kind of the failure: ``wrong answer``, ``timeout``, ``connection``, ``http
            STATUS``, ``grpc CODE``, ``error CODE``, ``key refused``, (R,).
        duration_s: how long requests were sent.
        started_at: seconds since 1970.
        generator_cpu_s: processor time that the generator used.
        held_back: requests that waited since `most_in_flight` were under way.
        examples: kind of failure -> some of its messages.
        workers: numbers of the server's workers meanwhile.
    """

    start_s: FloatArray
    sent_s: FloatArray
    latency_s: FloatArray
    transport: NDArray[np.str_]
    outcome: NDArray[np.str_]
    duration_s: float
    started_at: float
    generator_cpu_s: float
    held_back: int
    examples: Mapping[str, Sequence[str]]
    workers: Workers

    @classmethod
    def read(cls, path: Path, workers: Workers) -> "LoadResult":
        """What the child process wrote."""
        with np.load(path) as file:
            columns = {name: file[name] for name in file.files}
        seen = json.loads(str(columns.pop("seen")))
        order = np.argsort(columns["due_s"], kind="stable")  # the child writes them as they end
        columns = {name: column[order] for name, column in columns.items()}
        return cls(
            start_s=columns["due_s"],
            sent_s=columns["sent_s"],
            latency_s=columns["end_s"] - columns["due_s"],
            transport=np.array(seen["transports"])[columns["transport"]],
            outcome=np.array(seen["outcomes"])[columns["outcome"]],
            duration_s=seen["duration_s"],
            started_at=seen["started_at"],
            generator_cpu_s=seen["cpu_s"],
            held_back=seen["held_back"],
            examples=seen["examples"],
            workers=workers,
        )

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def answered(self) -> int:
        """Requests with a right answer."""
        return int((self.outcome == OK).sum())

    @property
    def refused(self) -> int:
        """Requests that the server refused for lack of room."""
        return int((self.outcome == REFUSED).sum())

    @property
    def failed(self) -> int:
        """Requests that were neither answered rightly nor refused."""
        return len(self) - self.answered - self.refused

    @property
    def failures(self) -> dict[str, int]:
        """Kind -> number, most frequent first, refusals included."""
        kinds, counts = np.unique(self.outcome[self.outcome != OK], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return {str(kinds[index]): int(counts[index]) for index in order}

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return self.answered / self.duration_s

    @property
    def sent_rate(self) -> float:
        """Requests a second."""
        return len(self) / self.duration_s

    def percentile(self, q: float) -> float:
        """Latency in seconds that `q` of 100 answered requests keep to; infinite where none was answered."""
        return _percentile(self.latency_s[self.outcome == OK], q)

    def percentile_of_all(self, q: float) -> float:
        """The same of all requests, where one that was refused or failed was never answered."""
        return _percentile(self.waits_s, q)

    @property
    def waits_s(self) -> FloatArray:
        """Latency of each request, infinite where it was refused or failed, (R,)."""
        return np.where(self.outcome == OK, self.latency_s, np.inf)

    @property
    def send_lag_s(self) -> FloatArray:
        """How late each request was sent, (R,)."""
        return self.sent_s - self.start_s

    @property
    def send_lag_p99_s(self) -> float:
        """How late 1 of 100 requests was sent, or later; 0 without requests."""
        return _percentile(self.send_lag_s, 99) if len(self) else 0.0

    def of(self, transport: str) -> "LoadResult":
        """The requests that went over one transport."""
        return self.where(self.transport == transport)

    def between(self, start_s: float, end_s: float) -> "LoadResult":
        """The requests that were to be sent from `start_s` on and before `end_s`; `duration_s` is that between."""
        part = self.where((self.start_s >= start_s) & (self.start_s < end_s))
        return replace(part, duration_s=min(end_s, self.duration_s) - start_s)

    def where(self, chosen_r: NDArray[np.bool_]) -> "LoadResult":
        """Some of the requests."""
        names = ("start_s", "sent_s", "latency_s", "transport", "outcome")
        return replace(self, **{name: getattr(self, name)[chosen_r] for name in names})

    def windows(self, width_s: float = WINDOW_S) -> list["LoadResult"]:
        """The requests of each stretch of `width_s` seconds, in order; the last may be shorter."""
        count = max(1, int(np.ceil(self.duration_s / width_s - 1e-9)))
        return [self.between(index * width_s, (index + 1) * width_s) for index in range(count)]

    def windows_within(self, goal_s: float, width_s: float = WINDOW_S) -> float:
        """The share of those stretches, of those with requests, whose p99 of all requests is within `goal_s`."""
        met = [window.percentile_of_all(99) <= goal_s for window in self.windows(width_s) if len(window)]
        return float(np.mean(met)) if met else 0.0

    def generator_fault(self, goal_s: float) -> str | None:
        """Why the figures may be the generator's rather than the server's; None where they are not."""
        late_s = self.send_lag_p99_s
        busy = self.generator_cpu_s / self.duration_s
        if self.held_back:
            return (
                f"{self.held_back} requests waited to be sent, as many as allowed being in flight; the server is "
                "overloaded, or the bound too low"
            )
        if late_s > max(_LATE_S, _LATE_SHARE * goal_s):
            return (
                f"1 of 100 requests was sent {late_s * 1000:.0f} ms late or more; the generator was too slow, and "
                "latencies hold its delay: take a lower rate, or a machine with more free cores"
            )
        if busy > _BUSY:
            return f"the generator used {busy:.0%} of a core, and it has one; take a lower rate, or several generators"
        return None

    def as_json(self, goal_s: float) -> dict[str, Any]:
        """Every figure, for programs; null stands for never."""
        return {
            "verdict": {"met": self.meets(goal_s), "goal_p99_ms": goal_s * 1000, "reason": self.verdict(goal_s)},
            "started_at": self.started_at,
            "duration_s": self.duration_s,
            **self._figures(goal_s),
            "by_transport": {str(name): self.of(name)._figures(goal_s) for name in np.unique(self.transport)},
            "failures": {
                kind: {"requests": count, "examples": list(self.examples.get(kind, ()))}
                for kind, count in self.failures.items()
            },
            "windows": [
                {"start_s": index * WINDOW_S, **window._figures(goal_s)} for index, window in enumerate(self.windows())
            ],
            "workers": self.workers.as_json(),
            "generator": {
                "cpu_ms_per_request": self.generator_cpu_s * 1000 / max(1, len(self)),
                "cpu_share": self.generator_cpu_s / self.duration_s,
                "send_lag_p99_ms": _ms(self.send_lag_p99_s),
                "held_back": self.held_back,
                "warning": self.generator_fault(goal_s),
            },
        }

    def meets(self, goal_s: float) -> bool:
        """Whether 99 of 100 requests were answered rightly within `goal_s`."""
        return self.percentile_of_all(99) <= goal_s

    def verdict(self, goal_s: float) -> str:
        """The same in words."""
        goal = f"{goal_s * 1000:g} ms"
        p99_s = self.percentile_of_all(99)
        if np.isfinite(p99_s):
            return f"p99 is {p99_s * 1000:.0f} ms; the goal of {goal} is {'met' if self.meets(goal_s) else 'missed'}"
        if not len(self):
            return f"no request was sent; the goal of {goal} is missed"
        within = float(np.mean(self.waits_s <= goal_s))
        return (
            f"of {len(self):,} requests {self.refused:,} were refused and {self.failed:,} failed; {within:.1%} were "
            f"answered within {goal}; the goal is 99%"
        )

    def _figures(self, goal_s: float) -> dict[str, Any]:
        return {
            "requests": len(self),
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "rate_per_s": self.rate,
            "sent_per_s": self.sent_rate,
            "answered_latency_ms": {quantile_name(q): _ms(self.percentile(q)) for q in QUANTILES},
            "p99_of_all_ms": _ms(self.percentile_of_all(99)),
            "within_goal": float(np.mean(self.waits_s <= goal_s)) if len(self) else None,
            "windows_within_goal": self.windows_within(goal_s),
        }


def quantile_name(q: float) -> str:
    """Such as p99.9; the last is max."""
    return f"p{q:g}" if q < 100 else "max"


def _percentile(values: FloatArray, q: float) -> float:
    """By the value at the rank rounded up: infinite ones cannot be interpolated with."""
    return float(np.percentile(values, q, method="inverted_cdf")) if len(values) else float("inf")


def _ms(seconds: float) -> float | None:
    return round(seconds * 1000, 3) if np.isfinite(seconds) else None
