"""What goes into the image must fit together: the stand-in for torch, and the programs that probes run."""

import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from docker import drain, ready
from docker.render import configurations
from tests.docker.engine import free_port

from suffuse.errors import ConnectError
from suffuse.serving.management import Management

STAND_IN = Path("docker/torch")


def management(models: dict[str, Sequence[str]], pending: int = 0) -> Management:
    """Of a server with these models, whose workers are in these states."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": name} for name in models]})
        name = request.url.path.removeprefix("/models/")
        state = {"modelName": name, "modelVersion": "1.0", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1}
        workers = [{"id": str(i), "pid": 1, "status": status} for i, status in enumerate(models[name])]
        queue = {"pendingRequests": pending, "remainingCapacity": 100}
        return httpx.Response(200, json=[{**state, "maxBatchDelay": 1, "workers": workers, "jobQueueStatus": queue}])

    return Management("http://here:1", transport=httpx.MockTransport(answer))


# The stand-in for torch


def test_stand_in_has_the_version_that_constraints_ask_for() -> None:
    project = tomllib.loads((STAND_IN / "pyproject.toml").read_text("utf-8"))["project"]
    (pinned,) = re.findall(r"^torch==(.+)$", Path("constraints.txt").read_text("utf-8"), re.MULTILINE)

    assert project["version"] == f"{pinned}+name.only"
    assert f'__version__ = "{project["version"]}"' in (STAND_IN / "torch.py").read_text("utf-8")


def test_torchserves_worker_needs_no_more_of_torch_than_the_stand_in_has() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(STAND_IN)!r}); import torch, ts.model_service_worker\n"
        "from ts.protocol.otf_message_handler import create_predict_response\n"
        "response = create_predict_response(['{\"score\": 1}'], {0: 'a'}, 'Prediction success', 200)\n"
        "print(torch.__version__.partition('+')[2], b'score' in response)"
    )

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("name.only True\n", "")


def test_stand_in_says_what_it_cannot_do() -> None:
    program = f"import sys; sys.path.insert(0, {str(STAND_IN)!r}); import torch; torch.save(1, 2)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1] == (
        "NotImplementedError: this image has no torch: serve handlers that need it from an image that installs torch"
    )


def test_everything_that_the_dockerfile_copies_is_sent_to_the_builder() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", Path("docker/Dockerfile").read_text("utf-8"), re.MULTILINE)
    sent = {line[1:] for line in Path(".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}

    assert {name for names in copied for name in names.split()} == sent


# The balancer's configurations


@pytest.mark.parametrize("path", configurations(["sentiment"]), ids=lambda path: path.parent.name)
def test_configuration_is_what_the_template_renders(path: Path) -> None:
    expected = configurations(["sentiment"])[path]

    assert path.read_text("utf-8") == expected, "render it anew: docker/render.py"


def test_every_model_that_is_named_is_balanced() -> None:
    rendered = configurations(["one", "two"])

    for text in rendered.values():
        assert all(f"backend {kind}_{model} " in text for kind in ("rest", "grpc") for model in ("one", "two"))


# Readiness


@pytest.fixture
def nobody() -> int:
    """A port on which nobody listens."""
    return free_port()


@pytest.fixture
def management_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that has the models which the test is given, and refuses requests without the key."""
    models: dict[str, list[str]] = request.param

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.removeprefix("/models/")
            known = self.headers["authorization"] == "Bearer key of management"
            every: object = {"models": [{"modelName": model} for model in models]}
            content = [{"workers": [{"status": each} for each in models[name]]}] if name in models else every
            body = json.dumps(content if known else {"code": 400, "type": "InvalidKeyException"}).encode()
            self.send_response(200 if known else 400)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key_file.json"
    path.write_text('{"management": {"key": "key of management"}}', "utf-8")
    return path


@pytest.mark.parametrize(
    ("management_port", "missing"),
    [
        ({"a": ["READY"], "b": ["UNLOADED", "READY"]}, []),
        ({"a": ["READY"], "b": ["UNLOADED"]}, ["model b has no ready worker"]),
        ({"a": []}, ["model a has no ready worker"]),
        ({}, ["no model is registered"]),
    ],
    indirect=["management_port"],
    ids=["all ready", "one is not", "no workers", "no models"],
)
def test_server_is_ready_when_every_model_has_a_ready_worker(
    management_port: int, key_file: Path, missing: list[str]
) -> None:
    assert ready.unready("127.0.0.1", management_port, key_file) == missing


@pytest.mark.parametrize("management_port", [{"a": ["READY"]}], indirect=True, ids=["no key"])
def test_server_that_refuses_is_unhealthy_and_the_reason_is_shown(
    management_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(ready, "PORT", management_port)
    monkeypatch.setattr(ready, "KEY_FILE", tmp_path / "none")

    status = ready.main()

    assert (status, capsys.readouterr().out) == (
        1,
        f"no answer from 127.0.0.1:{management_port} that TorchServe would give (KeyError: 'models')\n",
    )


def test_server_that_is_not_there_is_unhealthy_and_the_reason_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nobody: int
) -> None:
    monkeypatch.setattr(ready, "PORT", nobody)

    status = ready.main()

    assert status == 1
    assert capsys.readouterr().out == (
        f"no answer from 127.0.0.1:{nobody} that TorchServe would give "
        "(ConnectionRefusedError: [Errno 111] Connection refused)\n"
    )


def test_readiness_needs_nothing_but_the_standard_library(nobody: int) -> None:
    program = (
        "import pathlib, runpy; unready = runpy.run_path('docker/ready.py')['unready']\n"
        f"unready('127.0.0.1', {nobody}, pathlib.Path('none'))"
    )

    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=False)

    assert done.stderr.splitlines()[-1] == "ConnectionRefusedError: [Errno 111] Connection refused"


# Draining


def drained(waiting: Callable[[], int]) -> bool:
    return drain.drain(waiting, look_away_s=0.0, quiet_s=0.05, limit_s=2.0)


def test_drain_ends_when_nothing_has_waited_for_a_while() -> None:
    assert drained(lambda: 0)


def test_drain_goes_on_while_requests_wait() -> None:
    waiting = [3, 1]

    assert drained(lambda: waiting.pop() if waiting else 0)
    assert not waiting


def test_drain_gives_up_at_its_limit() -> None:
    assert not drained(lambda: 1)


def test_drain_counts_what_waits_for_every_model() -> None:
    assert drain.waiting(management({"a": ["READY"], "b": ["READY"]}, pending=2)) == 4


def test_server_that_has_gone_needs_no_drain(monkeypatch: pytest.MonkeyPatch, nobody: int) -> None:
    monkeypatch.setattr(drain, "LOOK_AWAY_S", 0.0)
    monkeypatch.setattr(drain, "URL", f"http://127.0.0.1:{nobody}")

    assert drain.main() == 0


def test_error_of_a_server_that_has_gone_is_one_of_ours(nobody: int) -> None:
    with Management(f"http://127.0.0.1:{nobody}") as gone, pytest.raises(ConnectError):
        drain.waiting(gone)
