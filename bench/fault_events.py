"""What happens to a stack under load in bench/faults.py: each event returns when the stack is whole again."""

import ctypes
import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from slow_handler import slow_archive
from suffuse.autoscale.beside import AutoscalerProcess
from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.drain import Drain
from suffuse.balancing.fleet import fleet_of_state
from suffuse.balancing.model_store import ModelStore
from suffuse.balancing.rollout import RolledBackError, Rollout, RolloutSettings
from suffuse.balancing.stack import Stack
from suffuse.errors import SuffuseError
from suffuse.serving.management import Management
from suffuse.serving.process import loading_or_ready_workers

MODEL = "slow"
SERVICE_MS = 10.0
TOO_SLOW_MS = 100.0
"""Of a version that a rollout has to take back: its canary is ten times as slow as the old one."""

LIMIT_S = 90.0
_POLL_S = 0.1
_HANG_SLACK_S = 5.0
_LIBC = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438  # a system call of Linux, the same on every architecture


@dataclass(frozen=True)
class Site:
    """A running stack of one model with one worker an instance, and what events need beside it.

    Args:
        stack: as it runs.
        folder: for archives of new versions and the autoscaler's log.
        small_disk: whether the state folder, which has the logs, is a file system of its own that may be filled.
    """

    stack: Stack
    folder: Path
    small_disk: bool

    def java(self, instance: str) -> int:
        """Process id of an instance's TorchServe; 0 while there is none."""
        with suppress(OSError, ValueError):
            return int(json.loads((self.stack.state / instance / "server.json").read_text("utf-8"))["java"])
        return 0

    def workers(self) -> set[int]:
        """Process ids of all workers."""
        return {pid for name in self.stack.instances for pid in loading_or_ready_workers(self.java(name))}

    def scale_up(self, workers: int) -> None:
        """Have so many workers in each instance, and return when they are ready."""
        for record in self.stack.record.instances:
            with Management(record.management_url) as management:
                management.scale(MODEL, workers)
        self.await_whole(workers)

    def scale_down(self, workers: int) -> None:
        """The same, for fewer: in one instance after the other, and while it has no request.

        TorchServe may answer a request of a worker that it ends, and give it to another worker too. Over gRPC, the
        second answer ends that other worker for good, which TorchServe still calls READY.
        """
        record = self.stack.record
        for instance in record.instances:
            drain = Drain(AdminSocket(record.admin_socket), record.models, instance.name)
            drain.begin()
            drain.await_idle(instance.management_url, LIMIT_S)
            with Management(instance.management_url) as management:
                management.scale(MODEL, workers)
            await_true(lambda url=instance.management_url: self._has(url, workers), f"{workers} workers")  # type: ignore[misc]
            drain.end()
            drain.await_up(LIMIT_S)
        self.await_whole(workers)

    def await_whole(self, workers: int = 1, without: int = 0) -> None:
        """Return when each instance has just so many workers, all ready, and the balancer sends it requests.

        Args:
            workers: of each instance.
            without: the process id of one that was killed, and that TorchServe may not have missed yet.
        """

        def is_whole() -> bool:
            urls = [record.management_url for record in self.stack.record.instances]
            return self._all_up() and all(self._has(url, workers, without) for url in urls)

        await_true(is_whole, f"instances that are up with {workers} ready workers each")

    @staticmethod
    def _has(management_url: str, workers: int, without: int = 0) -> bool:
        """Whether an instance has just so many workers, which are ready and run."""
        with suppress(SuffuseError), Management(management_url) as management:
            state = management.describe(MODEL)
            running = {worker.pid for worker in state.workers if worker.ready and psutil.pid_exists(worker.pid)}
            return len(state.workers) == len(running - {without}) == workers
        return False

    def _all_up(self) -> bool:
        with suppress(SuffuseError):
            rows = AdminSocket(self.stack.record.admin_socket).stats()
            servers = [row for row in rows if row["pxname"] in (f"rest_{MODEL}", f"grpc_{MODEL}")]
            up = [row for row in servers if row["svname"] != "BACKEND" and row["status"].startswith("UP")]
            return len(up) == 2 * len(self.stack.instances)
        return False


