"""Numbers of workers come from whoever knows them, and a source that knows none is refused before the load."""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from suffuse.errors import InputError
from suffuse.load_test.workers import Workers, WorkersWatch, workers_in

AUTOSCALER = """# HELP suffuse_ready_workers Workers that take requests
# TYPE suffuse_ready_workers gauge
suffuse_ready_workers{model="sentiment"} 3.0
suffuse_ready_workers{model="other"} 5.0
suffuse_wished_workers{model="sentiment"} 4.0
"""
HAPROXY = """haproxy_backend_active_servers{proxy="rest_sentiment"} 2
haproxy_backend_active_servers{proxy="grpc_sentiment"} 2
haproxy_backend_active_servers{proxy="rest_other"} 1
"""


@pytest.mark.parametrize(("metrics", "count"), [(AUTOSCALER, 3), (HAPROXY, 2), ("up 1\n", None), ("<html>", None)])
def test_workers_are_found_in_metrics(metrics: str, count: float | None) -> None:
    assert workers_in(metrics, "sentiment") == count


def test_what_did_not_answer_is_left_out_of_the_total() -> None:
    workers = Workers(("a", "b"), (0.0, 1.0, 2.0), ((1, 2), (None, 2), (None, None)))

    assert workers.totals == [3, 2, None]


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open, so that one that is left open is noticed

    def do_GET(self) -> None:
        workers = [{"id": "1", "pid": 1, "status": "READY"}, {"id": "2", "pid": 2, "status": "UNLOADED"}]
        model = {
            "modelName": "sentiment", "modelVersion": "1.0", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1,
            "maxBatchDelay": 1, "workers": workers, "jobQueueStatus": {},
        }  # fmt: skip
        body = {"/models/sentiment": json.dumps([model]), "/metrics": AUTOSCALER}.get(self.path)
        content = (body or "{}").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_several_sources_are_read_until_stopped(url: str) -> None:
    watch = WorkersWatch([url, f"{url}/metrics"], "sentiment")
    watch.start()

    workers = watch.stop(time.time() - 5)

    assert workers.sources == (url, f"{url}/metrics")
    assert set(workers.counts) == {(1, 3.0)}
    assert workers.times_s[0] == pytest.approx(5, abs=1)


def test_without_sources_there_is_nothing() -> None:
    watch = WorkersWatch([], "sentiment")
    watch.start()

    assert watch.stop(0) == Workers()


@pytest.mark.parametrize("path", ["", "/nothing/metrics"])
def test_source_that_knows_no_workers_is_refused(url: str, path: str) -> None:
    message = (
        f"{url}{path}: no number of workers of model 'other model' can be read there; expected the management address "
        "of a TorchServe, or metrics of `suffuse autoscale` or HAProxy, which end in /metrics"
    )

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        WorkersWatch([url + path], "other model")


def test_source_that_is_no_address_is_refused() -> None:
    message = "'8081' is no address of workers; expected http://HOST:PORT or http://HOST:PORT/metrics"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        WorkersWatch(["8081"], "m")
