"""The whole stack with real servers: TLS, the token, and no request lost, whichever part is ended or changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.balancing.fake_instances import make_certificate, until

from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.record import StackRecord
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.errors import AuthorizationError, SuffuseError
from suffuse.serving.client import Client
from suffuse.serving.settings import ServerConfig

pytestmark = pytest.mark.balancing

HANDLER = """
import json

class Echo:
    def initialize(self, context):
        pass

    def handle(self, requests, context):
        for index in range(len(requests)):
            context.set_response_content_type(index, "application/json")
        bodies = [request.get("data") or request.get("body") for request in requests]
        return [json.dumps({"echo": body if isinstance(body, dict) else json.loads(bytes(body))}) for body in bodies]
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A model store with one model that echoes, and a certificate; its path is short, as sockets need it."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("haproxy is not installed")
    with tempfile.TemporaryDirectory(prefix="b") as name:
        path = Path(name).resolve()
        make_certificate(path)
        model = {"modelName": "echo", "modelVersion": "1.0", "handler": "h.py", "configFile": "model-config.yaml"}
        with zipfile.ZipFile(path / "echo.mar", "w") as members:
            members.writestr("h.py", HANDLER)
            members.writestr("model-config.yaml", "minWorkers: 1\nmaxWorkers: 4\nbatchSize: 1\n")
            members.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
        yield path


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    """Two instances with one worker each, behind TLS."""
    config = StackConfig(
        ServerConfig(folder, threads=1),
        port=22040,
        metrics_port=22041,
        certificate=folder / "site.pem",
        state=folder / "s",
    )
    with Stack(config) as running:
        yield running


def client(record: StackRecord, url: str, token: str | None = None) -> Client:
    assert record.token_file is not None
    given = token or record.token_file.read_text("ascii").strip()
    return Client(
        url.replace("127.0.0.1", "localhost"), token=given, ca_file=record.certificate, retries=0, timeout_s=30
    )


class Load:
    """Clients that ask without pause and try nothing twice."""

    def __init__(self) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._ended = threading.Event()

    def ask(self, record: StackRecord, url: str) -> None:
        with client(record, url) as asking:
            while not self._ended.wait(0.02):
                try:
                    assert asking.predict("echo", {"text": "x"}) == {"echo": {"text": "x"}}
                    self.answered += 1
                except SuffuseError as error:
                    self.failures.append(str(error))

    def end(self) -> None:
        self._ended.set()


@contextmanager
def load(record: StackRecord) -> Iterator[Load]:
    """Two clients over REST and two over gRPC, inside."""
    running = Load()
    threads = [threading.Thread(target=running.ask, args=(record, url)) for url in (record.url, record.grpc_url) * 2]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.end()
        for thread in threads:
            thread.join()


def java(stack: Stack, instance: str) -> int:
    return int(json.loads((stack.state / instance / "server.json").read_text("utf-8"))["java"])


def status(stack: Stack, instance: str) -> str:
    """What HAProxy thinks of it."""
    rows = AdminSocket(stack.record.admin_socket).stats()
    return next(row["status"] for row in rows if (row["pxname"], row["svname"]) == ("grpc_echo", instance))


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
def test_rows_are_answered_to_those_with_the_token(stack: Stack, kind: str) -> None:
    url = getattr(stack, kind)

    with client(stack.record, url) as asking:
        assert asking.ready()
        assert asking.predict("echo", {"text": "ü"}) == {"echo": {"text": "ü"}}
        assert asking.predict("echo", {"text": "x"}, version="1.0") == {"echo": {"text": "x"}}
    with client(stack.record, url, token="x" * 32) as stranger, pytest.raises(AuthorizationError):
        stranger.predict("echo", {"text": "x"})


def test_no_request_is_lost_when_a_server_is_killed_drained_or_the_balancer_reloaded(stack: Stack) -> None:
    first = java(stack, "i1")
    workers = psutil.Process(first).children()

    with load(stack.record) as running:
        os.kill(first, signal.SIGKILL)
        until(lambda: status(stack, "i1").startswith("DOWN"), 20.0)
        until(lambda: status(stack, "i1").startswith("UP"), 120.0)
        second = java(stack, "i2")
        stack.restart_instance("i2")
        stack.reload()

    assert (running.failures, running.answered > 100) == ([], True)
    assert [worker for worker in workers if worker.is_running()] == []
    assert java(stack, "i2") != second


def test_killed_command_leaves_nothing_behind(folder: Path) -> None:
    options = ["--instances", "1", "--port", "22070", "--metrics-port", "22071", "--state", str(folder / "t")]
    scaling = ["--autoscale", "1:2", "--slo-p99", "1000"]
    command = [sys.executable, "-m", "suffuse.cli", "serve", "echo", "--model-store", str(folder), *options, *scaling]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)

    process.kill()
    process.communicate()

    gone, alive = psutil.wait_procs(children, timeout=30.0)
    # Java and its worker, the two of HAProxy, the autoscaler.
    assert (said, len(gone) >= 5, alive) == ("ready; Ctrl-C stops it\n", True, [])
