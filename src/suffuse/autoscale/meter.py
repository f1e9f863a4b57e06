"""How long a worker takes for one request, at the batch sizes in use: given, by a profile, or from servers' counters.

TorchServe counts no batches. So how many requests share one is told by Little's law: rate x seconds of a batch is the
number of requests that workers have in hand, and that over the number of workers is the batch, at least 1.
"""

from dataclasses import dataclass
from math import exp
from typing import Protocol

from suffuse.autoscale.scrape import ServerCounters
from suffuse.autoscale.service_time import Profile
from suffuse.autoscale.signals import Reading, ServerView
from suffuse.errors import InputError

MEMORY_S = 15.0
"""What was counted so long ago counts e times less; a change of the rows shows in this time."""
MOST_OVER_BATCH = 2.0
"""Times the seconds of a batch that a request is thought to take at most: a worker that hangs is no rule for others."""

_LEAST_REQUESTS = 1e-3  # of what is remembered; below, the last time stands


class Meter(Protocol):
    """Tells the service time of what has been read so far."""

    @property
    def service_s(self) -> float | None:
        """Seconds of a worker for one request; None where nothing is known yet."""

    def update(self, reading: Reading) -> None:
        """Take one more reading into account."""


@dataclass(frozen=True)
class GivenTime:
    """A service time that somebody knows.

    Args:
        service_s: in seconds.

    Raises:
        InputError: it is no time.
    """

    service_s: float

    def __post_init__(self) -> None:
        if not 0 < self.service_s < float("inf"):
            raise InputError(f"the service time is {self.service_s * 1000:g} ms; expected more than 0")

    def update(self, reading: Reading) -> None:
        """Nothing changes it."""


class ProfiledTime:
    """What a profile expects of the batches that the rate makes.

    The batch is the smallest with which the ready workers keep up, at most the server's; its requests have the lengths
    that are in the profile, evenly drawn.

    Args:
        profile: of `suffuse profile`.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._lengths = sorted(profile.lengths)
        self._batches_s: dict[int, float] = {}
        self._batch = 1
        self._rate = 0.0
        self._at_s: float | None = None

    @property
    def service_s(self) -> float:
        """As `Meter.service_s`; never None."""
        return self._batch_s(self._batch) / self._batch

    def update(self, reading: Reading) -> None:
        """As `Meter.update`."""
        if not reading.views or not reading.ready or reading.arrival_rate_per_s is None:
            return
        kept = _kept(self._at_s, reading.at_s)
        self._at_s = reading.at_s
        self._rate = kept * self._rate + (1 - kept) * reading.arrival_rate_per_s
        most = min(view.batch_size for view in reading.views)
        rate = self._rate / reading.ready
        self._batch = next((size for size in range(1, most) if size >= rate * self._batch_s(size)), most)

    def _batch_s(self, size: int) -> float:
        if size not in self._batches_s:
            count = len(self._lengths)
            tokens = [self._lengths[(2 * i + 1) * count // (2 * size)] for i in range(size)]
            self._batches_s[size] = self._profile.service.seconds(tokens)
        return self._batches_s[size]


@dataclass
class _Sums:
    """What is remembered, all of it fading at one pace, so that its ratios are means.

    Args:
        answered: requests.
        answered_unsaturated: those of them answered while a worker may have been free.
        saturated_s: seconds of workers while requests waited, so that all were busy.
        available_s: seconds of ready workers at any time.
        in_hand_s: seconds that requests over REST were with a worker.
        batches_s: seconds of the last batch, one for each request.
    """

    answered: float = 0.0
    answered_unsaturated: float = 0.0
    saturated_s: float = 0.0
    available_s: float = 0.0
    in_hand_s: float = 0.0
    batches_s: float = 0.0

    def fade(self, kept: float) -> None:
        for name, value in vars(self).items():
            setattr(self, name, kept * value)


class MeasuredTime:
    """Out of TorchServe's own metrics, over the last `MEMORY_S` seconds or so.

    While requests wait in a server's queue its workers are all busy, and workers x seconds / answers is the service
    time, whatever the batches. Otherwise it is the seconds of a batch over the requests that share one. The seconds of
    a batch are the larger of two figures that are both too small where they are wrong: those that requests spent with a
    worker, which TorchServe counts over REST alone; and those of the last batch, which leave out what it takes to hand
    requests over.
    """

    def __init__(self) -> None:
        self._sums = _Sums()
        self._before: dict[str, ServerView] = {}
        self._at_s: float | None = None
        self._batch_size = 1
        self._service_s: float | None = None

    @property
    def service_s(self) -> float | None:
        """As `Meter.service_s`."""
        return self._service_s

    def update(self, reading: Reading) -> None:
        """As `Meter.update`."""
        if self._at_s is not None and reading.at_s > self._at_s:
            self._sums.fade(_kept(self._at_s, reading.at_s))
            for view in reading.views:
                before = self._before.get(view.server)
                if before is not None:
                    self._add(before, view, reading.at_s - self._at_s)
        self._at_s = reading.at_s
        self._before = {view.server: view for view in reading.views}
        self._batch_size = min((view.batch_size for view in reading.views), default=self._batch_size)
        self._service_s = self._mean_s() or self._service_s

    def _add(self, before: ServerView, view: ServerView, elapsed_s: float) -> None:
        if view.counters is None or before.counters is None or not _comparable(before, view):
            return
        answered = max(0.0, view.counters.arrived - before.counters.arrived - (view.pending - before.pending))
        worker_s = min(before.ready, view.ready) * elapsed_s
        saturated = before.pending > 0 and view.pending > 0
        if not answered and not saturated:
            return  # an idle time says nothing of batches
        sums = self._sums
        sums.answered += answered
        sums.available_s += worker_s
        sums.in_hand_s += max(0.0, view.counters.in_hand_s - before.counters.in_hand_s)
        sums.batches_s += answered * (view.counters.batch_s or 0.0)
        if saturated:
            sums.saturated_s += worker_s
        else:
            sums.answered_unsaturated += answered

    def _mean_s(self) -> float | None:
        sums = self._sums
        if sums.answered < _LEAST_REQUESTS:
            return None
        batch_s = max(sums.in_hand_s, sums.batches_s) / sums.answered
        if batch_s <= 0:
            return None
        in_hand = sums.answered * batch_s
        batch = min(self._batch_size, max(1.0, in_hand / sums.available_s)) if sums.available_s else 1.0
        mean_s = (sums.saturated_s + sums.answered_unsaturated * batch_s / batch) / sums.answered
        return min(MOST_OVER_BATCH * batch_s, max(batch_s / self._batch_size, mean_s))


def _comparable(before: ServerView, view: ServerView) -> bool:
    """Whether counters grew by what was answered: not after a restart, and not where a full queue refused some."""
    started_anew = _counted(view.counters) < _counted(before.counters)
    return not started_anew and before.remaining > 0 and view.remaining > 0


def _counted(counters: ServerCounters | None) -> float:
    return 0.0 if counters is None else counters.arrived


def _kept(before_s: float | None, now_s: float) -> float:
    """The part of what is remembered that is kept after so long."""
    return 0.0 if before_s is None else exp(-max(0.0, now_s - before_s) / MEMORY_S)
