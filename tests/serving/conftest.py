"""A clock for retries that does not run, and what a server is started with."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serving.archives import HANDLER, write_archive

from suffuse.serving.process import marked_processes
from suffuse.serving.server import ServerConfig


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client wanted to wait; it does not."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", type("Clock", (), {"sleep": staticmethod(waited.append)}))
    return waited


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
