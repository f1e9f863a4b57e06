"""Over real connections, gRPC must mean what REST means, and a broken or slow one must be told as such."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from suffuse.errors import (
    AnswerError,
    ConnectError,
    DeadlineError,
    RequestError,
    UnknownModelError,
)
from suffuse.serving.client import Client
from suffuse.serving.inference_pb2 import PingResponse, PredictionResponse, PredictionsRequest
from suffuse.serving.transports import Deadline, GrpcTransport

SECRET = "secret"  # noqa: S105 - a word to look for
ROW_ERROR = {"error": {"code": "missing_field", "message": "no text", "status": 422}}


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


def test_healthy_server_is_ready_over_grpc() -> None:
    with grpc_server(lambda *_: b"") as url, Client(url) as client:
        assert client.ready()
