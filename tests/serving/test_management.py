"""The management API's requests must be those that TorchServe reads, and its replies become objects or errors."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from suffuse.errors import AnswerError, AuthorizationError, ConnectError, DeadlineError, UnknownModelError
from suffuse.serving.management import Management, ModelState, Worker

URL = "http://h:8081"
Reply = Callable[[httpx.Request], httpx.Response]


def described(*statuses: str, **changes: object) -> list[dict[str, Any]]:
    """What DescribeModel answers, shortened."""
    workers = [{"id": str(9000 + i), "status": s, "pid": 11 + i, "gpu": False} for i, s in enumerate(statuses)]
    model = {
        "modelName": "m",
        "modelVersion": "1.0",
        "minWorkers": 1,
        "maxWorkers": 4,
        "batchSize": 16,
        "maxBatchDelay": 2,
        "workers": workers,
        "jobQueueStatus": {"remainingCapacity": 97, "pendingRequests": 3},
    }
    return [{**model, **changes}]


def refused(status: int, kind: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": status, "type": kind, "message": message})


class Wire:
    """Stands in for the network: answers as told and remembers the requests."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies: Iterator[httpx.Response | Exception] = iter(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = next(self.replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


def management(wire: Reply, *, token: str | None = None, key_file: Path | None = None) -> Management:
    return Management(URL, transport=httpx.MockTransport(wire), token=token, key_file=key_file)


def test_description_becomes_a_state() -> None:
    wire = Wire(httpx.Response(200, json=described("READY", "LOADING")))

    state = management(wire).describe("m")

    assert wire.lines == ["GET /models/m"]
    assert state == ModelState(
        name="m",
        version="1.0",
        min_workers=1,
        max_workers=4,
        batch_size=16,
        max_batch_delay_ms=2,
        workers=(Worker("9000", 11, "READY"), Worker("9001", 12, "LOADING")),
        pending=3,
        remaining=97,
    )


def test_only_ready_workers_count_as_ready() -> None:
    state = management(Wire(httpx.Response(200, json=described("READY", "LOADING", "UNLOADING")))).describe("m")

    assert state.ready_workers == 1


def test_worker_that_has_not_started_has_no_process() -> None:
    workers = [{"id": "9000", "status": "LOADING", "pid": -1}]

    state = management(Wire(httpx.Response(200, json=described(workers=workers)))).describe("m")

    assert state.workers[0].pid == 0


def test_odd_names_and_versions_stay_one_path_segment() -> None:
    wire = Wire(httpx.Response(200, json=described()))

    management(wire).describe("a/b ?", version="1/0")

    assert wire.lines == ["GET /models/a%2Fb%20%3F/1%2F0"]


def test_models_of_all_pages_are_listed() -> None:
    first = {"models": [{"modelName": "a", "modelUrl": "a.mar"}], "nextPageToken": "1"}
    second = {"models": [{"modelName": "b", "modelUrl": "b.mar"}]}
    wire = Wire(httpx.Response(200, json=first), httpx.Response(200, json=second))

    assert management(wire).models() == ("a", "b")
    assert wire.lines == ["GET /models?limit=100&next_page_token=0", "GET /models?limit=100&next_page_token=1"]


def test_every_version_of_a_model_is_described() -> None:
    versions = [*described("READY", modelVersion="1"), *described("LOADING", modelVersion="2")]
    wire = Wire(httpx.Response(200, json=versions))

    states = management(wire).versions("m")

    assert wire.lines == ["GET /models/m/all"]
    assert [(state.version, state.ready_workers) for state in states] == [("1", 1), ("2", 0)]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ({"status": "Healthy"}, """'{"status": "Healthy"}'"""),
        ([], "'[]'"),
        ([{"modelName": "m"}], """'[{"modelName": "m"}]'"""),
        ("no", "'\"no\"'"),
        (described(batchSize={}, workers=3), "'" + json.dumps(described())[:40] + "…'"),
    ],
)
def test_reply_that_describes_no_model_is_an_error(content: object, shown: str) -> None:
    expected = (
        f"{URL}/models/m: got {shown}; expected the description of a model: is this TorchServe's management port?"
    )

    with pytest.raises(AnswerError, match=f"^{re.escape(expected)}$") as caught:
        management(Wire(httpx.Response(200, json=content))).describe("m")
    assert caught.value.code == "not_a_model"


