"""Who starts a stack must learn where it is and how to ask it, and the token must not be shown."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from suffuse.balancing.run import announcement, serve_stack
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.errors import ServerError
from suffuse.serving.settings import Archive, ServerConfig


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackConfig:
    """A stack that is never started, of one model."""
    for module in ("stack", "instances"):
        monkeypatch.setattr(
            f"suffuse.balancing.{module}.find_archives", lambda _: (Archive("a.mar", "sentiment", "1.0", 1),)
        )
    return StackConfig(ServerConfig(Path("store")), port=18080, state=tmp_path / "s")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what a stack does, which is nothing: it is ready until a stop is requested."""
    events: list[str] = []
    monkeypatch.setattr(Stack, "start", lambda self: setattr(self, "ready", True))
    monkeypatch.setattr(Stack, "stop", lambda _: events.append("stopped"))
    return events


def test_addresses_models_and_token_file_are_told(config: StackConfig) -> None:
    assert announcement(Stack(config)).splitlines()[:8] == [
        "ready; Ctrl-C stops it",
        "  REST        http://127.0.0.1:18080",
        "  gRPC        grpc://127.0.0.1:18080",
        "  metrics     http://127.0.0.1:8082/metrics",
        "  models      sentiment 1.0",
        "  instances   i1 http://127.0.0.1:18180, i2 http://127.0.0.1:18190",
        f"  token       {config.state}/token",
        f"  state       {config.state}",
    ]


def test_example_is_a_request_with_the_token_of_the_file(config: StackConfig) -> None:
    stack = Stack(config)
    stack.state.mkdir()
    stack.token_file.write_text("secret\n", "ascii")
    program = 'curl() { printf "%s\\n" "$@"; }\n' + announcement(stack).splitlines()[-1]

    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)

    assert "secret" not in announcement(stack)
    assert done.stdout.splitlines() == [
        "http://127.0.0.1:18080/predictions/sentiment",
        "-H",
        "Authorization: Bearer secret",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"text": "a warm, funny film"}',
    ]


def test_example_of_a_secure_stack_names_its_certificate(config: StackConfig, tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    secure = StackConfig(config.server, certificate=tmp_path / "c.pem", token=False)

    lines = announcement(Stack(secure)).splitlines()

    assert "  token       none; anybody who reaches the port may use it" in lines
    assert f"https://127.0.0.1:8080/predictions/sentiment --cacert {tmp_path}/c.pem -H 'Content-Type" in lines[-1]


def test_what_runs_beside_ends_before_the_stack(config: StackConfig, started: list[str]) -> None:
    @contextmanager
    def beside(stack: Stack) -> Iterator[None]:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        yield
        started.append(f"beside ended, ready: {stack.ready}")

    serve_stack(config, beside)

    assert started == ["beside ended, ready: True", "stopped"]


@pytest.mark.parametrize(
    ("failure", "said"), [(None, "the balancer has read its files anew"), ("bad", "not reloaded: bad")]
)
def test_hangup_reloads_the_balancer(
    config: StackConfig,
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: str | None,
    said: str,
) -> None:
    def reload(stack: Stack) -> None:
        threading.Timer(0.1, stack.request_stop).start()
        if failure:
            raise ServerError(failure)

    monkeypatch.setattr(Stack, "reload", reload)
    before = signal.getsignal(signal.SIGHUP)
    caplog.set_level("INFO")

    def beside(stack: Stack) -> threading.Lock:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()
        return threading.Lock()  # a context manager that does nothing of note

    serve_stack(config, beside)

    assert said in caplog.messages
    assert signal.getsignal(signal.SIGHUP) == before
