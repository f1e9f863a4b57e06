"""A TorchServe and a HAProxy that exist in memory only: they say what a test wants and note what they were asked."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

SERVER = "http://a:8081"
METRICS = "http://a:8082/metrics"
BALANCER = "http://h:8404/metrics"


@dataclass
class FakeServer:
    """What a test may change: how many workers there are, what was counted, and how it fails.

    `model` may be several names with blanks between them, for the list of models alone.
    """

    model: str = "m"
    ready: int = 1
    asked: int = 1
    batch_size: int = 1
    pending: int = 0
    remaining: int = 100
    arrived: float = 0
    rest_us: float = 0
    queue_us: float = 0
    handler_ms: float | None = None
    thread_ms: float = 0
    description: object = None
    metrics: str | None = None
    down: bool = False
    refuses: bool = False
    scaled: list[int] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if request.url.path == "/metrics":
            return httpx.Response(200, text=self.metrics if self.metrics is not None else self._metrics())
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": name} for name in self.model.split()]})
        if request.method == "PUT":
            return self._scale(request)
        return httpx.Response(200, json=[self._state()] if self.description is None else self.description)

    def _scale(self, request: httpx.Request) -> httpx.Response:
        if self.refuses:
            return httpx.Response(500, json={"code": 500, "type": "IllegalStateException", "message": "Deque full"})
        query = request.url.params
        assert query["min_worker"] == query["max_worker"]
        assert query["synchronous"] == "false"
        self.asked = int(query["min_worker"])
        self.ready = min(self.ready, self.asked)  # new ones take their time
        self.scaled.append(self.asked)
        return httpx.Response(202, json={"status": "Processing worker updates..."})

    def _state(self) -> dict[str, object]:
        states = ["READY"] * self.ready + ["UNLOADING"] * max(0, self.asked - self.ready)
        return {
            "modelName": self.model,
            "modelVersion": "1.0",
            "minWorkers": self.asked,
            "maxWorkers": self.asked,
            "batchSize": self.batch_size,
            "maxBatchDelay": 1,
            "workers": [{"id": str(9000 + i), "status": state, "pid": 10 + i} for i, state in enumerate(states)],
            "jobQueueStatus": {"remainingCapacity": self.remaining, "pendingRequests": self.pending},
        }

    def _metrics(self) -> str:
        """As TorchServe 0.12 writes them, a comma after the last label included."""
        labels = f'{{model_name="{self.model}",model_version="default",hostname="vm",}}'
        lines = [
            "# HELP ts_inference_requests_total Torchserve prometheus counter metric with unit: Count",
            f"ts_inference_requests_total{labels} {self.arrived}",
            'ts_inference_requests_total{model_name="other",model_version="default",hostname="vm",} 777.0',
            f"ts_inference_latency_microseconds{labels} {self.rest_us}",
            f"ts_queue_latency_microseconds{labels} {self.queue_us}",
            f'WorkerThreadTime{{Level="Host",Hostname="vm",}} {self.thread_ms}',
            'PredictionTime{ModelName="other",Level="Model",Hostname="vm",} 9000.0',
        ]
        if self.handler_ms is not None:
            lines.append(f'PredictionTime{{ModelName="{self.model}",Level="Model",Hostname="vm",}} {self.handler_ms}')
        return "\n".join(lines) + "\n"


@dataclass
class FakeBalancer:
    """HAProxy's exporter for one model."""

    model: str = "m"
    rest: float = 0
    grpc: float = 0
    sessions: float = 0
    queued: float = 0
    metrics: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.params["scope"] == "backend"
        return httpx.Response(200, text=self.metrics if self.metrics is not None else self._metrics())

    def _metrics(self) -> str:
        lines = ["# TYPE haproxy_backend_sessions_total counter"]
        for proxy, requests in ((f"rest_{self.model}", self.rest), (f"grpc_{self.model}", self.grpc), ("other", 9e9)):
            lines.append(f'haproxy_backend_sessions_total{{proxy="{proxy}"}} {requests}')
        lines.append(f'haproxy_backend_current_sessions{{proxy="rest_{self.model}"}} {self.sessions}')
        lines.append(f'haproxy_backend_current_sessions{{proxy="grpc_{self.model}"}} 0')
        lines.append(f'haproxy_backend_current_queue{{proxy="rest_{self.model}"}} {self.queued}')
        return "\n".join(lines) + "\n"


@dataclass
class FakeNetwork:
    """Hosts by name."""

    hosts: dict[str, Callable[[httpx.Request], httpx.Response]] = field(default_factory=dict)

    def transport(self) -> httpx.BaseTransport:
        """Stands in for the network."""
        return httpx.MockTransport(lambda request: self.hosts[request.url.host](request))


@contextlib.contextmanager
def listening(host: Callable[[httpx.Request], httpx.Response]) -> Iterator[str]:
    """A fake host on a port of this machine, for what runs in another process; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = host(httpx.Request(self.command, f"http://host{self.path}"))
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        do_PUT = do_GET  # noqa: N815 - of http.server

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
