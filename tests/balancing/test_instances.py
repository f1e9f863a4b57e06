"""Instances must not get in each other's way, and come back by themselves whatever ends them."""

import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from suffuse.balancing.config import Instance
from suffuse.balancing.instances import InstanceKeeper, balanced, in_flight, instance_configs, recorded
from suffuse.balancing.record import InstanceRecord
from suffuse.errors import DeadlineError, ServerError
from suffuse.serving.management import ModelState, Worker
from suffuse.serving.settings import ServerConfig
from suffuse.serving.worker_watch import Loss


def write_archive(store: Path, name: str, config: str) -> None:
    model = {"modelName": name, "modelVersion": "1.0", "handler": "h.py", "configFile": "model-config.yaml"}
    with zipfile.ZipFile(store / f"{name}.mar", "w") as members:
        members.writestr("model-config.yaml", config)
        members.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model of two workers and batches of four, on a machine of 16 cores."""
    monkeypatch.setattr("suffuse.balancing.instances.available_cores", lambda: 16)
    write_archive(tmp_path, "m", "minWorkers: 2\nbatchSize: 4\n")
    return tmp_path


def test_instances_have_names_ports_and_folders_of_their_own(store: Path) -> None:
    configs = instance_configs(ServerConfig(store), 2, first_port=100, state=Path("/s"))

    ports = [port for config in configs.values() for _, port in config.listeners.values()]
    assert list(configs) == ["i1", "i2"]
    assert sorted(ports) == [100, 101, 102, 103, 104, 110, 111, 112, 113, 114]
    assert [config.state for config in configs.values()] == [Path("/s/i1"), Path("/s/i2")]


def test_instances_ask_for_no_key_and_listen_on_loopback_alone(store: Path) -> None:
    server = ServerConfig(store, host="10.0.0.1", management_host="10.0.0.1")

    (config,) = instance_configs(server, 1, first_port=100, state=Path("/s")).values()

    assert not config.authorization
    assert {host for host, _ in config.listeners.values()} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("server", "most_workers", "threads"),
    [({}, None, 4), ({}, 4, 2), ({"workers": 1}, None, 8), ({"workers": 40}, None, 1), ({"threads": 5}, 4, 5)],
)
def test_cores_are_shared_out_among_the_workers_of_all_instances(
    store: Path, server: dict[str, Any], most_workers: int | None, threads: int
) -> None:
    configs = instance_configs(
        ServerConfig(store, **server), 2, first_port=100, state=Path("/s"), most_workers=most_workers
    )

    assert {config.threads for config in configs.values()} == {threads}


@pytest.mark.parametrize(
    ("workers", "most_workers", "expected"), [(None, None, 16), (None, 4, 32), (1, None, 8), (100, None, 400)]
)
def test_two_batches_a_worker_are_in_flight(
    store: Path, workers: int | None, most_workers: int | None, expected: int
) -> None:
    assert in_flight(ServerConfig(store, workers=workers), most_workers) == expected


def test_instance_is_told_to_the_balancer_and_to_other_programs(store: Path) -> None:
    (config,) = instance_configs(ServerConfig(store), 1, first_port=100, state=Path("/s")).values()

    assert balanced("i1", config) == Instance("i1", "127.0.0.1", 100, 103, 101)
    assert recorded("i1", config) == InstanceRecord(
        "i1", "http://127.0.0.1:100", "grpc://127.0.0.1:103", "http://127.0.0.1:101", None
    )


# Keeping one running


class FakeServer:
    """Ready at once, until it is stopped or told to die; fails to start where `broken` says so."""

    made: ClassVar[list["FakeServer"]] = []
    broken: ClassVar[list[Exception]] = []
    refuses: ClassVar[bool] = False

    def __init__(self, _config: ServerConfig, on_loss: Callable[[Loss], None]) -> None:
        self.on_loss = on_loss
        self.started_anew: list[Loss] = []
        self.ready = False
        self.stopped = False
        self._ended = threading.Event()
        self._error: Exception | None = None
        self.made.append(self)

    def __enter__(self) -> "FakeServer":
        if self.broken:
            raise self.broken.pop(0)
        self.ready = not self._ended.is_set()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True

    def start_anew(self, loss: Loss) -> None:
        if self.refuses:
            raise ServerError("the queue is full")
        self.started_anew.append(loss)

    def wait(self) -> None:
        self._ended.wait(20.0)
        if self._error is not None:
            raise self._error

    def request_stop(self) -> None:
        self._ended.set()

    def die(self) -> None:
        self._error = ServerError("TorchServe ended by SIGKILL")
        self._ended.set()


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[InstanceKeeper]:
    monkeypatch.setattr(FakeServer, "made", [])
    monkeypatch.setattr(FakeServer, "broken", [])
    monkeypatch.setattr("suffuse.balancing.instances.Server", FakeServer)
    monkeypatch.setattr("suffuse.balancing.instances._FIRST_PAUSE_S", 0.01)
    keeper = InstanceKeeper("i1", ServerConfig(Path("store")))
    yield keeper
    keeper.request_stop()
    if keeper.is_alive():
        keeper.join(20.0)


def test_instance_that_dies_is_cleared_away_and_started_again(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)

    FakeServer.made[0].die()
    keeper.await_ready(20.0, beyond=1)

    assert (keeper.ready, keeper.starts, len(FakeServer.made)) == (True, 2, 2)
    assert FakeServer.made[0].stopped


def test_instance_is_started_again_on_request(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)

    keeper.start_again()
    ready_at_once = keeper.ready
    keeper.await_ready(20.0, beyond=1)

    assert (ready_at_once, keeper.ready, FakeServer.made[0].stopped) == (False, True, True)


def test_instance_that_does_not_come_back_is_tried_again(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)

    FakeServer.broken += [ServerError("port taken"), OSError("disk full")]
    FakeServer.made[0].die()
    keeper.await_ready(20.0, beyond=1)

    assert (keeper.starts, len(FakeServer.made)) == (2, 4)
    keeper.refuse_failed_start()


def test_first_start_that_fails_is_an_error(keeper: InstanceKeeper) -> None:
    FakeServer.broken += [ServerError("a worker ended while it loaded its model: no bundle")] * 100
    keeper.start()
    with pytest.raises(DeadlineError, match=r"^instance i1 is not ready after 0\.2 s: a worker ended while it loaded"):
        keeper.await_ready(0.2)
    expected = "instance i1: a worker ended while it loaded its model: no bundle"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        keeper.refuse_failed_start()


WORKER = Worker("9000", 1, "READY")
LOSS = Loss(ModelState("m", "1", 1, 1, 1, 1, (WORKER,), 0, 9), (WORKER,))


def test_loss_is_told_until_the_server_is_started_again(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)

    FakeServer.made[0].on_loss(LOSS)
    told = keeper.loss
    keeper.start_again()
    keeper.await_ready(20.0, beyond=1)

    assert (told, keeper.loss) == (LOSS, None)


def test_lost_workers_are_started_anew_in_the_running_server(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)
    FakeServer.made[0].on_loss(LOSS)

    keeper.restart_lost_workers()
    keeper.restart_lost_workers()

    assert (FakeServer.made[0].started_anew, keeper.loss, keeper.ready) == ([LOSS], None, True)


def test_server_that_cannot_start_lost_workers_is_started_again(
    keeper: InstanceKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "refuses", True)
    keeper.start()
    keeper.await_ready(20.0)
    FakeServer.made[0].on_loss(LOSS)

    keeper.restart_lost_workers()
    keeper.await_ready(20.0, beyond=1)

    assert (keeper.starts, FakeServer.made[0].stopped) == (2, True)


def test_stopped_instance_stays_stopped(keeper: InstanceKeeper) -> None:
    keeper.start()
    keeper.await_ready(20.0)

    keeper.request_stop()
    keeper.join(20.0)

    assert (keeper.is_alive(), keeper.ready, FakeServer.made[0].stopped, len(FakeServer.made)) == (
        False,
        False,
        True,
        1,
    )
