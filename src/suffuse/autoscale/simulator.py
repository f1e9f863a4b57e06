"""Requests, a queue, batches and workers, event by event: what a rule would have done with a load.

The queue is TorchServe's: first come, first served; it refuses what is beyond its limit. One worker at a time collects
a batch: it takes the first request, then what comes within the batch delay, up to the batch size. Workers take seconds
to start. A rule is asked at equal intervals and sees what a controller would see.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Protocol

import numpy as np

from suffuse.autoscale.arrival_rate import arrival_rate
from suffuse.autoscale.arrivals import Arrivals, FloatArray, IntArray
from suffuse.autoscale.policy import Memory, Rule, Signals
from suffuse.errors import InputError

SERVICE_WINDOW_S = 30.0
"""Of what was answered within it the mean service time is taken."""


class Service(Protocol):
    """How long a worker takes for a batch, such as `ServiceTime`."""

    def draw(self, tokens: Sequence[int], random: Random, /) -> float:
        """Seconds for requests of these lengths."""


@dataclass(frozen=True)
class Stack:
    """The server that is simulated.

    Args:
        service: of one worker.
        batch_size: requests that a worker takes at once, at most.
        max_batch_delay_s: how long a worker waits for more than the first.
        queue_limit: requests that wait; one more is refused.
        overhead_s: added to each latency, while no worker is busy with it: network, balancer, server.
        handover_s: of a worker for each batch, beside its service: to be handed requests, and to hand over answers.
        start_s: the shortest and the longest time that a worker takes to start; every time between is as likely.
        poll_s: between two questions to the rule.

    Raises:
        InputError: a setting makes no sense.
    """

    service: Service
    batch_size: int = 64
    max_batch_delay_s: float = 0.001
    queue_limit: int = 100
    overhead_s: float = 0.003
    handover_s: float = 0.0
    start_s: tuple[float, float] = (3.5, 6.0)
    poll_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("batch_size", "queue_limit"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("max_batch_delay_s", "overhead_s", "handover_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name):g}; expected 0 or more")
        if not 0 < self.poll_s < float("inf"):
            raise InputError(f"poll_s is {self.poll_s:g}; expected more than 0")
        if not 0 <= self.start_s[0] <= self.start_s[1] < float("inf"):
            raise InputError(
                f"start_s is {self.start_s[0]:g} to {self.start_s[1]:g}; expected the shortest time, then the longest"
            )

    def seconds(self, tokens: Sequence[int], random: Random) -> float:
        """How long a worker is busy with requests of these lengths."""
        return self.handover_s + self.service.draw(tokens, random)


@dataclass(frozen=True)
class Outcome:
    """What came of a load.

    Args:
        times_s: when each request came, (R,).
        latencies_s: from there to its answer; infinite where it was refused, (R,).
        worker_seconds: of all workers, those that start or finish a batch included.
        change_times_s: when the number of ready workers changed, (C,).
        ready: how many there were from then on, (C,).
        duration_s: from the start to the last answer.
    """

    times_s: FloatArray
    latencies_s: FloatArray
    worker_seconds: float
    change_times_s: FloatArray
    ready: IntArray
    duration_s: float

    @property
    def refused(self) -> int:
        """Requests that the full queue refused."""
        return int(np.isinf(self.latencies_s).sum())

    def quantile_s(self, share: float) -> float:
        """Latency that `share` of all requests do not pass; a refused one takes for ever."""
        return float(np.quantile(self.latencies_s, share, method="higher"))

    def windows(self, window_s: float, share: float = 0.99) -> tuple[FloatArray, FloatArray]:
        """A quantile over time.

        Args:
            window_s: length of the windows.
            share: which quantile.

        Returns:
            Start of each window in which requests came, and the quantile of their latencies, (W,) each.
        """
        numbers = (self.times_s / window_s).astype(np.int64)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        parts = np.split(self.latencies_s, starts[1:])
        return (numbers[starts] * window_s).astype(np.float64), np.array(
            [np.quantile(part, share, method="higher") for part in parts]
        )

    def share_within(self, goal_s: float, window_s: float = 10.0) -> float:
        """Share of the windows of time whose 99th percentile keeps the goal; those without requests do not count."""
        return float((self.windows(window_s)[1] <= goal_s).mean())


def simulate(arrivals: Arrivals, stack: Stack, rule: Rule, *, seed: int = 0) -> Outcome:
    """Run a load.

    At the start the workers are ready that the rule wants while nothing comes.

    Args:
        arrivals: the load.
        stack: the server.
        rule: decides how many workers there are.
        seed: of service and start-up times; the same gives the same.
    """
    return _Run(arrivals, stack, rule, Random(seed)).outcome()


@dataclass(eq=False)
class _Worker:
    """One worker; `retiring` ones end with their batch."""

    ready: bool = False
    retiring: bool = False
    busy: bool = False


class _Run:
    """The state of a simulation, and what each event does to it."""

    def __init__(self, arrivals: Arrivals, stack: Stack, rule: Rule, random: Random) -> None:
        self._stack, self._rule, self._random = stack, rule, random
        self._times_s: list[float] = arrivals.times_s.tolist()
        self._tokens: list[int] = arrivals.tokens.tolist()
        self._horizon_s = arrivals.duration_s
        self._latencies_s = np.full(len(arrivals), np.inf)
        self._now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_number = 0
        self._unanswered = len(arrivals)
        self._queue: deque[int] = deque()
        self._batch: list[int] = []
        self._batch_number = 0
        self._collector: _Worker | None = None
        self._workers: list[_Worker] = []
        self._idle: deque[_Worker] = deque()
        self._in_flight = 0
        self._memory = Memory()
        self._worker_seconds, self._counted_until_s = 0.0, 0.0
        self._changes: list[tuple[float, int]] = []
        self._service = _RecentService(stack.seconds(self._tokens[:1], random))

    def outcome(self) -> Outcome:
        """Run until all requests are answered or refused."""
        self._first_workers()
        self._at(self._stack.poll_s, self._poll)
        arrived, total = 0, len(self._times_s)
        while self._unanswered:
            if arrived < total and (not self._events or self._times_s[arrived] <= self._events[0][0]):
                self._now_s = self._times_s[arrived]
                self._arrive(arrived)
                arrived += 1
            else:
                self._now_s, _, handle = heappop(self._events)
                handle()
        self._now_s = max(self._now_s, self._horizon_s)
        self._count_workers()
        change_times_s, ready = zip(*self._changes, strict=True)
        return Outcome(
            times_s=np.array(self._times_s),
            latencies_s=self._latencies_s,
            worker_seconds=self._worker_seconds,
            change_times_s=np.array(change_times_s),
            ready=np.array(ready),
            duration_s=self._now_s,
        )

    def _at(self, delay_s: float, handle: Callable[[], None]) -> None:
        self._event_number += 1
        heappush(self._events, (self._now_s + delay_s, self._event_number, handle))

    def _arrive(self, request: int) -> None:
        if self._batch:
            self._add(request)
        elif self._idle:
            self._collect(self._idle.popleft(), request)
        elif len(self._queue) < self._stack.queue_limit:
            self._queue.append(request)
        else:
            self._unanswered -= 1

    def _collect(self, worker: _Worker, first: int) -> None:
        """Begin a batch; what waits already is taken at once."""
        self._collector = worker
        self._batch_number += 1
        number = self._batch_number
        self._batch.append(first)
        while self._queue and len(self._batch) < self._stack.batch_size:
            self._batch.append(self._queue.popleft())
        if len(self._batch) == self._stack.batch_size or not self._stack.max_batch_delay_s:
            self._compute()
        else:
            self._at(self._stack.max_batch_delay_s, partial(self._end_delay, number))

    def _add(self, request: int) -> None:
        self._batch.append(request)
        if len(self._batch) == self._stack.batch_size:
            self._compute()

    def _end_delay(self, number: int) -> None:
        if self._batch and number == self._batch_number:
            self._compute()

    def _compute(self) -> None:
        worker, batch = self._collector, self._batch
        assert worker is not None  # noqa: S101 - there is no batch without its worker
        self._collector, self._batch = None, []
        worker.busy = True
        self._in_flight += len(batch)
        seconds = self._stack.seconds([self._tokens[request] for request in batch], self._random)
        self._at(seconds, partial(self._finish, worker, batch, seconds))
        self._look_for_work()

    def _finish(self, worker: _Worker, batch: list[int], seconds: float) -> None:
        for request in batch:
            self._latencies_s[request] = self._now_s - self._times_s[request] + self._stack.overhead_s
        self._unanswered -= len(batch)
        self._in_flight -= len(batch)
        self._service.add(self._now_s, seconds, len(batch))
        worker.busy = False
        if worker.retiring:
            self._remove(worker)
        else:
            self._idle.append(worker)
        self._look_for_work()

    def _look_for_work(self) -> None:
        # While one worker collects a batch nothing waits besides.
        if self._queue and self._idle:
            self._collect(self._idle.popleft(), self._queue.popleft())

    def _first_workers(self) -> None:
        # As a controller before any load: nothing comes, nothing waits, nothing is known but how long a request takes.
        signals = Signals(0.0, self._service.mean_s(0.0), 0, 0, 1, 0)
        decision, self._memory = self._rule.decide(signals, self._memory, 0.0)
        for _ in range(max(1, decision.workers)):
            worker = _Worker(ready=True)
            self._workers.append(worker)
            self._idle.append(worker)
        self._note_change()

    def _poll(self) -> None:
        ready = sum(worker.ready and not worker.retiring for worker in self._workers)
        signals = Signals(
            arrival_rate_per_s=arrival_rate(self._rate_within),
            service_s=self._service.mean_s(self._now_s),
            backlog=len(self._queue) + len(self._batch),
            in_flight=self._in_flight,
            ready=ready,
            starting=sum(not worker.ready for worker in self._workers),
        )
        decision, self._memory = self._rule.decide(signals, self._memory, self._now_s)
        self._scale(max(1, decision.workers))
        self._at(self._stack.poll_s, self._poll)

    def _rate_within(self, window_s: float) -> float:
        came = bisect_right(self._times_s, self._now_s) - bisect_left(self._times_s, self._now_s - window_s)
        return came / min(window_s, self._now_s)

    def _scale(self, wished: int) -> None:
        staying = [worker for worker in self._workers if not worker.retiring]
        self._count_workers()
        for _ in range(wished - len(staying)):
            worker = _Worker()
            self._workers.append(worker)
            self._at(self._random.uniform(*self._stack.start_s), partial(self._start, worker))
        # The last ones first: those that start, then those that are idle, then those that are busy.
        leaving = sorted(staying, key=lambda worker: (worker.ready, worker.busy or worker is self._collector))
        for worker in leaving[: max(0, len(staying) - wished)]:
            worker.retiring = True
            if worker in self._idle:
                self._idle.remove(worker)
            if not worker.busy and worker is not self._collector:
                self._remove(worker)
            else:
                self._note_change()

    def _start(self, worker: _Worker) -> None:
        if worker.retiring:
            return
        worker.ready = True
        self._idle.append(worker)
        self._note_change()
        self._look_for_work()

    def _remove(self, worker: _Worker) -> None:
        self._count_workers()
        self._workers.remove(worker)
        self._note_change()

    def _count_workers(self) -> None:
        """To be called before the number of workers changes."""
        self._worker_seconds += len(self._workers) * (self._now_s - self._counted_until_s)
        self._counted_until_s = self._now_s

    def _note_change(self) -> None:
        ready = sum(worker.ready and not worker.retiring for worker in self._workers)
        if not self._changes or self._changes[-1][1] != ready:
            self._changes.append((self._now_s, ready))


class _RecentService:
    """Seconds of a worker for one request, over what was answered lately."""

    def __init__(self, guess_s: float) -> None:
        self._last_s = guess_s
        self._batches: deque[tuple[float, float, int]] = deque()
        self._seconds, self._requests = 0.0, 0

    def add(self, now_s: float, seconds: float, requests: int) -> None:
        """A batch has been computed."""
        self._batches.append((now_s, seconds, requests))
        self._seconds += seconds
        self._requests += requests

    def mean_s(self, now_s: float) -> float:
        """The mean within the window; where nothing was answered, what it was before."""
        while self._batches and self._batches[0][0] < now_s - SERVICE_WINDOW_S:
            _, seconds, requests = self._batches.popleft()
            self._seconds -= seconds
            self._requests -= requests
        if self._requests:
            self._last_s = self._seconds / self._requests
        return self._last_s
