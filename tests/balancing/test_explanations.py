"""Explanations through the balancer: for those with the token, within the limit, and behind predictions that wait."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.balancing.fake_instances import FakeInstance, rest, row, until

from suffuse.balancing.config import Limits
from suffuse.balancing.haproxy import HAProxy
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.errors import AuthorizationError, RequestError
from suffuse.serving.archive import archive
from suffuse.serving.client import Client
from suffuse.serving.settings import ServerConfig

pytestmark = pytest.mark.balancing

TEXT = "a warm and funny film"


@pytest.fixture(scope="module")
def stack(explainable_bundle: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Stack]:
    """One instance of a model that can explain."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("haproxy is not installed")
    port, metrics_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = Path(name).resolve()
        archive(explainable_bundle, folder / "store")
        server = ServerConfig(folder / "store", threads=1)
        config = StackConfig(server, instances=1, port=port, metrics_port=metrics_port, state=folder / "s")
        with Stack(config) as running:
            yield running


def client(stack: Stack, kind: str, token: str | None = None) -> Client:
    assert stack.record.token_file is not None
    given = token or stack.record.token_file.read_text("ascii").strip()
    return Client(getattr(stack, kind), token=given, retries=0, timeout_s=30)


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
def test_rows_are_explained_to_those_with_the_token(stack: Stack, kind: str) -> None:
    with client(stack, kind) as asking:
        explanation = asking.explain("explainable", TEXT, method="gradient")
        assert explanation["answer"] == asking.predict("explainable", TEXT)
        assert explanation["explained"][0]["words"]
    with client(stack, kind, token="x" * 32) as stranger, pytest.raises(AuthorizationError):
        stranger.explain("explainable", TEXT)


def test_a_body_over_the_limit_is_refused(stack: Stack) -> None:
    with client(stack, "url") as asking, pytest.raises(RequestError):
        asking.explain("explainable", "x" * 7_000_000)
    assert stack.record.token_file is not None
    key = {"authorization": f"Bearer {stack.record.token_file.read_text('ascii').strip()}"}

    reply = httpx.post(
        f"{stack.url}/explanations/explainable", content=b"x" * 7_000_000, headers=key, trust_env=False, timeout=30
    )

    assert reply.status_code == 413


def waits(haproxy: HAProxy, count: int) -> bool:
    """Whether so many requests are in the model's queue."""
    return int(row(haproxy, "rest_m", "BACKEND")["qcur"]) == count


def test_predictions_that_wait_go_before_explanations(
    balance: Callable[..., HAProxy], fakes: tuple[FakeInstance, FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fakes[0]
    answer = fake.answer
    paths: list[str] = []

    def record(path: str, headers: Iterable[str]) -> tuple[int, dict[str, Any]]:
        if not path.startswith("/models/"):
            paths.append(path)
        return answer(path, headers)

    monkeypatch.setattr(fake, "answer", record)
    haproxy = balance(instances=(fake.instance,), limits=Limits(in_flight=1))
    fake.held.clear()

    with rest(haproxy) as http, ThreadPoolExecutor(3) as pool:
        sent = [pool.submit(http.post, "/predictions/m", json={})]
        until(lambda: fake.asked == 1)
        for count, kind in enumerate(("explanations", "predictions"), 1):
            sent.append(pool.submit(http.post, f"/{kind}/m", json={}))
            until(partial(waits, haproxy, count))
        fake.held.set()

    assert [future.result().status_code for future in sent] == [200, 200, 200]
    assert paths == ["/predictions/m", "/predictions/m", "/explanations/m"]
