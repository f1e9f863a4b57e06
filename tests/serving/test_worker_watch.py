"""A worker that is gone must be found though TorchServe calls it READY, and no other be taken for one."""

import re
from collections.abc import Callable

import httpx
import pytest

from suffuse.errors import ServerError
from suffuse.serving.management import Management, ModelState, Worker
from suffuse.serving.worker_watch import LOOK_S, PATIENCE_S, Loss, WorkerWatch, restart_lost


class World:
    """A TorchServe with one model, its processes, and a clock."""

    def __init__(self) -> None:
        self.workers = [("9000", 1, "READY"), ("9001", 2, "READY"), ("9002", 3, "READY")]
        self.running = {1, 2, 3}
        self.now_s = 0.0
        self.answers = True
        self.refusals: list[str] = []
        self.changes: list[str] = []

    def reply(self, request: httpx.Request) -> httpx.Response:
        if not self.answers:
            raise httpx.ConnectError("refused")
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": "m"}]})
        if request.method == "PUT":
            asked = request.url.params["min_worker"]
            if asked in self.refusals:
                return httpx.Response(500, json={"code": 500, "type": "X", "message": "the queue is full"})
            self.changes.append(f"{request.url.path} {asked}")
            return httpx.Response(202, json={})
        workers = [{"id": id_, "pid": pid, "status": status} for id_, pid, status in self.workers]
        model = {"modelName": "m", "modelVersion": "1.0", "minWorkers": 3, "maxWorkers": 3, "batchSize": 1}
        return httpx.Response(200, json=[{**model, "maxBatchDelay": 1, "workers": workers}])


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def management(world: World) -> Management:
    return Management("http://server:1", transport=httpx.MockTransport(world.reply))


@pytest.fixture
def losses_after(world: World, management: Management) -> Callable[[float], list[str]]:
    """What has been found by the end of so many seconds, looked for as `Server.wait` does."""
    watch = WorkerWatch(management, lambda: world.running, lambda: world.now_s)

    def look(seconds: float) -> list[str]:
        found: list[str] = []
        for _ in range(round(seconds / 0.25)):
            world.now_s += 0.25
            found = [str(loss) for loss in watch.look()] or found
        return found

    return look


def test_worker_whose_process_is_gone_is_lost(world: World, losses_after: Callable[[float], list[str]]) -> None:
    world.running.remove(2)

    assert losses_after(PATIENCE_S + 2 * LOOK_S) == [
        "model 'm', version 1.0: TorchServe calls worker 9001 (process 2) READY, and there is no such process"
    ]


def test_worker_that_has_just_died_is_left_to_torchserve(
    world: World, losses_after: Callable[[float], list[str]]
) -> None:
    world.running.remove(2)
    early = losses_after(PATIENCE_S)
    world.workers[1] = ("9001", 2, "UNLOADED")
    losses_after(LOOK_S)
    world.workers[1] = ("9001", 7, "READY")

    assert early + losses_after(PATIENCE_S) == []


def test_worker_that_starts_is_not_lost(world: World, losses_after: Callable[[float], list[str]]) -> None:
    world.workers[0] = ("9000", 0, "LOADING")
    world.running = {2, 3}

    assert losses_after(3 * PATIENCE_S) == []


def test_silent_server_has_lost_none(world: World, losses_after: Callable[[float], list[str]]) -> None:
    world.answers = False
    world.running = set()

    assert losses_after(3 * PATIENCE_S) == []


def loss(management: Management, *indexes: int) -> Loss:
    state = management.describe("m")
    return Loss(state, tuple(state.workers[index] for index in indexes))


@pytest.mark.parametrize(("lost", "kept"), [((0,), 0), ((2,), 2), ((1, 2), 1)])
def test_lost_workers_and_later_ones_are_started_anew(
    world: World, management: Management, lost: tuple[int, ...], kept: int
) -> None:
    restart_lost(management, loss(management, *lost))

    assert world.changes == [f"/models/m/1.0 {kept}", "/models/m/1.0 3"]


@pytest.mark.parametrize("refused", ["0", "3"])
def test_refusal_is_an_error_that_names_the_worker(world: World, management: Management, refused: str) -> None:
    world.refusals.append(refused)
    expected = (
        "model 'm', version 1.0: TorchServe calls worker 9000 (process 1) READY, and there is no such process; it "
        "cannot be started anew: http://server:1/models/m/1.0: the queue is full (status 500)"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        restart_lost(management, loss(management, 0))


def test_all_that_is_lost_is_named() -> None:
    workers = (Worker("9000", 1, "READY"), Worker("9001", 2, "READY"))

    told = str(Loss(ModelState("m", "2", 2, 2, 1, 1, workers, 0, 9), workers))

    assert told.startswith("model 'm', version 2: TorchServe calls worker 9000 (process 1), 9001 (process 2) READY")
