"""On a real stack under load, a rollout costs no request: neither one that works out, nor one that does not."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import suffuse
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.serving.management import Management
from suffuse.serving.settings import ServerConfig

pytestmark = [
    pytest.mark.balancing,
    pytest.mark.skipif(
        shutil.which("haproxy", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") is None,
        reason="HAProxy is not installed: apt install haproxy",
    ),
]
HANDLER = """
import json

class Fixed:
    def initialize(self, context):
        LOAD

    def handle(self, requests, context):
        for index in range(len(requests)):
            context.set_response_content_type(index, "application/json")
        return ['{"label": "LABEL", "score": 0.9}' for _ in requests]
"""


def write_archive(path: Path, version: str, *, label: str = "good", load: str = "pass") -> Path:
    """A .mar by hand, whose handler answers each request with one label."""
    path.parent.mkdir(exist_ok=True)
    model = {"modelName": "m", "modelVersion": version, "handler": "handler.py", "configFile": "model-config.yaml"}
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("handler.py", HANDLER.replace("LABEL", label).replace("LOAD", load))
        members.writestr("model-config.yaml", "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 4\nmaxBatchDelay: 1\n")
        members.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
    return path


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="r") as name:
        yield Path(name).resolve()


@pytest.fixture(scope="module")
def stack(folder: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Stack]:
    """Two instances that serve version 1.0 of a model that costs nothing."""
    write_archive(folder / "store" / "m.mar", "1.0")
    (folder / "rows.jsonl").write_text('{"text": "a warm, funny film"}\n' * 5, "utf-8")
    port, metrics_port = free_ports(2)
    server = ServerConfig(folder / "store", ("m",), workers=1, threads=1)
    config = StackConfig(
        server, port=port, metrics_port=metrics_port, first_instance_port=_ports_of_instances(), state=folder / "state"
    )
    with Stack(config) as running:
        yield running


def _ports_of_instances() -> int:
    """A port from which on two instances find five ports each, ten apart, at which nobody listens."""
    for first in range(24_000, 32_000, 20):
        with contextlib.suppress(OSError), ExitStack() as stack:
            for port in (*range(first, first + 5), *range(first + 10, first + 15)):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")


@contextmanager
def load(stack: Stack) -> Iterator[Counter[str]]:
    """Clients over REST and gRPC that never try twice; counts labels, and the errors that clients saw."""
    seen: Counter[str] = Counter()
    over = threading.Event()
    token = stack.token_file.read_text("utf-8").strip()

    def ask(url: str) -> None:
        with suffuse.Client(url, token=token, retries=0) as client:
            while not over.wait(0.02):
                try:
                    seen[client.predict("m", {"text": "a warm, funny film"})["label"]] += 1
                except Exception as error:
                    seen[f"{type(error).__name__}: {error}"] += 1

    threads = [threading.Thread(target=ask, args=(url,)) for url in (stack.url, stack.grpc_url) * 2]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def rollout(stack: Stack, folder: Path, archive: Path, *, canary_s: float = 4.0) -> subprocess.Popen[str]:
    command = ["rollout", "m", str(archive), "--stack", str(stack.state), "--rows", str(folder / "rows.jsonl")]
    options = ["--canary-seconds", str(canary_s), "--max-latency", "50"]  # on a busy machine few requests tell little
    return subprocess.Popen(
        [sys.executable, "-m", "suffuse.cli", *command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def versions(stack: Stack) -> list[list[str]]:
    """Default version, then all, of each instance."""
    found = []
    for instance in stack.record.instances:
        with Management(instance.management_url) as management:
            every = sorted(state.version for state in management.versions("m"))
            found.append([management.describe("m").version, *every])
    return found


def test_version_that_answers_otherwise_is_rolled_back(stack: Stack, folder: Path) -> None:
    with load(stack) as seen:
        process = rollout(stack, folder, write_archive(folder / "other.mar", "1.1", label="bad"))
        out, error = process.communicate()

    assert process.returncode == 1
    assert out == ""
    assert error.endswith(
        "suffuse: version 1.1 of model 'm' was rolled back, version 1.0 is served: compared on 5 rows: 5 of 5 (100.0%) "
        "rows are answered otherwise, limit 10.0%\n"
    )
    assert versions(stack) == [["1.0", "1.0"]] * 2
    assert set(seen) == {"good"}


def test_version_that_cannot_load_is_rolled_back_with_its_reason(stack: Stack, folder: Path) -> None:
    archive = write_archive(folder / "never.mar", "1.2", load='raise ValueError("no weights here")')
    with load(stack) as seen:
        process = rollout(stack, folder, archive)
        _, error = process.communicate()

    assert process.returncode == 1
    log = stack.state / "i1" / "workers.log"
    assert error.endswith(
        "suffuse: version 1.2 of model 'm' was rolled back, version 1.0 is served: version 1.2 of model 'm' on i1: a "
        f"worker ended while it loaded the model: ValueError: no weights here (log: {log})\n"
    )
    assert versions(stack) == [["1.0", "1.0"]] * 2
    assert set(seen) == {"good"}


def test_killed_rollout_is_put_right_by_the_next_which_serves_the_new_version_for_good(
    stack: Stack, folder: Path
) -> None:
    archive = write_archive(folder / "new.mar", "2.0", label="good")
    with load(stack) as seen:
        killed = rollout(stack, folder, archive, canary_s=60.0)
        assert killed.stderr is not None
        assert any("canary" in line for line in killed.stderr)  # reads until there is such a line
        killed.kill()
        killed.communicate()
        process = rollout(stack, folder, archive)
        out, error = process.communicate()
        assert process.returncode == 0, error
        stack.restart_instance("i1")

    assert error.startswith("undoing an earlier rollout from version 1.0 to 2.0\n")
    summary = json.loads(out)
    assert summary["side_by_side"]["different"] == 0
    assert summary["canary"]["failed"] == 0
    assert versions(stack) == [["2.0", "2.0"]] * 2
    assert set(seen) == {"good"}