@dataclass(frozen=True)
class Event:
    """One of them.

    Args:
        word: names it on the command line.
        name: in words.
        happen: does it, and returns when the stack is whole again.
        loses_none: whether no request may fail.
        text_bytes: of each request.
        needs_small_disk: see Site.
    """

    word: str
    name: str
    happen: Callable[[Site], None]
    loses_none: bool = True
    text_bytes: int = 200
    needs_small_disk: bool = False


def await_true(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition holds.

    Raises:
        RuntimeError: it does not within `LIMIT_S` seconds.
    """
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not after {LIMIT_S:g} s")
        time.sleep(_POLL_S)


def nothing(_site: Site) -> None:
    """Ten seconds."""
    time.sleep(10)


def kill_workers(site: Site) -> None:
    """Of one instance after the other."""
    for name in site.stack.instances:
        (worker,) = loading_or_ready_workers(site.java(name))
        os.kill(worker, signal.SIGKILL)
        site.await_whole(without=worker)


def hang_worker(site: Site) -> None:
    """Of the first instance, for longer than HAProxy waits for an answer: what it has not answered goes elsewhere."""
    (worker,) = loading_or_ready_workers(site.java(site.stack.instances[0]))
    os.kill(worker, signal.SIGSTOP)
    time.sleep(site.stack.config.limits.answer_s + _HANG_SLACK_S)
    os.kill(worker, signal.SIGCONT)
    site.await_whole()


def lose_worker(site: Site) -> None:
    """Of the first instance: TorchServe calls it READY, it has no process, and no request to it is answered.

    It is killed while its connection to TorchServe stays open, so that its end is not noticed. In service, a request
    over gRPC that is answered twice leaves a worker so, which is rare, and a matter of chance.
    """
    name = site.stack.instances[0]
    java = site.java(name)
    (worker,) = loading_or_ready_workers(java)
    with _kept_open(worker):
        os.kill(worker, signal.SIGKILL)
        await_true(lambda: site.java(name) not in (0, java), f"instance {name} with a new process")
    site.await_whole()


def kill_instance(site: Site) -> None:
    """The first one's Java; the stack starts it again."""
    name = site.stack.instances[0]
    java = site.java(name)
    os.kill(java, signal.SIGKILL)
    await_true(lambda: site.java(name) not in (0, java), f"instance {name} with a new process")
    site.await_whole()


def scale_up_and_down(site: Site) -> None:
    """1 -> 4 -> 1 in each instance, drained before it loses some."""
    site.scale_up(4)
    site.scale_down(1)


def roll_out(site: Site) -> None:
    """A version that answers the same takes over."""
    _rollout(site, "2.0", SERVICE_MS)
    site.await_whole()


def roll_back(site: Site) -> None:
    """A version that is too slow does not."""
    try:
        figures = _rollout(site, "2.1", TOO_SLOW_MS)
    except RolledBackError:
        site.await_whole()
    else:
        raise RuntimeError(f"a version that is ten times as slow took over: {figures}")


def roll_out_scaled(site: Site) -> None:
    """While an autoscaler adds workers, and again while another one takes them away."""
    log = site.folder / "autoscale.jsonl"
    stack = ("--stack", str(site.stack.state))
    for version, bounds in (("3.0", (4, 6)), ("3.1", (2, 2))):
        with AutoscalerProcess((), (), bounds, 500.0, log, options=stack):
            _rollout(site, version, SERVICE_MS)
            site.await_whole(bounds[0] // len(site.stack.instances))


def restart_all(site: Site) -> None:
    """Each instance in turn."""
    for name in site.stack.instances:
        site.stack.restart_instance(name)
    site.await_whole()


def reload_balancer(site: Site) -> None:
    """Four times."""
    for _ in range(4):
        site.stack.reload()
        time.sleep(1)
    site.await_whole()


def kill_autoscaler(site: Site) -> None:
    """While the workers that it wants start, and again; what takes its place finishes the work, and takes them away."""
    log = site.folder / "autoscale.jsonl"
    stack = ("--stack", str(site.stack.state))
    with AutoscalerProcess((), (), (4, 6), 500.0, log, options=stack) as autoscaler:
        for workers in (3, 4):
            await_true(lambda wanted=workers: len(site.workers()) >= wanted, f"{workers} workers that were started")  # type: ignore[misc]
            killed = autoscaler.pid
            os.kill(killed, signal.SIGKILL)
            await_true(lambda before=killed: autoscaler.pid != before, "another autoscaler")  # type: ignore[misc]
        written = _size(log)
        await_true(lambda: _size(log) > written, "a decision of the last autoscaler")
    with AutoscalerProcess((), (), (2, 2), 500.0, log, options=stack):
        site.await_whole()


def fill_disk(site: Site) -> None:
    """The one that has the logs, when there is something to log: a worker of each instance is killed meanwhile."""
    with full_disk(site.stack.state):
        kill_workers(site)


def kill_balancer(site: Site) -> None:
    """HAProxy's master and worker; the stack starts them again."""
    master = site.stack.record.haproxy_pid
    for process in (psutil.Process(master), *psutil.Process(master).children()):
        process.kill()
    await_true(lambda: site.stack.record.haproxy_pid != master, "another HAProxy")
    site.await_whole()


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """The folder's file system has not a byte left inside."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        if free := shutil.disk_usage(folder).free:
            raise RuntimeError(f"{folder} still has {free} bytes ({errno.errorcode[errno.ENOSPC]} was expected)")
        yield
    finally:
        filler.unlink(missing_ok=True)


@contextmanager
def _kept_open(pid: int) -> Iterator[None]:
    """A process' connections stay open inside, even when it has ended."""
    process = os.pidfd_open(pid)
    connections = [int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir() if "socket" in str(file.readlink())]
    copies = [_LIBC.syscall(_PIDFD_GETFD, process, connection, 0) for connection in connections]
    try:
        if not copies or min(copies) < 0:
            raise RuntimeError(f"connections of process {pid} cannot be kept open: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        for descriptor in (process, *copies):
            with suppress(OSError):
                os.close(descriptor)


def _size(file: Path) -> int:
    """In bytes; 0 where there is none, as when an autoscaler was killed before it wrote of its first decision."""
    return file.stat().st_size if file.exists() else 0


def _rollout(site: Site, version: str, service_ms: float) -> dict[str, Any]:
    archive = slow_archive(site.folder / version, MODEL, service_ms=service_ms, version=version, batch_size=4)
    with ExitStack() as resources:
        fleet = fleet_of_state(site.stack.state, MODEL, resources)
        # Latency is judged from 30 answers over REST on: at 30 requests a second the canary has had 60 by then.
        settings = RolloutSettings(canary_share=0.5, canary_s=8)
        return Rollout(fleet, ModelStore(fleet.model_store, MODEL), settings).run(archive)


EVENTS = (
    Event("nothing", "nothing", nothing),
    Event("worker", "kill -9 of a worker of each instance", kill_workers),
    Event("hang", "a worker that hangs for 30 s", hang_worker),
    Event("loss", "a worker lost that TorchServe calls READY", lose_worker),
    Event("instance", "kill -9 of an instance, and its return", kill_instance),
    Event("scaling", "workers 1 to 4 and, drained, to 1 in each instance", scale_up_and_down),
    Event("rollout", "rollout of a new version", roll_out),
    Event("rollback", "rollout of a version that is too slow, and its rollback", roll_back),
    Event("scaled-rollout", "rollout while an autoscaler adds workers, and while it takes some away", roll_out_scaled),
    Event("restart", "drain and restart of each instance in turn", restart_all),
    Event("reload", "four reloads of the balancer", reload_balancer),
    Event("autoscaler", "two kill -9 of the autoscaler while it scales 2 to 4", kill_autoscaler),
    Event("disk", "a full disk for logs, kill -9 of a worker of each instance", fill_disk, needs_small_disk=True),
    Event("small", "bodies of 1 KB, kill -9 of a worker of each instance", kill_workers, text_bytes=1_000),
    Event("large", "bodies of 100 KB, kill -9 of an instance", kill_instance, text_bytes=100_000),
    Event("balancer", "kill -9 of the balancer itself", kill_balancer, loses_none=False),
)
