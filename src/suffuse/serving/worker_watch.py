"""Find workers that TorchServe has lost and does not know of, and have it start others in their place.

A gRPC request that is answered twice, as can happen when workers are taken away under load, ends a worker's thread in
Java before it has noted that. Its process ends as well, but the management API calls the worker READY for ever, and
nothing starts another one. With a batch, the requests in it that have no answer yet never get one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from suffuse.errors import ClientError, ServerError
from suffuse.serving.management import Management, ModelState, Worker

LOOK_S = 1.0
PATIENCE_S = 3.0
"""So long a worker is missed before it is taken for lost. TorchServe itself notes a dead one within milliseconds."""


@dataclass(frozen=True)
class Loss:
    """Workers of one version of a model that are READY by TorchServe's word, and no process of its any more.

    Args:
        state: how the version stands.
        workers: those of `state` that are lost, at least one.
    """

    state: ModelState
    workers: tuple[Worker, ...]

    def __str__(self) -> str:
        names = ", ".join(f"{worker.id} (process {worker.pid})" for worker in self.workers)
        return (
            f"model {self.state.name!r}, version {self.state.version}: TorchServe calls worker {names} READY, "
            "and there is no such process"
        )


class WorkerWatch:
    """Looks after the workers of one TorchServe.

    Args:
        management: of the server.
        running: process ids of its workers.
        clock: in seconds.
    """

    def __init__(
        self, management: Management, running: Callable[[], set[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._management = management
        self._running = running
        self._clock = clock
        self._missed_since: dict[tuple[str, int], float] = {}  # by worker and process
        self._looked_at_s = clock()

    def look(self) -> tuple[Loss, ...]:
        """Find what has been lost for `PATIENCE_S`; asks once in `LOOK_S`, and says nothing where nobody answers."""
        now_s = self._clock()
        if now_s - self._looked_at_s < LOOK_S:
            return ()
        self._looked_at_s = now_s
        try:
            states = [s for model in self._management.models() for s in self._management.versions(model)]
        except ClientError:
            return ()
        running = self._running()  # asked last, so that a worker which has just started is among them
        missed = {(w.id, w.pid) for state in states for w in state.workers if w.ready and w.pid not in running}
        self._missed_since = {key: self._missed_since.get(key, now_s) for key in missed}
        lost = {key for key, since_s in self._missed_since.items() if now_s - since_s >= PATIENCE_S}
        losses = (Loss(state, tuple(w for w in state.workers if (w.id, w.pid) in lost)) for state in states)
        return tuple(loss for loss in losses if loss.workers)


def restart_lost(management: Management, loss: Loss) -> None:
    """Have TorchServe drop the lost workers and start as many anew; requests that wait in its queue are answered then.

    It drops the last workers first, so those that came after a lost one are started anew with it.

    Args:
        management: of the server.
        loss: which workers.

    Raises:
        ServerError: it refuses, and may be left with too few workers: end it.
    """
    state = loss.state
    try:
        management.scale(state.name, state.workers.index(loss.workers[0]), state.version)
        management.scale(state.name, state.min_workers, state.version)
    except ClientError as error:
        raise ServerError(f"{loss}; it cannot be started anew: {error}") from error
