"""One real TorchServe for all end-to-end tests, with the archive of a tiny model, on ports that are free."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig


@pytest.fixture(scope="session")
def store(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the archive of `tiny_bundle`, called tiny."""
    folder = tmp_path_factory.mktemp("model_store")
    archive(tiny_bundle, folder)
    return folder


@pytest.fixture(scope="session")
def server(
    store: Path, on_free_ports: Callable[[ServerConfig], ServerConfig], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that is ready, with one worker of one thread."""
    config = ServerConfig(store, workers=1, threads=1, state=tmp_path_factory.mktemp("s"))
    with Server(on_free_ports(config)) as running:
        yield running


@pytest.fixture(scope="session")
def key(server: Server) -> dict[str, str]:
    """The headers that carry the inference key."""
    return {"authorization": f"Bearer {json.loads(server.key_file.read_text('utf-8'))['inference']['key']}"}


@pytest.fixture(scope="session")
def rest(server: Server, key: dict[str, str]) -> Iterator[httpx.Client]:
    """Bare HTTP to the inference port, with the key, for what our own client would not send."""
    with httpx.Client(base_url=server.url, headers=key, trust_env=False, timeout=60) as client:
        yield client
