"""A server must come up whole or say why, answer over both ways alike, and leave no process behind, however it ends."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from suffuse.errors import (
    AnswerError,
    AuthorizationError,
    ClientError,
    OverloadError,
    ServerError,
    UnknownModelError,
)
from suffuse.serving.client import Client
from suffuse.serving.management import Management
from suffuse.serving.process import loading_or_ready_workers, marked_processes, torchserve_environment
from suffuse.serving.server import Server, ServerConfig, run_until_signal

HANDLER = """
import json, os, time

class Noop:
    def initialize(self, context):
        pass

    def handle(self, requests, context):
        bodies = [request.get("data") or request.get("body") for request in requests]
        return [self.answer(body, index, context) for index, body in enumerate(bodies)]

    def answer(self, body, index, context):
        row = json.loads(bytes(body)) if isinstance(body, (bytes, bytearray)) else body
        context.set_response_content_type(index, "application/json")
        if row == {}:
            context.set_response_status(422, "Unprocessable Entity", index)
            return '{"error": {"code": "missing_field", "message": "no text", "status": 422}}'
        if row == {"do": "raise"}:
            raise ValueError("as told")
        if row == {"do": "threads"}:
            row = os.environ["SUFFUSE_THREADS"]
        if row == {"do": "wait"}:
            while not os.path.exists("RELEASE"):
                time.sleep(0.01)
        return json.dumps({"echo": row})
"""
FAILING = """
class Failing:
    def initialize(self, context):
        raise ValueError("no bundle here")

    def handle(self, requests, context):
        return requests
"""
SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]


def write_archive(store: Path, name: str, handler: str) -> None:
    """A .mar by hand."""
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py", "configFile": "model-config.yaml"}
    config = "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 1\njobQueueSize: 1\n"
    with zipfile.ZipFile(store / f"{name}.mar", "w") as members:
        members.writestr("handler.py", handler)
        members.writestr("model-config.yaml", config)
        members.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, as TorchServe's sockets need it."""
    with tempfile.TemporaryDirectory(prefix="s") as name:
        yield Path(name).resolve()


@pytest.fixture(scope="module")
def config(folder: Path, on_free_ports: Callable[[ServerConfig], ServerConfig]) -> ServerConfig:
    """A model store with one no-op model, on free ports."""
    (folder / "store").mkdir()
    write_archive(folder / "store", "noop", HANDLER.replace("RELEASE", str(folder / "release")))
    return on_free_ports(ServerConfig(folder / "store", threads=3, ready_timeout_s=60.0))


@pytest.fixture
def state(folder: Path) -> Iterator[Path]:
    """A state folder of the test's own."""
    path = Path(tempfile.mkdtemp(dir=folder))
    yield path
    for process in marked_processes(path):
        process.kill()
    shutil.rmtree(path, ignore_errors=True)


# Without Java: a stand-in takes its place


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


# With the real TorchServe


@pytest.fixture(scope="module")
def server(config: ServerConfig, folder: Path) -> Iterator[Server]:
    """A server that is ready."""
    with Server(replace(config, state=folder / "state")) as running:
        yield running


