"""Start TorchServe, watch it and stop it, so that whatever ends `suffuse serve`, no process of it stays behind.

Three things see to its end: `Server.stop`; the kernel, which sends Java a SIGTERM when this process dies, were it by
kill -9; and the next start with the same state folder, which names and ends the processes that outlived both.
"""

import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from suffuse.errors import AuthorizationError, ConnectError, DeadlineError, ServerError, UnknownModelError
from suffuse.machine import available_cores
from suffuse.serving.management import Management
from suffuse.serving.process import (
    ChildProcess,
    end_marked_processes,
    loading_or_ready_workers,
    torchserve_command,
    torchserve_environment,
)
from suffuse.serving.settings import (
    Archive,
    ServerConfig,
    default_workers,
    effective_properties,
    find_archives,
    read_properties,
    refuse_taken_ports,
)
from suffuse.serving.state import StateFolder
from suffuse.serving.worker_watch import Loss, WorkerWatch, restart_lost
from suffuse.unix_signals import on_signals

__all__ = ["Beside", "Server", "ServerConfig", "run_until_signal"]

_LOG = logging.getLogger(__name__)
_STOP_LIMIT_S = 20.0  # Java ends in 1 to 3 s; it waits for running gRPC calls
_POLL_S = 0.25
_SOCKET_NAME = "tmp/.ts.sock.99999"  # in the state folder; TorchServe's numbers start at 9000
_SOCKET_PATH_LIMIT = 107  # bytes, of Linux
_TAIL_LINES = 12


