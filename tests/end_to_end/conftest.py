"""One real TorchServe for all end-to-end tests, with the archive of a tiny model, on ports that are free."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig

ROOT = Path(__file__).parent.parent.parent


Ports = Callable[[int], list[int]]
Config = Callable[[Path, Path], ServerConfig]


@pytest.fixture(scope="session")
def free_ports() -> Ports:
    """So many ports that nobody listens at now."""

    def find(count: int) -> list[int]:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for held in sockets:
                held.bind(("127.0.0.1", 0))
            return [int(held.getsockname()[1]) for held in sockets]

    return find


@pytest.fixture(scope="session")
def server_config(free_ports: Ports) -> Config:
    """A server of a model store with a state folder: one worker of one thread, on free ports."""

    def make(store: Path, state: Path) -> ServerConfig:
        ports = free_ports(5)
        return ServerConfig(
            store,
            config=ROOT / "config.properties",
            workers=1,
            threads=1,
            inference_port=ports[0],
            management_port=ports[1],
            metrics_port=ports[2],
            grpc_inference_port=ports[3],
            grpc_management_port=ports[4],
            state=state,
        )

    return make


@pytest.fixture(scope="session")
def store(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the archive of `tiny_bundle`, called tiny."""
    folder = tmp_path_factory.mktemp("model_store")
    archive(tiny_bundle, folder)
    return folder


@pytest.fixture(scope="session")
def server(store: Path, server_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is ready."""
    with Server(server_config(store, tmp_path_factory.mktemp("s"))) as running:
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
