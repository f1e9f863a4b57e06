"""The new version must have its share and no more, and be charged with what it did and nothing else."""

from pathlib import Path

import pytest
from tests.balancing.rollout_fakes import FakeVersion, World

from suffuse.balancing.canary import Traffic
from suffuse.balancing.fleet import Fleet
from suffuse.balancing.model_store import Change
from suffuse.balancing.watch import Watch
from suffuse.errors import ServerError

CHANGE = Change("1.0", "2.0")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World.make(tmp_path)
    for server in made.servers:
        server.versions["2.0"] = FakeVersion()
    return made


def watch_of(fleet: Fleet, share: float) -> Watch:
    assert fleet.balancer is not None
    return Watch(fleet, fleet.balancer, CHANGE, share)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_share_is_held(world: World, share: float) -> None:
    watch = watch_of(world.fleet(), share)

    for _ in range(200):
        watch.look()

    assert watch.new.requests / (watch.new + watch.old).requests == pytest.approx(share, abs=0.01)


def test_one_server_gives_its_part_of_the_traffic_at_most(world: World) -> None:
    watch = watch_of(world.fleet(), 0.9)

    for _ in range(200):
        watch.look()

    assert watch.new.requests / (watch.new + watch.old).requests == pytest.approx(0.5, abs=0.01)


def test_failures_are_those_of_the_version_that_answered(world: World) -> None:
    world.admin.failing.add("2.0")
    watch = watch_of(world.fleet(), 0.1)

    for _ in range(50):
        watch.look()

    assert watch.new.failed_share == 1.0
    assert watch.old.failed == 0


def test_time_is_counted_for_the_version_that_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = world.fleet()
    canary, other = fleet.members
    total = {"canary": Traffic(), "other": Traffic()}

    def serve() -> None:
        by_new = world.servers[0].default == "2.0"
        total["canary"] += Traffic(answered=10, seconds=5.0 if by_new else 1.0)
        total["other"] += Traffic(answered=10, seconds=1.0)

    monkeypatch.setattr(canary, "work", lambda: total["canary"])
    monkeypatch.setattr(other, "work", lambda: total["other"])
    watch = watch_of(fleet, 0.1)
    watch.look()
    serve()  # the first answers are not counted
    watch.start_clock()
    for _ in range(40):
        watch.look()
        serve()
    watch.stop_clock()

    assert watch.new.mean_s == pytest.approx(0.5)
    assert watch.old.mean_s == pytest.approx(0.1)
    assert watch.old.answered == 400


def test_canary_without_the_new_version_is_found_out(world: World) -> None:
    watch = watch_of(world.fleet(), 0.1)
    watch.look()
    world.servers[0].start()

    with pytest.raises(ServerError, match=r"^i1 has lost version 2\.0; was it started anew during the canary\?$"):
        watch.look()
