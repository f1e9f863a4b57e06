"""A real HAProxy before two stand-ins for TorchServe."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.balancing.fake_instances import TOKEN, FakeInstance, rest

from suffuse.balancing.config import BalancerConfig
from suffuse.balancing.haproxy import HAProxy


@pytest.fixture
def fakes() -> Iterator[tuple[FakeInstance, FakeInstance]]:
    """Two instances, a and b."""
    pair = (FakeInstance("a"), FakeInstance("b"))
    yield pair
    for fake in pair:
        fake.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder, short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="b") as name:
        (Path(name) / "haproxy").mkdir()
        yield Path(name).resolve()


@pytest.fixture
def balance(
    fakes: tuple[FakeInstance, FakeInstance], folder: Path, free_ports: Callable[[int], list[int]]
) -> Iterator[Callable[..., HAProxy]]:
    """Start a real HAProxy before both instances, with changes to its configuration; it finds them up."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("haproxy is not installed")
    started: list[HAProxy] = []

    def start(**changes: Any) -> HAProxy:  # noqa: ANN401 - fields of BalancerConfig
        port, metrics_port = free_ports(2)
        own: dict[str, Any] = {
            "models": ("m",),
            "instances": tuple(fake.instance for fake in fakes),
            "run": folder / "haproxy",
            "port": port,
            "metrics_port": metrics_port,
        }
        haproxy = HAProxy(BalancerConfig(**{**own, **changes}), TOKEN)
        started.append(haproxy)
        haproxy.start()
        return haproxy

    yield start
    for haproxy in started:
        haproxy.stop(0.0)


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def http(balance: Callable[..., HAProxy]) -> Iterator[httpx.Client]:
    with rest(balance()) as opened:
        yield opened
