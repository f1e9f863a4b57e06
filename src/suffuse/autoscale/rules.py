"""Rivals of the policy, so that `plan` can say what each costs on the same load.

Both rules of Kubernetes go through its HorizontalPodAutoscaler (HPA), whose algorithm and defaults are described at
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ : every 15 s the wish is the workers there
are x measured / target, rounded up; within 10 % of the target nothing changes; at most twice as many, or four more,
within 15 s; and of all wishes of the last 300 s the largest counts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil

from suffuse.autoscale.policy import Decision, Memory, Signals
from suffuse.errors import InputError


@dataclass(frozen=True)
class Fixed:
    """Always so many workers."""

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}; expected at least 1")

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:  # noqa: ARG002 - of Rule
        """As `Rule.decide`."""
        return Decision(self.workers, "fixed"), memory


@dataclass(frozen=True)
class _Observed(Memory):
    """What an HPA remembers: its last synchronisation, samples since then, and the wishes of its window."""

    synced_at_s: float = 0.0
    usage: float = 0.0
    samples: int = 0
    wishes: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Hpa(ABC):
    """The algorithm of the HPA; a subclass says what it looks at.

    Args:
        min_workers: never fewer.
        max_workers: never more.
        sync_s: seconds between two decisions.
        tolerance: change of the ratio that is ignored.
        down_window_s: seconds of wishes of which the largest counts.
    """

    min_workers: int
    max_workers: int
    sync_s: float = 15.0
    tolerance: float = 0.1
    down_window_s: float = 300.0

    @abstractmethod
    def usage(self, signals: Signals) -> float:
        """What is measured over its target for one worker: the workers that would meet the target."""

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        """As `Rule.decide`; what is measured is averaged between synchronisations."""
        current = memory.workers or max(self.min_workers, min(self.max_workers, signals.workers))
        if not isinstance(memory, _Observed):
            memory = _Observed(current, synced_at_s=now_s)
        usage, samples = memory.usage, memory.samples
        if signals.readable:
            usage, samples = usage + self.usage(signals), samples + 1
        if now_s - memory.synced_at_s < self.sync_s or not samples:
            return Decision(current, "sync"), _Observed(
                current, synced_at_s=memory.synced_at_s, usage=usage, samples=samples, wishes=memory.wishes
            )
        wish = self._wish(usage / samples, current)
        wishes = (*(old for old in memory.wishes if old[0] > now_s - self.down_window_s), (now_s, wish))
        workers = min(current, max(wish for _, wish in wishes)) if wish < current else wish
        return Decision(workers, "hpa"), _Observed(workers, synced_at_s=now_s, wishes=wishes)

    def _wish(self, usage: float, current: int) -> int:
        if abs(usage / current - 1) <= self.tolerance:
            return current
        most = min(self.max_workers, max(2 * current, current + 4))
        return max(self.min_workers, min(most, ceil(min(usage, 1e9))))


@dataclass(frozen=True)
class CpuRule(Hpa):
    """An HPA that looks at processor use, which is what it does unless told otherwise.

    Args:
        target_utilization: of the ready workers' processors.
    """

    target_utilization: float = 0.7

    def usage(self, signals: Signals) -> float:
        """Busy workers over the target; where requests wait all are busy, and more than busy cannot be seen."""
        busy = signals.ready if signals.backlog > 0 else min(signals.ready, signals.load)
        return busy / self.target_utilization


@dataclass(frozen=True)
class QueueLengthRule(Hpa):
    """An HPA that looks at the requests under way, as KEDA sets it up (https://keda.sh/docs/latest/concepts/).

    Args:
        target_per_worker: requests, waiting or in hand, for each worker.
    """

    target_per_worker: float = 4.0

    def usage(self, signals: Signals) -> float:
        """Requests over the target for one worker."""
        return (signals.backlog + signals.in_flight) / self.target_per_worker