class Server:
    """One TorchServe; as a context manager, one that is ready inside and gone afterwards.

    Args:
        config: what to serve and where.
        on_loss: called by `wait`, once a second, while workers are lost; None has them started anew.
    """

    def __init__(self, config: ServerConfig, on_loss: Callable[[Loss], None] | None = None) -> None:
        self.config = config
        self._on_loss = on_loss or self.start_anew
        self.state = (config.state or Path(f".suffuse/serve-{config.inference_port}")).absolute()
        self.key_file = self.state / "key_file.json"
        self.needs_key = True  # unless the configuration that a start reads says otherwise
        self.archives: tuple[Archive, ...] = ()
        self.ready = False
        self._record = self.state / "server.json"
        self._folder = StateFolder(self.state, self._record.name)
        self._stopping = threading.Event()
        self._java: ChildProcess | None = None
        self._log_starts: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Address for `Client` over REST."""
        return f"http://{reachable(self.config.host)}:{self.config.inference_port}"

    @property
    def grpc_url(self) -> str:
        """Address for `Client` over gRPC."""
        return f"grpc://{reachable(self.config.host)}:{self.config.grpc_inference_port}"

    @property
    def management_url(self) -> str:
        """Address for `Management`."""
        return f"http://{reachable(self.config.management_host)}:{self.config.management_port}"

    @property
    def metrics_url(self) -> str:
        """Address for Prometheus."""
        return f"http://{reachable(self.config.host)}:{self.config.metrics_port}/metrics"

    def start(self) -> None:
        """Start TorchServe; return when every model's workers are ready, or when a stop was requested.

        Raises:
            ServerError: it cannot run, or a worker does not load its model; the message has the log's end.
            BundleError: an archive is missing or unreadable.
        """
        self.archives = find_archives(self.config)
        properties = read_properties(self.config.config)
        off = properties.get("disable_token_authorization", "").lower() == "true"
        self.needs_key = self.config.authorization and not off
        planned = _plan(self.config, self.archives, default=default_workers(properties))
        try:
            self._own_state()
            refuse_taken_ports(self.config.listeners)
            self._launch(properties, workers=sum(planned.values()))
            self._bring_up(planned)
        except BaseException:
            self.stop()
            raise
        self.ready = not self._stopping.is_set()

    def wait(self) -> None:
        """Block until a stop is requested, and see to workers that TorchServe does not know to be lost.

        Raises:
            ServerError: TorchServe ended by itself, or does not start a lost worker anew.
        """
        with self._management() as management:
            watch = WorkerWatch(management, self._worker_pids)
            while not self._stopping.wait(_POLL_S):
                self._refuse_dead_java()
                for loss in watch.look():
                    self._on_loss(loss)

    def start_anew(self, loss: Loss) -> None:
        """Have lost workers replaced, in the running server.

        Raises:
            ServerError: TorchServe refuses.
        """
        _LOG.warning("%s; it is started anew", loss)
        with self._management() as management:
            restart_lost(management, loss)

    def request_stop(self) -> None:
        """Make `start` and `wait` return soon; for signal handlers and other threads."""
        self._stopping.set()

    def stop(self) -> None:
        """End TorchServe, its workers and what they started, and remove the keys; waiting requests are cut."""
        self._stopping.set()
        self.ready = False
        if not self._folder.owned:
            return
        if self._java is not None:
            self._java.end(_STOP_LIMIT_S)
        self._clear_state()
        self._folder.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _own_state(self) -> None:
        """Make the state folder ours alone, and remove what an earlier run left behind."""
        if (length := len(os.fsencode(self.state / _SOCKET_NAME))) > _SOCKET_PATH_LIMIT:
            raise ServerError(
                f"state folder {self.state}: its path is {length - _SOCKET_PATH_LIMIT} bytes too long for the sockets "
                "that TorchServe puts there; choose a shorter one"
            )
        self._folder.own()
        self._clear_state()
        (self.state / "tmp").mkdir()

    def _clear_state(self) -> None:
        """End the state folder's processes and remove all but logs and settings from it."""
        end_marked_processes(self.state, grace_s=5.0)
        self.key_file.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)
        shutil.rmtree(self.state / "tmp", ignore_errors=True)

    def _launch(self, properties: Mapping[str, str], workers: int) -> None:
        settings = self.state / "config.properties"
        settings.write_text(effective_properties(self.config, self.archives, properties), encoding="ascii")
        for name in ("workers.log", "server.log"):
            with contextlib.suppress(FileNotFoundError):
                self._log_starts[name] = (self.state / name).stat().st_size
        threads = self.config.threads or max(1, available_cores() // max(1, workers))
        vmargs = shlex.split(properties.get("vmargs", ""))
        self._java = ChildProcess(
            torchserve_command(vmargs, settings, self.state / "tmp"),
            torchserve_environment(self.state, threads),
            self.state,
            "java.log",
        )
        self._java.launch()
        ports = {purpose: port for purpose, (_, port) in self.config.listeners.items()}
        record = {"owner": os.getpid(), "java": self._java.pid, "ports": ports}
        self._record.write_text(json.dumps(record) + "\n", encoding="utf-8")

    def _bring_up(self, planned: Mapping[Archive, int]) -> None:
        """Wait for a first worker of each model, then set and await the number asked for."""
        deadline = time.monotonic() + self.config.ready_timeout_s
        with self._management() as management:
            self._await_workers(management, {a: min(1, n) for a, n in planned.items()}, deadline, first=True)
            if self.config.workers is not None and not self._stopping.is_set():
                for archive in planned:
                    management.scale(archive.model, self.config.workers, version=archive.version)
            self._await_workers(management, planned, deadline, first=False)

    def _management(self) -> Management:
        return Management(self.management_url, key_file=self.key_file if self.needs_key else None, timeout_s=5.0)

    def _await_workers(
        self, management: Management, wanted: Mapping[Archive, int], deadline: float, *, first: bool
    ) -> None:
        """Poll until each model has the wanted number of ready workers, or a stop is requested."""
        seen: set[int] = set()
        while not self._stopping.wait(_POLL_S):
            workers = self._worker_pids()
            # TorchServe would try again for five minutes, but a fault that ends the very first worker ends them all.
            # Later on, workers may also end because there are to be fewer.
            if first and seen - workers:
                raise ServerError(f"a worker ended while it loaded its model: {self._log_end('workers.log')}")
            seen = workers
            missing = self._missing(management, wanted)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"not ready within {self.config.ready_timeout_s:g} s: {', '.join(missing)}: "
                    f"{self._log_end('workers.log')}"
                )

    def _missing(self, management: Management, wanted: Mapping[Archive, int]) -> list[str]:
        """What keeps the server from being ready."""
        missing = []
        try:
            for archive, workers in wanted.items():
                ready = management.describe(archive.model, version=archive.version).ready_workers
                if ready < workers:
                    missing.append(f"model {archive.model} has {ready} of {workers} workers")
        except (AuthorizationError, ConnectError, DeadlineError):
            return ["TorchServe's management port does not answer yet"]
        except UnknownModelError as error:
            # TorchServe opens its ports after it has loaded all archives; those that it cannot load it leaves out.
            raise ServerError(f"TorchServe did not load {archive.file}: {self._log_end('server.log')}") from error
        return missing

    def _worker_pids(self) -> set[int]:
        self._refuse_dead_java()
        return set() if self._java is None else loading_or_ready_workers(self._java.pid)

    def _refuse_dead_java(self) -> None:
        if self._java is None or self._java.exit_status is None:
            return
        status = self._java.exit_status
        if status < 0:  # its logs cannot know why
            raise ServerError(f"TorchServe ended by {signal.Signals(-status).name} (logs: {self.state})")
        raise ServerError(f"TorchServe ended with exit status {status}: {self._log_end('server.log')}")

    def _log_end(self, name: str) -> str:
        """The last line of this run's log, which is a traceback's message, then where the log is and how it ends."""
        path = self.state / name
        if not path.exists() or path.stat().st_size <= self._log_starts.get(name, 0):
            path = self.state / "java.log"  # what Java prints before its logging works
        if not path.exists():
            return "no log was written"
        with path.open("rb") as log:
            start = self._log_starts.get(path.name, 0)
            log.seek(start if start < path.stat().st_size else 0)  # a log that has grown too large starts anew
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1].partition(" - ")[2] or lines[-1] if lines else "nothing was written"
        return "\n".join([f"{last} (log: {path})", *lines[-_TAIL_LINES:]])


Beside = Callable[[Server], contextlib.AbstractContextManager[object]]
"""What runs beside a server that is ready, and ends before it does."""


def run_until_signal(
    config: ServerConfig, on_ready: Callable[[Server], None], beside: Beside = contextlib.nullcontext
) -> None:
    """Serve until SIGINT or SIGTERM comes, then stop in good order; to be called in the main thread.

    Args:
        config: what to serve and where.
        on_ready: called once, when all models are ready.
        beside: what runs as long as the server is ready, such as an autoscaler.

    Raises:
        ServerError: as `Server.start` and `Server.wait`.
        BundleError: as `Server.start`.
    """
    server = Server(config)
    with on_signals(server.request_stop), server:
        if not server.ready:
            return
        with beside(server):
            on_ready(server)
            server.wait()


def _plan(config: ServerConfig, archives: Sequence[Archive], default: int) -> dict[Archive, int]:
    """Workers by archive."""
    own = {archive: default if archive.workers is None else archive.workers for archive in archives}
    return own if config.workers is None else dict.fromkeys(own, config.workers)


def reachable(host: str) -> str:
    """An address by which a server that listens on `host` can be asked from this machine."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
