"""The autoscaler beside a server must be there as long as its parent is, and no longer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.autoscale.fakes import FakeServer, listening

from suffuse.autoscale.beside import AutoscalerProcess

PARENT = """
import sys, time
from pathlib import Path
from suffuse.autoscale.beside import AutoscalerProcess
url, log = sys.argv[1:]
with AutoscalerProcess([url], [], (1, 3), 500, Path(log), options=("--server-metrics", f"{url}/metrics")) as child:
    print(child.pid, flush=True)
    time.sleep(60)
"""


def until(true: Callable[[], object], limit_s: float = 60) -> None:
    end_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end_s, "it has not come true"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


@pytest.fixture
def url() -> Iterator[str]:
    with listening(FakeServer()) as where:
        yield where


def beside(url: str, log: Path, workers: tuple[int, int] = (1, 3)) -> AutoscalerProcess:
    return AutoscalerProcess([url], [], workers, 500, log, options=("--server-metrics", f"{url}/metrics"))


def test_it_scales_and_is_gone_afterwards(log: Path) -> None:
    server = FakeServer()
    with listening(server) as url, beside(url, log, (2, 3)) as child:
        until(lambda: server.scaled == [2])
        until(log.exists)
        pid = child.pid

    assert gone(pid)
    assert json.loads(log.read_text("utf-8").splitlines()[0])["wished"] == 2


def test_one_that_was_killed_is_started_again(url: str, log: Path) -> None:
    with beside(url, log) as child:
        until(log.exists)
        first = child.pid
        log.unlink()
        os.kill(first, signal.SIGKILL)

        until(log.exists)

        assert child.pid != first


def test_it_is_tried_again_until_the_server_answers(log: Path) -> None:
    server = FakeServer(down=True)

    def failing_at_first(request: object) -> object:
        if server.down:
            raise ConnectionResetError
        return server(request)  # type: ignore[arg-type]

    complaint = log.with_name(f"{log.name}.err")
    with listening(failing_at_first) as url, beside(url, log):  # type: ignore[arg-type]
        until(lambda: complaint.exists() and "suffuse: no server answers: " in complaint.read_text("utf-8"))
        server.down = False

        until(log.exists)

    assert json.loads(log.read_text("utf-8").splitlines()[0])["model"] == "m"


def test_it_ends_with_a_parent_that_is_killed(url: str, log: Path) -> None:
    command = [sys.executable, "-c", PARENT, url, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(log.exists)

        parent.kill()

        until(lambda: gone(pid))
