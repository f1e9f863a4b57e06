"""N servers of one machine: their names, ports, folders and threads, and each kept running whatever ends it."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from suffuse.balancing.config import Instance
from suffuse.balancing.record import InstanceRecord
from suffuse.errors import DeadlineError, ServerError, SuffuseError
from suffuse.machine import available_cores
from suffuse.serving.server import Server
from suffuse.serving.settings import Archive, ServerConfig, default_workers, find_archives, read_properties
from suffuse.serving.worker_watch import Loss

_LOG = logging.getLogger(__name__)
_PORTS_EACH = 10  # five are used; the next instance's begin at a round number
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SETTLED_S = 60.0  # a server that ran so long did not end because of how it was started
_MOST_IN_FLIGHT = 400  # REST and gRPC together stay below the job_queue_size of config.properties, 1000


def instance_configs(
    server: ServerConfig, count: int, *, first_port: int, state: Path, most_workers: int | None = None
) -> dict[str, ServerConfig]:
    """A server's configuration, N times: by name, on ports of its own, without keys, on loopback.

    Args:
        server: what each serves; its addresses, ports, state folder and authorization are replaced.
        count: N.
        first_port: the first instance's first port; the next one's is ten higher.
        state: the folder of their state folders.
        most_workers: workers of a model that one instance may come to have, where an autoscaler adds some.

    Raises:
        BundleError: as `suffuse.serving.settings.find_archives`.
    """
    workers = sum(max(planned, most_workers or 0) for planned in _planned_workers(server).values())
    threads = server.threads or max(1, available_cores() // max(1, count * workers))
    configs = {}
    for index in range(count):
        port = first_port + _PORTS_EACH * index
        configs[f"i{index + 1}"] = replace(
            server.at_ports(*range(port, port + 5)),
            threads=threads,
            host="127.0.0.1",
            management_host="127.0.0.1",
            authorization=False,
            state=state / f"i{index + 1}",
        )
    return configs


def in_flight(server: ServerConfig, most_workers: int | None = None) -> int:
    """Requests that one instance should have at a time, so that batches are full and no more wait there than need be.

    Args:
        server: what it serves.
        most_workers: as for `instance_configs`.
    """
    planned = _planned_workers(server)
    most = max(max(workers, most_workers or 0) * archive.batch_size for archive, workers in planned.items())
    return min(max(8, 2 * most), _MOST_IN_FLIGHT)


def balanced(name: str, config: ServerConfig) -> Instance:
    """An instance as the balancer sees it."""
    return Instance(name, config.host, config.inference_port, config.grpc_inference_port, config.management_port)


def recorded(name: str, config: ServerConfig) -> InstanceRecord:
    """An instance as other programs are told of it."""
    server = Server(config)
    return InstanceRecord(name, server.url, server.grpc_url, server.management_url, key_file=None)


class InstanceKeeper(threading.Thread):
    """Keeps one instance running: what ends by itself is cleared away, and started again after a pause that grows.

    Workers that are lost it only tells of, since the instance has to be drained before anything is done about them.

    Args:
        name: the instance's.
        config: its own.
    """

    def __init__(self, name: str, config: ServerConfig) -> None:
        super().__init__(name=f"suffuse {name}", daemon=True)
        self.instance = name
        self.config = config
        self._changed = threading.Condition()
        self._server: Server | None = None
        self._ending = False
        self._asked_again = False
        self._starts = 0  # that came to be ready
        self._ready = False
        self._failure: Exception | None = None
        self._loss: Loss | None = None

    @property
    def ready(self) -> bool:
        """Whether all its models are ready."""
        return self._ready

    @property
    def loss(self) -> Loss | None:
        """Workers that it has lost."""
        return self._loss

    @property
    def starts(self) -> int:
        """How often it has become ready."""
        return self._starts

    def await_ready(self, timeout_s: float, *, beyond: int = 0) -> None:
        """Return when it is ready, and has been more often than `beyond` times.

        Raises:
            DeadlineError: it has not come to be in `timeout_s` seconds; the message has what went wrong last.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._ending or (self._ready and self._starts > beyond), timeout_s):
                return
        why = f": {self._failure}" if self._failure else ""
        raise DeadlineError(f"instance {self.instance} is not ready after {timeout_s:g} s{why}")

    def refuse_failed_start(self) -> None:
        """Raise what kept it from its first start.

        Raises:
            ServerError: it has failed, and never been ready.
        """
        if self._failure is not None and not self._starts:
            raise ServerError(f"instance {self.instance}: {self._failure}") from self._failure

    def start_again(self) -> None:
        """End the server and start a new one; requests that it has are cut: drain it first. Returns at once."""
        with self._changed:
            self._asked_again = True
            self._ready = False
            if self._server is not None:
                self._server.request_stop()
            self._changed.notify_all()

    def restart_lost_workers(self) -> None:
        """Start anew what it has lost, within the running server; or the server, where that does not work."""
        with self._changed:
            server, loss, self._loss = self._server, self._loss, None
        if server is None or loss is None:
            return
        try:
            server.start_anew(loss)
        except ServerError as error:
            _LOG.warning("instance %s: %s", self.instance, error)
            self.start_again()

    def request_stop(self) -> None:
        """Have the thread end the server, and then itself."""
        with self._changed:
            self._ending = True
            if self._server is not None:
                self._server.request_stop()
            self._changed.notify_all()

    def run(self) -> None:
        """Serve until a stop is requested; for `start`."""
        pause_s = _FIRST_PAUSE_S
        while (server := self._next_server()) is not None:
            begin = time.monotonic()
            self._serve(server)
            settled = time.monotonic() - begin > _SETTLED_S
            pause_s = _FIRST_PAUSE_S if settled else min(2 * pause_s, _LONGEST_PAUSE_S)
            with self._changed:
                if self._changed.wait_for(lambda: self._ending or self._asked_again, pause_s):
                    pause_s = _FIRST_PAUSE_S

    def _next_server(self) -> Server | None:
        with self._changed:
            self._asked_again = False
            self._server = None if self._ending else Server(self.config, self._note_loss)
            self._loss = None
            return self._server

    def _serve(self, server: Server) -> None:
        """One server, from its start to its end; however it ends, none of its processes is left."""
        try:
            with server:
                if server.ready:
                    self._note_ready()
                server.wait()
        except (SuffuseError, OSError) as error:  # the latter: such as a full disk
            _LOG.warning("instance %s: %s", self.instance, error)
            self._note_failure(error)
        finally:
            self._ready = False

    def _note_loss(self, loss: Loss) -> None:
        self._loss = loss

    def _note_ready(self) -> None:
        with self._changed:
            self._ready = True
            self._failure = None
            self._starts += 1
            self._changed.notify_all()
        _LOG.info("instance %s is ready", self.instance)

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            self._ready = False
            self._failure = error
            self._changed.notify_all()


def _planned_workers(server: ServerConfig) -> Mapping[Archive, int]:
    default = default_workers(read_properties(server.config))
    own = {archive: default if archive.workers is None else archive.workers for archive in find_archives(server)}
    return own if server.workers is None else dict.fromkeys(own, server.workers)
