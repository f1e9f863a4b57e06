"""A rollout that is stopped undoes what it did; one that is killed, or cannot undo it, leaves that to the next one."""

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.balancing.rollout_fakes import FakeServer, KilledError, World, spare_the_waiting, write_archive

from suffuse.balancing.rollout import Interruption, RolledBackError, Rollout, RolloutSettings
from suffuse.errors import InputError, ServerError

BEFORE = ("1.0", ["m.mar"])
AFTER = ("2.0", [".m-1.0.mar", "m.mar"])
SETTINGS = RolloutSettings(canary_s=0.02, drain_s=0.0, ready_s=0.05, drain_limit_s=0.0)
ROWS = [{"text": "a warm, funny film"}] * 3


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_the_waiting(monkeypatch)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "new.mar", "2.0")


def rollout(world: World, settings: RolloutSettings = SETTINGS, **more: Any) -> Rollout:  # noqa: ANN401 - passed on
    return Rollout(world.fleet(), world.store, settings, **more)


@pytest.mark.parametrize("number", range(0, 60, 3))
def test_interruption_at_any_moment_leaves_all_as_before_or_all_switched(world: World, new: Path, number: int) -> None:
    interruption = Interruption()

    def interrupt(_: FakeServer, _line: str) -> None:
        if world.life.calls >= number:
            interruption.wish()

    for server in world.servers:
        server.before = interrupt
    with contextlib.suppress(RolledBackError):
        rollout(world, rows=ROWS, interruption=interruption).run(new)

    assert world.stands_at(*AFTER) if world.store.present_version() == "2.0" else world.stands_at(*BEFORE)


def test_interruption_is_the_reason_that_is_given(world: World, new: Path) -> None:
    interruption = Interruption()
    interruption.wish()

    with pytest.raises(RolledBackError, match=r"version 1\.0 is served: it was interrupted$"):
        rollout(world, rows=ROWS, interruption=interruption).run(new)


def calls_of_a_rollout(folder: Path) -> int:
    world = World.make(folder)
    rollout(world, RolloutSettings(canary_s=1e-9, drain_s=0.0)).run(write_archive(folder / "new.mar", "2.0"))
    return world.life.calls


def test_rollout_killed_at_any_moment_is_put_right_by_the_next_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = RolloutSettings(canary_s=1e-9, drain_s=0.0)
    total = calls_of_a_rollout(tmp_path_factory.mktemp("whole"))
    assert total > 40
    for last in range(1, total + 1):
        folder = tmp_path_factory.mktemp("killed")
        world, new = World.make(folder), write_archive(folder / "new.mar", "2.0")
        world.life.last = last
        with pytest.raises(KilledError):
            rollout(world, settings).run(new)
        world.life.last = None

        for server in world.servers:
            assert server.default in server.versions
        with contextlib.suppress(InputError):  # version 2.0 is there: it was killed after its last change
            rollout(world, settings).run(new)

        assert world.stands_at(*AFTER), f"killed at call {last}: {world}"


def test_killed_rollout_is_undone_before_another_version_comes(world: World, new: Path, tmp_path: Path) -> None:
    world.life.last = 20
    with pytest.raises(KilledError):
        rollout(world).run(new)
    world.life.last = None
    told: list[str] = []

    summary = rollout(world, tell=told.append).run(write_archive(tmp_path / "newer.mar", "3.0"))

    assert told[0] == "undoing an earlier rollout from version 1.0 to 2.0"
    assert (summary["from"], summary["to"]) == ("1.0", "3.0")
    assert world.stands_at("3.0", [".m-1.0.mar", "m.mar"])


def test_what_cannot_be_undone_is_said_and_is_undone_by_the_next_run(world: World, new: Path) -> None:
    world.admin.failing.add("2.0")

    def vanish(_: FakeServer, line: str) -> None:
        world.servers[1].up = not line.endswith("/2.0/set-default") and world.servers[1].up

    world.servers[0].before = vanish
    expected = (
        "; still to be put right, by the same command run again: i2: http://i2/models/m/1.0: no connection (Connection "
        "refused); is `suffuse serve` running there?"
    )
    with pytest.raises(RolledBackError, match=f"{re.escape(expected)}$"):
        rollout(world).run(new)
    world.admin.failing.clear()
    world.servers[0].before = lambda *_: None
    world.servers[1].up = True

    rollout(world).run(new)

    assert world.stands_at(*AFTER)


def test_old_version_with_requests_waiting_stays_until_they_are_answered(world: World, new: Path) -> None:
    world.servers[1].versions["1.0"].pending = [1] * 1000
    expected = (
        "version 2.0 of model 'm' is in service; still to be put right, by the same command run again: i2: version 1.0 "
        "of model 'm' on i2 still has 1 requests waiting after 0 s; it stays until they are answered, since they would "
        "hang without it: run the same command again later"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        rollout(world).run(new)
    assert world.versions == [("2.0", ["2.0"]), ("2.0", ["1.0", "2.0"])]

    world.servers[1].versions["1.0"].pending = []
    summary = rollout(world).run(new)

    assert summary["repaired"]
    assert world.stands_at(*AFTER)


def test_version_without_workers_does_not_hold_up_a_rollback(world: World, new: Path) -> None:
    world.admin.failing.add("2.0")

    def die(server: FakeServer, _: str) -> None:
        if server.default == "2.0":
            server.versions["2.0"].pending = [5] * 100
            server.versions["2.0"].ready = False

    world.servers[0].before = die
    with pytest.raises(RolledBackError):
        rollout(world).run(new)

    assert world.stands_at(*BEFORE)


def test_pause_ends_at_a_wish_from_another_thread() -> None:
    interruption = Interruption()
    thread = threading.Timer(0.01, interruption.wish)
    thread.start()

    with pytest.raises(ServerError, match=r"^it was interrupted$"):
        interruption.pause(60.0)
    thread.join()
