"""A server that does not come up says why and leaves no process behind; a stand-in takes Java's place."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from suffuse.errors import (
    ServerError,
)
from suffuse.serving.process import marked_processes, torchserve_environment
from suffuse.serving.server import Server, ServerConfig, run_until_signal

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    return lambda command: monkeypatch.setattr("suffuse.serving.server.torchserve_command", lambda *_: command)


def test_state_folder_whose_path_is_too_long_for_sockets_is_refused(config: ServerConfig) -> None:
    state = Path("/") / ("x" * 95)
    expected = (
        f"state folder {state}: its path is 8 bytes too long for the sockets that TorchServe puts there; choose a "
        "shorter one"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        Server(replace(config, state=state)).start()


def test_java_that_ends_is_an_error_with_its_last_words(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    stand_in([sys.executable, "-c", "print('first', flush=True); raise SystemExit('no memory')"])
    expected = f"TorchServe ended with exit status 1: no memory (log: {state}/java.log)\nfirst\nno memory"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        Server(replace(config, state=state)).start()


def test_java_that_was_killed_is_an_error_without_words_that_say_nothing(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    stand_in([sys.executable, "-c", "import os; print('loading', flush=True); os.kill(os.getpid(), 9)"])

    with pytest.raises(ServerError, match=f"^{re.escape(f'TorchServe ended by SIGKILL (logs: {state})')}$"):
        Server(replace(config, state=state)).start()


def test_what_runs_beside_a_server_ends_before_it(
    config: ServerConfig, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Server, "start", lambda self: setattr(self, "ready", True))
    monkeypatch.setattr(Server, "stop", lambda _: seen.append("stopped"))

    @contextlib.contextmanager
    def beside(server: Server) -> Iterator[None]:
        yield
        seen.append(f"beside ended, ready: {server.ready}")

    run_until_signal(replace(config, state=state), on_ready=Server.request_stop, beside=beside)

    assert seen == ["beside ended, ready: True", "stopped"]


def test_server_that_is_not_ready_in_time_is_ended(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    stand_in(SLEEP)
    expected = (
        f"not ready within 0.1 s: TorchServe's management port does not answer yet: nothing was written (log: "
        f"{state}/java.log)"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        Server(replace(config, state=state, ready_timeout_s=0.1)).start()
    assert marked_processes(state) == []


def test_stop_during_the_start_ends_it_without_an_error(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    stand_in(SLEEP)
    server = Server(replace(config, state=state))
    threading.Timer(0.2, server.request_stop).start()

    with server:
        assert not server.ready
    assert marked_processes(state) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_start_ends_it_and_handlers_are_put_back(
    number: signal.Signals, config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    stand_in(SLEEP)
    before = signal.getsignal(number)
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

    run_until_signal(replace(config, state=state), on_ready=lambda _: pytest.fail("not ready"))

    assert (marked_processes(state), signal.getsignal(number)) == ([], before)


def test_what_an_earlier_server_left_behind_is_named_and_ended(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None], caplog: pytest.LogCaptureFixture
) -> None:
    (state / "lock").touch()
    leftover = subprocess.Popen(SLEEP, env=torchserve_environment(state, 1))
    while not marked_processes(state):  # its environment can be read a moment after Popen returns
        assert leftover.poll() is None
    name = psutil.Process(leftover.pid).name()
    stand_in([sys.executable, "-c", ""])

    with caplog.at_level(logging.WARNING), pytest.raises(ServerError):
        Server(replace(config, state=state)).start()

    assert caplog.messages == [f"left behind by an earlier `suffuse serve`, ended now: {leftover.pid} ({name})"]
    assert leftover.poll() is not None


def test_logs_stay_and_keys_go_when_a_server_stops(
    config: ServerConfig, state: Path, stand_in: Callable[[list[str]], None]
) -> None:
    program = "import pathlib; [pathlib.Path(n).write_text('x') for n in ('key_file.json', 'server.log', 'tmp/x')]"
    stand_in([sys.executable, "-c", program])

    with pytest.raises(ServerError):
        Server(replace(config, state=state)).start()

    assert sorted(path.name for path in state.iterdir()) == ["config.properties", "java.log", "lock", "server.log"]


def test_cores_are_shared_out_among_the_workers(
    config: ServerConfig, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suffuse.serving.server.available_cores", lambda: 6)
    program = "import os; print('threads', os.environ['SUFFUSE_THREADS'])"
    monkeypatch.setattr("suffuse.serving.server.torchserve_command", lambda *_: [sys.executable, "-c", program])

    with pytest.raises(ServerError, match="threads 2"):
        Server(replace(config, state=state / "s", workers=3, threads=None)).start()
