"""A real TorchServe under the autoscaler: workers come with a load and go after it, and no request is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from suffuse.autoscale.beside import AutoscalerProcess
from suffuse.serving.management import Management
from suffuse.serving.server import Server, ServerConfig

HANDLER = """
import json, time

class Slow:
    def initialize(self, context):
        pass

    def handle(self, requests, context):
        time.sleep(0.1)
        return [json.dumps({"answer": True}) for _ in requests]
"""


@pytest.fixture
def slow(tmp_path: Path, on_free_ports: Callable[[ServerConfig], ServerConfig]) -> Iterator[Server]:
    """A server with one worker, which takes 100 ms for a request."""
    handler, config, store = tmp_path / "slow_handler.py", tmp_path / "config.yaml", tmp_path / "store"
    handler.write_text(HANDLER, "utf-8")
    config.write_text("minWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\nmaxBatchDelay: 1\n", "utf-8")
    store.mkdir()
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    options = {"model-name": "slow", "version": "1.0", "handler": handler, "config-file": config, "export-path": store}
    subprocess.run([archiver, *(f"--{name}={value}" for name, value in options.items())], check=True)
    with Server(on_free_ports(ServerConfig(store, threads=1, state=tmp_path / "s"))) as running:
        yield running


class Load:
    """Clients that ask again and again, inside; `statuses` are those of all answers."""

    def __init__(self, server: Server, clients: int) -> None:
        key = json.loads(server.key_file.read_text("utf-8"))["inference"]["key"]
        self.statuses: list[int] = []
        self._http = httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=30
        )
        self._ended = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._ended.is_set():
            self.statuses.append(self._http.post("/predictions/slow", json={}).status_code)

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for client in self._clients:
            client.join()
        self._http.close()


def test_workers_follow_the_load_through_the_death_of_the_autoscaler(slow: Server, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    options = ("--spare", "0", "--server-metrics", slow.metrics_url)

    def until(workers: int, limit_s: float) -> None:
        end_s = time.monotonic() + limit_s
        while (state := management.describe("slow")).ready_workers != workers or state.min_workers != workers:
            assert time.monotonic() < end_s, f"not {workers} workers but {state}; {log.read_text('utf-8')}"
            time.sleep(0.1)

    with (
        Management(slow.management_url, key_file=slow.key_file) as management,
        AutoscalerProcess([slow.management_url], [slow.key_file], (1, 2), 400, log, options=options) as autoscaler,
    ):
        with Load(slow, clients=4) as load:
            until(2, limit_s=60)
            os.kill(autoscaler.pid, signal.SIGKILL)
        until(1, limit_s=60)

    assert set(load.statuses) == {200}
    reasons = [json.loads(line)["reason"] for line in log.read_text("utf-8").splitlines()]
    assert {"maximum", "lower"} <= set(reasons)
