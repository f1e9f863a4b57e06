"""Stand-ins for TorchServe, small servers over REST and gRPC that answer as told, and how tests ask a real HAProxy."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx

from suffuse.balancing.config import Instance
from suffuse.balancing.haproxy import HAProxy
from suffuse.serving.client import Client
from suffuse.serving.inference_pb2 import PredictionResponse, PredictionsRequest

TOKEN = "a-token-of-24-characters"  # noqa: S105 - of these tests alone
BEARER = {"authorization": f"Bearer {TOKEN}"}


class FakeInstance:
    """An instance whose models are ready, and which answers with its name and the model's.

    Attributes:
        ready: whether its management port says so.
        failing: what a worker's death looks like while it is True: status 507, or the gRPC state of that.
        held: set, it answers at once; cleared, when it is set again.
        asked: requests for predictions so far.
        headers: names of the headers of the last request over REST.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.failing = False
        self.held = threading.Event()
        self.held.set()
        self.asked = 0
        self.headers: set[str] = set()
        self._http = _QuietServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = True
        self._grpc = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 20_000_000), ("grpc.so_reuseport", 0)]
        )
        service = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
        methods = {"Predictions": grpc.unary_unary_rpc_method_handler(self._predict, PredictionsRequest.FromString)}
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        rest_port, grpc_port = self._http.server_address[1], self._grpc.add_insecure_port("127.0.0.1:0")
        self.instance = Instance(name, "127.0.0.1", rest_port, grpc_port, rest_port)
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, path: str, headers: Iterable[str]) -> tuple[int, dict[str, Any]]:
        """Status and content for a path and the names of the headers, over REST."""
        if path.startswith("/models/"):
            return 200, {"workers": [{"status": "READY" if self.ready else "LOADING"}]}
        self.asked += 1
        self.headers = {name.lower() for name in headers}
        self.held.wait(20.0)
        return (507, {}) if self.failing else (200, {"from": self.name, "path": path})

    def close(self) -> None:
        self.held.set()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()

    def _predict(self, request: PredictionsRequest, context: grpc.ServicerContext) -> bytes:
        self.asked += 1
        self.held.wait(20.0)
        if self.failing:
            context.abort(grpc.StatusCode.INTERNAL, "Worker died.")
        content = json.dumps({"from": self.name, "model": request.model_name})
        return PredictionResponse(prediction=content.encode()).SerializeToString()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A check's connection is reset at its end; that is no news."""


def _handler_of(fake: FakeInstance) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = fake.answer(self.path, self.headers)
            body = json.dumps(content, indent=2).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def client(haproxy: HAProxy, transport: str) -> Client:
    scheme = {"rest": "http", "grpc": "grpc"}[transport]
    return Client(f"{scheme}://127.0.0.1:{haproxy.config.port}", token=TOKEN, retries=0, timeout_s=20.0)


def rest(haproxy: HAProxy) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{haproxy.config.port}", headers=BEARER, trust_env=False, timeout=20)


def row(haproxy: HAProxy, backend: str, server: str) -> dict[str, str]:
    return next(r for r in haproxy.admin.stats() if (r["pxname"], r["svname"]) == (backend, server))


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has(answers: list[str], count: int) -> bool:
    return len(answers) >= count


def call(haproxy: HAProxy, method: str, request: bytes, **options: object) -> grpc.StatusCode:
    """The code of a bare call, for what our own client would not send."""
    path = f"/org.pytorch.serve.grpc.inference.InferenceAPIsService/{method}"
    with grpc.insecure_channel(f"127.0.0.1:{haproxy.config.port}") as channel:
        try:
            channel.unary_unary(path)(request, timeout=20, metadata=tuple(BEARER.items()), **options)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def make_certificate(folder: Path) -> Path:
    """A certificate for localhost that signs itself, and its key, in one file."""
    path = folder / "site.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    names = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(["openssl", *options.split(), *names], check=True, capture_output=True)
    path.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return path