@pytest.fixture(params=["url", "grpc_url"], ids=["rest", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(getattr(server, request.param), key_file=server.key_file, timeout_s=20.0, retries=0) as connected:
        yield connected


def test_row_is_answered(client: Client) -> None:
    assert client.predict("noop", {"text": "ü"}) == {"echo": {"text": "ü"}}


def test_server_is_ready(client: Client) -> None:
    assert client.ready()


def test_version_is_answered(client: Client) -> None:
    assert client.predict("noop", {"text": "x"}, version="1.0") == {"echo": {"text": "x"}}


def test_threads_reach_the_workers(client: Client) -> None:
    assert client.predict("noop", {"do": "threads"}) == {"echo": "3"}


@pytest.mark.parametrize(("model", "version"), [("nope", None), ("noop", "9.0")])
def test_unknown_model_or_version_is_told(client: Client, model: str, version: str | None) -> None:
    with pytest.raises(UnknownModelError):
        client.predict(model, {"text": "x"}, version=version)


def test_error_of_a_handler_has_its_code_and_status(client: Client) -> None:
    with pytest.raises(AnswerError, match=r"^no text$") as caught:
        client.predict("noop", {})
    assert (caught.value.code, caught.value.status) == ("missing_field", 422)


def test_exception_of_a_handler_is_told(client: Client) -> None:
    with pytest.raises(AnswerError, match="Prediction failed") as caught:
        client.predict("noop", {"do": "raise"})
    assert (caught.value.code, caught.value.status) == ("InternalServerException", 503)


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
@pytest.mark.parametrize("token", [None, "wrong"])
def test_key_is_asked_for(server: Server, kind: str, token: str | None) -> None:
    with Client(getattr(server, kind), token=token) as client, pytest.raises(AuthorizationError):
        client.predict("noop", {"text": "x"})


def test_full_queue_is_an_overload(client: Client, folder: Path) -> None:
    refusals: list[ClientError] = []
    refused = threading.Event()

    def ask() -> None:
        try:
            client.predict("noop", {"do": "wait"})
        except ClientError as error:
            refusals.append(error)
            refused.set()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert refused.wait(10.0)
    (folder / "release").touch()
    for thread in threads:
        thread.join()
    (folder / "release").unlink()

    assert {type(refusal) for refusal in refusals} == {OverloadError}


def test_request_beyond_the_servers_limit_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffuse.serving.transports.MAX_REQUEST_BYTES", 10_000_000)

    with pytest.raises(AnswerError, match="larger than its max_request_size") as caught:
        client.predict("noop", {"text": "x" * 7_000_000})
    assert (caught.value.code, caught.value.status) == ("request_too_large", 413)


def test_management_tells_how_the_model_stands(server: Server) -> None:
    with Management(server.management_url, key_file=server.key_file) as management:
        state = management.describe("noop")

    assert (state.name, state.version, state.ready_workers, state.pending) == ("noop", "1.0", 1, 0)


def test_lost_worker_is_replaced_in_the_running_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Management(server.management_url, key_file=server.key_file) as management:
        lost = management.describe("noop").workers[0].pid
        monkeypatch.setattr(
            "suffuse.serving.server.loading_or_ready_workers", lambda java: loading_or_ready_workers(java) - {lost}
        )

        threading.Thread(target=server.wait, daemon=True).start()

        deadline = time.monotonic() + 60.0
        while [w.ready for w in management.describe("noop").workers if w.pid != lost] != [True]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_second_server_on_the_same_ports_is_refused(server: Server, state: Path) -> None:
    port = server.config.inference_port
    expected = (
        rf"^port {port} \(inference\) on 127.0.0.1: Address already in use \(process \d+, java, "
        rf"of the `suffuse serve` with state folder {server.state}\); stop what listens there, or choose another port$"
    )

    with pytest.raises(ServerError, match=expected):
        Server(replace(server.config, state=state)).start()


def test_key_file_is_the_owners_alone(server: Server) -> None:
    assert server.key_file.stat().st_mode & 0o777 == 0o600
    assert server.state.stat().st_mode & 0o777 == 0o700


def test_model_that_does_not_load_is_an_error_with_its_last_words(
    server: Server, on_free_ports: Callable[[ServerConfig], ServerConfig], folder: Path, state: Path
) -> None:
    store = folder / "failing"
    store.mkdir()
    write_archive(store, "failing", FAILING)
    config = replace(on_free_ports(server.config), model_store=store, state=state)

    with pytest.raises(ServerError, match=r"^a worker ended while it loaded its model: ValueError: no bundle here "):
        Server(config).start()
    assert marked_processes(state) == []


def test_killed_server_leaves_nothing_and_the_next_one_starts_and_stops_in_its_folder(
    config: ServerConfig, on_free_ports: Callable[[ServerConfig], ServerConfig], state: Path
) -> None:
    config = replace(on_free_ports(config), state=state)
    first = serve(config)
    pids = marked_processes(state)

    first.kill()
    first.communicate()

    gone, alive = psutil.wait_procs(pids, timeout=20.0)
    assert (len(gone) >= 2, alive) == (True, [])

    second = serve(config)
    second.terminate()

    second.communicate(timeout=30.0)
    assert (second.returncode, marked_processes(state), (state / "key_file.json").exists()) == (0, [], False)


def serve(config: ServerConfig) -> subprocess.Popen[str]:
    """`suffuse serve` in a process of its own, ready."""
    program = (
        "from pathlib import Path, PosixPath\nfrom suffuse.serving.run import serve\n"
        f"from suffuse.serving.settings import ServerConfig\nserve({config!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    announced = [process.stdout.readline() for _ in range(10)]
    assert announced[0] == "ready; Ctrl-C stops it\n"
    return process
