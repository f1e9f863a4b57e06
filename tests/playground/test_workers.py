"""The panel says how a server stands, or that it does not say; it asks no more often than it must."""

import json

import httpx
import pytest

from suffuse.playground import workers
from suffuse.playground.workers import Workers
from suffuse.serving.management import Management

MODEL = {
    "modelName": "tiny<",
    "modelVersion": "1.0",
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 8,
    "maxBatchDelay": 1,
    "workers": [{"id": "1", "pid": 5, "status": "READY"}, {"id": "2", "pid": 6, "status": "LOADING"}],
    "jobQueueStatus": {"pendingRequests": 3, "remainingCapacity": 97},
}


class Server:
    """Counts requests, and answers as TorchServe does while it is up."""

    def __init__(self) -> None:
        self.requests = 0
        self.is_up = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if not self.is_up:
            raise httpx.ConnectError("refused", request=request)
        content = {"models": [{"modelName": "tiny<"}]} if request.url.path == "/models" else [MODEL]
        return httpx.Response(200, text=json.dumps(content))


def watched(server: Server) -> Workers:
    return Workers(Management("http://127.0.0.1:1", transport=httpx.MockTransport(server)))


def test_the_panel_has_workers_and_waiting_requests() -> None:
    html = watched(Server()).panel()

    assert "tiny&lt; 1.0" in html
    assert '<i class="ready" title="READY"></i><i class="" title="LOADING"></i> 1 of 2 ready' in html
    assert "<td>3 of 100</td>" in html
    assert html.count("<rect") == 1


def test_a_server_that_is_gone_is_said_kindly() -> None:
    server = Server()
    server.is_up = False

    html = watched(server).panel()

    assert "The server does not say how it stands." in html
    assert "is `suffuse serve` running there?" in html


def test_pages_that_look_together_ask_once() -> None:
    server = Server()
    panel = watched(server)

    assert panel.panel() == panel.panel()
    assert server.requests == 2


def test_a_minute_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_FRESH_S", -1.0)
    panel = watched(Server())

    html = [panel.panel() for _ in range(workers.KEPT + 5)][-1]

    assert html.count("<rect") == workers.KEPT
