"""Take one instance out of the traffic without a lost request, and put it back when the balancer calls it up."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.record import StackRecord
from suffuse.errors import ClientError, ServerError
from suffuse.serving.management import Management

_POLL_S = 0.1
_EMPTY_LIMIT_S = 5.0  # meanwhile the other instances carry the load


class Drain:
    """One instance in all of HAProxy's backends.

    Args:
        admin: HAProxy's.
        models: those that the instance serves.
        instance: its name.
    """

    def __init__(self, admin: AdminSocket, models: Sequence[str], instance: str) -> None:
        self._admin = admin
        self._models = models
        self._instance = instance

    def begin(self) -> None:
        """Send it no more requests.

        Raises:
            ServerError: no other instance is up, so that requests would be refused meanwhile; or HAProxy is not there.
        """
        for model in self._models:
            others = [server for server, status in self._up(f"rest_{model}") if server != self._instance and status]
            if not others:
                raise ServerError(
                    f"instance {self._instance} cannot be drained: no other instance of model {model!r} is up; "
                    "wait until one is"
                )
        self._set("drain")

    def cut(self) -> None:
        """Have HAProxy send elsewhere what the instance has not answered yet, and make no more checks until `end`.

        Raises:
            ServerError: HAProxy is not there.
        """
        self._set("maint")

    def end(self) -> None:
        """Let it have requests again; it gets some when its check finds it up.

        Raises:
            ServerError: HAProxy is not there.
        """
        self._set("ready")

    def await_idle(self, management_url: str, timeout_s: float) -> None:
        """Return when it has no request any more, neither under way nor in TorchServe's queue.

        Args:
            management_url: the instance's, without a key.
            timeout_s: time limit, in seconds.

        Raises:
            ServerError: it still has some.
        """
        with Management(management_url, timeout_s=2.0) as management:
            if not _wait_for(lambda: not self._sessions() and not self._pending(management), timeout_s):
                raise ServerError(
                    f"instance {self._instance} still has {self._sessions()} requests after {timeout_s:g} s of draining"
                )

    def await_up(self, timeout_s: float) -> None:
        """Return when HAProxy finds it up for every model.

        Raises:
            ServerError: it does not in `timeout_s` seconds.
        """
        if not _wait_for(self._is_up, timeout_s):
            raise ServerError(f"instance {self._instance} is not up in the balancer after {timeout_s:g} s")

    def _set(self, state: str) -> None:
        for model in self._models:
            for transport in ("rest", "grpc"):
                self._admin.set_state(f"{transport}_{model}", self._instance, state)

    def _up(self, backend: str) -> list[tuple[str, bool]]:
        """Servers of a backend, and whether each gets new requests."""
        rows = [row for row in self._admin.stats() if row["pxname"] == backend and row["svname"] != "BACKEND"]
        return [(row["svname"], row["status"].startswith("UP")) for row in rows]

    def _is_up(self) -> bool:
        backends = [f"{transport}_{model}" for model in self._models for transport in ("rest", "grpc")]
        return all(dict(self._up(backend)).get(self._instance, False) for backend in backends)

    def _sessions(self) -> int:
        rows = [row for row in self._admin.stats() if row["svname"] == self._instance]
        return sum(int(row["scur"]) for row in rows)

    def _pending(self, management: Management) -> int:
        """Requests in the instance's own queues; none where it does not answer, as it then has nothing to lose."""
        try:
            return sum(state.pending for model in self._models for state in management.versions(model))
        except ClientError:
            return 0


@contextmanager
def emptied(record: StackRecord, management_url: str) -> Iterator[None]:
    """An instance without requests, in which workers may be taken away; it has none until they are gone.

    TorchServe may lose what a worker that it ends has in hand. Over gRPC it may even answer it and give it to another
    worker as well, whose own answer then ends that one's thread, and nothing tells so.

    Args:
        record: of the running stack.
        management_url: the instance's.

    Raises:
        ServerError: no other instance is up, or its requests do not end soon.
    """
    instance = next(one.name for one in record.instances if one.management_url == management_url)
    drain = Drain(AdminSocket(record.admin_socket), record.models, instance)
    drain.begin()
    try:
        drain.await_idle(management_url, _EMPTY_LIMIT_S)
        yield
        with Management(management_url, timeout_s=2.0) as management:
            _wait_for(lambda: not _surplus(management, record.models), _EMPTY_LIMIT_S)
    finally:
        drain.end()


def _surplus(management: Management, models: Sequence[str]) -> bool:
    """Whether there still are more workers than were asked for."""
    states = (state for model in models for state in management.versions(model))
    return any(len(state.workers) > state.min_workers for state in states)


def _wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
