"""A server that speaks as TorchServe does, over REST and gRPC, and answers as a test says."""

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from suffuse.serving.inference_pb2 import PredictionResponse, PredictionsRequest

GOOD = {"label": "good", "score": 0.75, "scores": {"bad": 0.25, "good": 0.75}}
Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
"""Row -> status and body; over gRPC a status of 429 is RESOURCE_EXHAUSTED and another error UNAVAILABLE."""


@dataclass
class FakeServer:
    """A running one; `rows` are those that were asked, with the transport and the authorization they came with."""

    url: str = ""
    grpc_url: str = ""
    rows: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    reply: Reply
    fake: FakeServer

    def do_POST(self) -> None:
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fake.rows.append(("rest", self.headers["Authorization"], row))
        status, content = type(self).reply(row)
        body = json.dumps(content)
        # In one piece: the second of two would wait for the first to be acknowledged, 40 ms.
        self.wfile.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def log_message(self, *_: object) -> None:
        pass


class _Grpc(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def __init__(self, fake: FakeServer, reply: Reply) -> None:
        self.fake, self.reply = fake, reply

    def service(self, details: Any) -> Any:  # noqa: ANN401
        authorization = dict(details.invocation_metadata).get("authorization")

        def predict(request: PredictionsRequest, context: Any) -> bytes:  # noqa: ANN401
            row = json.loads(request.input["data"])
            self.fake.rows.append(("grpc", authorization, row))
            status, content = self.reply(row)
            if status != 200:
                code = grpc.StatusCode.RESOURCE_EXHAUSTED if status == 429 else grpc.StatusCode.UNAVAILABLE
                context.abort(code, "overloaded")
            return PredictionResponse(prediction=json.dumps(content).encode()).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(predict, request_deserializer=PredictionsRequest.FromString)


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate for this machine, which is its own authority, and of its key."""

    pem: Path
    key: Path


def self_signed(folder: Path) -> Certificate:
    """Make one."""
    made = Certificate(folder / "site.pem", folder / "site.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(made.key), "-out", str(made.pem)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made


@contextmanager
def fake_server(reply: Reply, certificate: Certificate | None = None, threads: int = 64) -> Iterator[FakeServer]:
    """A server that answers each row as `reply` says, in threads; by TLS where it has a certificate."""
    fake = FakeServer()
    with ExitStack() as stack:
        handler = type("Rest", (_Rest,), {"reply": staticmethod(reply), "fake": fake})
        rest = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        rest.daemon_threads = True
        rest.request_queue_size = 128
        rest.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
        thread = threading.Thread(target=rest.serve_forever, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(rest.server_close)
        stack.callback(rest.shutdown)
        server = grpc.server(futures.ThreadPoolExecutor(threads))
        server.add_generic_rpc_handlers((_Grpc(fake, reply),))
        if certificate is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.pem, certificate.key)
            # The handshake is left to the thread of the connection: a slow one would hold up all others.
            rest.socket = context.wrap_socket(rest.socket, server_side=True, do_handshake_on_connect=False)
            pair = (certificate.key.read_bytes(), certificate.pem.read_bytes())
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        safe = "s" if certificate else ""
        fake.url = f"http{safe}://127.0.0.1:{rest.server_address[1]}"
        fake.grpc_url = f"grpc{safe}://127.0.0.1:{port}"
        yield fake


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten rows with text and label."""
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": f"film {number}", "label": "good"}) for number in range(10)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
