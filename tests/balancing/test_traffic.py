"""A request must reach an instance that answers it, or be refused at once in words that its sender understands."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from tests.balancing.fake_instances import (
    BEARER,
    TOKEN,
    FakeInstance,
    call,
    client,
    make_certificate,
    rest,
    row,
    until,
)

from suffuse.balancing.config import Instance, Limits
from suffuse.balancing.haproxy import HAProxy
from suffuse.errors import OverloadError
from suffuse.serving.client import Client
from suffuse.serving.inference_pb2 import PredictionsRequest

pytestmark = pytest.mark.balancing

Balance = Callable[..., HAProxy]
Fakes = tuple[FakeInstance, FakeInstance]


def test_requests_reach_both_instances_by_the_models_name(balance: Balance, transport: str) -> None:
    with client(balance(models=("m", "n")), transport) as asking:
        answers = [asking.predict(model, {"text": "x"}) for model in ("m", "n") for _ in range(4)]

    assert {answer["from"] for answer in answers} == {"a", "b"}
    assert {answer.get("path", answer.get("model")) for answer in answers} in (
        {"m", "n"},
        {"/predictions/m", "/predictions/n"},
    )


def test_message_larger_than_a_buffer_still_finds_its_model(balance: Balance) -> None:
    with client(balance(), "grpc") as asking:
        assert asking.predict("m", {"text": "x" * 1_000_000})["model"] == "m"


def test_version_reaches_the_instance(http: httpx.Client) -> None:
    assert http.post("/predictions/m/2.0", json={}).json()["path"] == "/predictions/m/2.0"


def test_worker_that_dies_on_one_instance_is_not_noticed(balance: Balance, fakes: Fakes, transport: str) -> None:
    fakes[0].failing = True

    with client(balance(), transport) as asking:
        answers = [asking.predict("m", {"text": "x" * 100_000}) for _ in range(6)]

    assert [answer["from"] for answer in answers] == ["b"] * 6
    assert fakes[0].asked > 0


def test_request_that_an_instance_does_not_answer_in_time_is_sent_to_another(
    balance: Balance, fakes: Fakes, transport: str
) -> None:
    haproxy = balance(limits=Limits(answer_s=0.5))
    fakes[0].held.clear()

    with client(haproxy, transport) as asking:
        answers = [asking.predict("m", {"text": "x"})["from"] for _ in range(4)]

    assert (answers, fakes[0].asked > 0) == (["b"] * 4, True)


def test_instance_without_a_ready_worker_gets_no_requests(balance: Balance, fakes: Fakes) -> None:
    fakes[0].ready = False
    haproxy = balance()
    until(lambda: row(haproxy, "grpc_m", "a")["status"].startswith("DOWN"))

    with client(haproxy, "rest") as asking:
        assert {asking.predict("m", {"text": "x"})["from"] for _ in range(4)} == {"b"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/models/m", 404), ("POST", "/models?url=x", 404), ("GET", "/", 404), ("GET", "/api-description", 404)],
)
def test_what_is_not_offered_is_not_passed_on(http: httpx.Client, method: str, path: str, status: int) -> None:
    reply = http.request(method, path)

    assert (reply.status_code, reply.json()["type"]) == (status, "ResourceNotFoundException")


def test_unknown_model_is_told_in_torchserves_words(http: httpx.Client) -> None:
    assert http.post("/predictions/nope", json={}).json() == {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "no such model; there are: m",
    }


def test_calls_that_would_harm_are_refused(balance: Balance) -> None:
    haproxy = balance()
    message = PredictionsRequest(model_name="m", input={"body": b"x" * 10_000}).SerializeToString()
    unknown = PredictionsRequest(model_name="n").SerializeToString()

    assert call(haproxy, "StreamPredictions", message) is grpc.StatusCode.UNIMPLEMENTED
    assert call(haproxy, "Predictions", message, compression=grpc.Compression.Gzip) is grpc.StatusCode.UNIMPLEMENTED
    assert call(haproxy, "Predictions", b"\x0a" + b"x" * 7_000_000) is grpc.StatusCode.CANCELLED
    assert call(haproxy, "Predictions", unknown) is grpc.StatusCode.NOT_FOUND


def test_body_beyond_the_limit_is_refused(balance: Balance) -> None:
    with rest(balance(limits=Limits(body_bytes=1000))) as asking:
        assert asking.post("/predictions/m", content=b"x" * 1000).status_code == 200
        assert asking.post("/predictions/m", content=b"x" * 1001).status_code == 413


@pytest.mark.parametrize("bearer", ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"bearer {TOKEN}", TOKEN])
def test_token_is_asked_for(http: httpx.Client, bearer: str) -> None:
    reply = http.post("/predictions/m", json={}, headers={"authorization": bearer})

    assert (reply.status_code, reply.json()["type"]) == (401, "InvalidKeyException")


def test_token_goes_no_further(balance: Balance, fakes: Fakes) -> None:
    with rest(balance(instances=(fakes[0].instance,))) as asking:
        asking.post("/predictions/m", json={}, headers={"x-mine": "kept"})

    assert ("authorization" in fakes[0].headers, "x-mine" in fakes[0].headers) == (False, True)


def test_token_is_in_no_file_and_no_figure(balance: Balance) -> None:
    haproxy = balance()
    with rest(haproxy) as asking:
        asking.post("/predictions/m", json={})
    metrics = httpx.get(f"http://127.0.0.1:{haproxy.config.metrics_port}/metrics", trust_env=False).text

    texts = [
        haproxy.file.read_text("utf-8"),
        haproxy.log.read_text("utf-8"),
        metrics,
        haproxy.admin.command("show stat"),
    ]
    assert [TOKEN in text for text in texts] == [False] * 4
    assert 'haproxy_backend_http_requests_total{proxy="rest_m"} 1' in metrics


def test_balancer_is_healthy_while_an_instance_is_up(balance: Balance, fakes: Fakes) -> None:
    haproxy = balance()
    with rest(haproxy) as asking:
        healthy = asking.get("/ping")
        fakes[0].ready = fakes[1].ready = False
        until(lambda: asking.get("/ping").status_code == 503)
        refused = asking.post("/predictions/m", json={})
    private = httpx.get(f"http://127.0.0.1:{haproxy.config.metrics_port}/ping", trust_env=False)

    assert healthy.json() == {"status": "Healthy"}
    assert (private.status_code, private.json()) == (503, {"status": "Unhealthy"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_full_queue_is_refused_at_once_and_counted(balance: Balance, fakes: Fakes, transport: str) -> None:
    haproxy = balance(limits=Limits(in_flight=1, queue=2, queue_s=10.0))
    for fake in fakes:
        fake.held.clear()

    def ask() -> object:
        with client(haproxy, transport) as asking:
            return asking.predict("m", {"text": "x"})["from"]

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask) for _ in range(4)]
        until(lambda: row(haproxy, f"{transport}_m", "BACKEND")["qcur"] == "2")
        start = time.monotonic()
        with client(haproxy, transport) as asking, pytest.raises(OverloadError) as refused:
            asking.predict("m", {"text": "x"})
        took_s = time.monotonic() - start
        for fake in fakes:
            fake.held.set()
        answered = [answer.result() for answer in waiting]

    assert took_s < 0.5
    assert getattr(refused.value, "after_s", 1.0) == 1.0
    assert set(answered) == {"a", "b"}
    assert row(haproxy, f"{transport}_m", "BACKEND")["req_tot"] == "5"


def test_address_that_asks_too_often_is_refused(balance: Balance, transport: str) -> None:
    haproxy = balance(limits=Limits(client_rate=0.5))

    with client(haproxy, transport) as asking:
        for _ in range(5):
            asking.predict("m", {"text": "x"})
        with pytest.raises(OverloadError):
            asking.predict("m", {"text": "x"})


def test_refusal_over_grpc_says_when_to_come_again(balance: Balance) -> None:
    haproxy = balance(limits=Limits(client_rate=0.1))

    with grpc.insecure_channel(f"127.0.0.1:{haproxy.config.port}") as channel:
        ping = channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping")
        refused = [ping.future(b"", metadata=tuple(BEARER.items())).exception() for _ in range(3)][-1]

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.trailing_metadata())["retry-after"] == "1"


def test_instance_whose_name_is_unknown_is_down_and_stops_nothing(balance: Balance, fakes: Fakes) -> None:
    lost = Instance("c", "no-such-host.invalid", 1, 2, 3)

    haproxy = balance(instances=(fakes[0].instance, lost))

    with rest(haproxy) as asking:
        assert [asking.post("/predictions/m", json={}).status_code for _ in range(6)] == [200] * 6


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_port_speaks_tls_where_there_is_a_certificate(balance: Balance, folder: Path, scheme: str) -> None:
    certificate = make_certificate(folder)
    port = balance(certificate=certificate).config.port

    with Client(f"{scheme}://localhost:{port}", token=TOKEN, retries=0, ca_file=certificate) as asking:
        assert asking.predict("m", {"text": "x"})["from"] in {"a", "b"}