@pytest.mark.parametrize("content", [[1], {"models": 3}, {"models": [{}]}])
def test_reply_that_lists_no_models_is_an_error(content: object) -> None:
    expected = (
        f"{URL}/models: got {json.dumps(content)!r}; expected a list of models: is this TorchServe's management port?"
    )

    with pytest.raises(AnswerError, match=f"^{re.escape(expected)}$"):
        management(Wire(httpx.Response(200, json=content))).models()


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (lambda m: m.scale("m", 3), "PUT /models/m?min_worker=3&max_worker=3&synchronous=false"),
        (lambda m: m.scale("m", 0, "2"), "PUT /models/m/2?min_worker=0&max_worker=0&synchronous=false"),
        (lambda m: m.register("m.mar"), "POST /models?url=m.mar&synchronous=false"),
        (
            lambda m: m.register("m.mar", initial_workers=2),
            "POST /models?url=m.mar&synchronous=false&initial_workers=2",
        ),
        (lambda m: m.set_default("m", "2"), "PUT /models/m/2/set-default"),
        (lambda m: m.unregister("m"), "DELETE /models/m"),
        (lambda m: m.unregister("m", "2"), "DELETE /models/m/2"),
    ],
)
def test_change_is_the_request_that_torchserve_reads(act: Callable[[Management], None], line: str) -> None:
    wire = Wire(httpx.Response(202, json={"status": "Processing worker updates..."}))

    act(management(wire))

    assert wire.lines == [line]


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (
            refused(404, "ModelNotFoundException", "Model not found: m"),
            UnknownModelError,
            f"{URL}/models/m: Model not found: m (status 404)",
        ),
        (
            refused(409, "ConflictStatusException", "already registered"),
            AnswerError,
            f"{URL}/models/m: already registered (status 409)",
        ),
        (
            httpx.ConnectError("Connection refused"),
            ConnectError,
            f"{URL}/models/m: no connection (Connection refused); is `suffuse serve` running there?",
        ),
        (httpx.ReadTimeout("late"), DeadlineError, f"{URL}/models/m: no answer within 10 s"),
        (
            httpx.Response(200, text="<html>"),
            AnswerError,
            f"{URL}/models/m: got a reply that is not JSON; is this the management port?",
        ),
    ],
)
def test_refusal_becomes_a_typed_error(reply: httpx.Response | Exception, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        management(Wire(reply)).describe("m")


def test_key_of_the_management_api_goes_out_and_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    path.write_text(json.dumps({"management": {"key": "old"}}), "utf-8")

    def reply(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer new":
            return httpx.Response(200, json=described())
        path.write_text(json.dumps({"management": {"key": "new"}}), "utf-8")
        return refused(400, "InvalidKeyException", "refused")

    assert management(reply, key_file=path).describe("m").name == "m"


def test_refused_key_is_not_shown() -> None:
    key = "secret"

    with pytest.raises(AuthorizationError) as caught:
        management(Wire(refused(400, "InvalidKeyException", "refused")), token=key).describe("m")
    assert key not in str(caught.value)


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffuse.serving.management._POLL_S", 0.0)


@pytest.mark.usefixtures("_no_waiting")
def test_waiting_ends_when_enough_workers_are_ready() -> None:
    states = (described("LOADING"), described("READY", "LOADING"), described("READY", "READY"))
    wire = Wire(*(httpx.Response(200, json=state) for state in states))

    assert management(wire).wait_ready("m", 60.0, workers=2).ready_workers == 2
    assert len(wire.requests) == 3


@pytest.mark.usefixtures("_no_waiting")
def test_waiting_too_long_names_the_states_of_the_workers() -> None:
    expected = (
        f"{URL}: model 'm' has 1 of 2 ready workers after 0 s (READY, LOADING); TorchServe's workers.log says why"
    )

    with pytest.raises(DeadlineError, match=f"^{re.escape(expected)}$"):
        management(lambda _: httpx.Response(200, json=described("READY", "LOADING"))).wait_ready("m", 0.0, workers=2)


def test_connections_are_closed_at_the_end() -> None:
    with management(Wire()) as open_one:
        pass

    with pytest.raises(RuntimeError):
        open_one.describe("m")
