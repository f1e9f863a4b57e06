"""A server must come up whole or say why, answer over both ways alike, and leave no process behind, however it ends."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.serving.archives import write_archive

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
from suffuse.serving.process import loading_or_ready_workers, marked_processes
from suffuse.serving.server import Server, ServerConfig

FAILING = """
class Failing:
    def initialize(self, context):
        raise ValueError("no bundle here")

    def handle(self, requests, context):
        return requests
"""


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
