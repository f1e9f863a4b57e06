"""A version takes over on every server or on none, whatever goes wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.balancing.rollout_fakes import FakeServer, World, spare_the_waiting, write_archive

from suffuse.balancing.rollout import RolledBackError, Rollout, RolloutSettings
from suffuse.errors import AnswerError, InputError, ServerError

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


def rolled_back(why: str) -> str:
    return f"^version 2.0 of model 'm' was rolled back, version 1.0 is served: {re.escape(why)}$"


def test_good_version_takes_over_on_every_server(world: World, new: Path) -> None:
    summary = rollout(world, rows=ROWS).run(new)

    assert world.stands_at(*AFTER)
    assert {key: summary[key] for key in ("model", "from", "to", "servers")} == {
        "model": "m",
        "from": "1.0",
        "to": "2.0",
        "servers": ["i1", "i2"],
    }
    assert summary["side_by_side"]["rows"] == 3
    assert summary["canary"]["failed"] == 0


def test_no_client_meets_the_new_version_before_it_is_ready_everywhere(world: World, new: Path) -> None:
    ready: list[bool] = []

    def look(_: FakeServer, line: str) -> None:
        if line.endswith("2.0/set-default"):
            ready.append(all("2.0" in server.versions for server in world.servers))

    world.servers[0].before = world.servers[1].before = look
    rollout(world).run(new)

    assert len(ready) >= 3
    assert all(ready)


def test_new_version_gets_as_many_workers_as_the_old_one_has(world: World, new: Path) -> None:
    world.servers[1].versions["1.0"].workers = 3

    rollout(world).run(new)

    assert [server.versions["2.0"].workers for server in world.servers] == [1, 3]


def test_canary_answers_by_turns_so_that_the_new_version_has_its_share(world: World, new: Path) -> None:
    summary = rollout(world, RolloutSettings(canary_s=0.2, drain_s=0.0)).run(new)

    assert {"1.0", "2.0"} == set(world.admin.versions_seen)
    assert summary["canary"]["share"] == pytest.approx(0.1, abs=0.03)


def test_canary_goes_on_while_too_few_answers_were_timed(
    world: World, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_little = iter([True, True, False])
    monkeypatch.setattr("suffuse.balancing.rollout.is_too_little", lambda *_: next(too_little))
    told: list[str] = []

    rollout(world, tell=told.append).run(new)

    assert told.count("i1: canary for 0.02 s more, since few requests came") == 2


def test_canary_says_when_it_cannot_judge_latency(world: World, new: Path) -> None:
    settings = replace(SETTINGS, limits=replace(SETTINGS.limits, requests=1_000_000))
    told: list[str] = []

    summary = Rollout(world.fleet(), world.store, settings, tell=told.append).run(new)

    assert [line for line in told if re.fullmatch(r"i1: latency is not judged, since \d+ answers .* timed", line)]
    assert summary["canary"]["latency_ratio_mean"] is None


def test_single_server_without_balancer_is_compared_and_switched(tmp_path: Path, new: Path) -> None:
    world = World.make(tmp_path, names=("one",))

    summary = Rollout(world.fleet(balanced=False), world.store, SETTINGS, rows=ROWS).run(new)

    assert world.stands_at(*AFTER)
    assert summary["canary"] is None


def test_version_whose_worker_ends_is_rolled_back_with_what_it_wrote_last(
    world: World, new: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "config.properties").write_text("", "utf-8")
    log = state / "workers.log"
    log.write_text(
        "2026 W-9000-m_1.0-stdout - of another version\n"
        "2026 W-9001-m_2.0-stdout - Traceback (most recent call last):\n"
        "2026 W-9001-m_2.0-stdout -   File handler.py, line 6, in initialize\n"
        "2026 W-9001-m_2.0-stdout - ValueError: no weights here\n"
        "2026 W-9001-m_2.0-stdout - the next worker starts\n",
        "utf-8",
    )

    def fail(server: FakeServer, line: str) -> None:
        if line == "PUT /models/m/2.0":
            server.versions["2.0"].pids = [0, 7, 7, 0, 8]
            server.versions["2.0"].ready = False

    world.servers[0].before = fail
    told: list[str] = []
    expected = rolled_back(
        "version 2.0 of model 'm' on i1: a worker ended while it loaded the model: ValueError: no weights here "
        f"(log: {log})"
    )

    with pytest.raises(RolledBackError, match=expected):
        Rollout(world.fleet(state=state), world.store, SETTINGS, tell=told.append).run(new)

    assert world.stands_at(*BEFORE)
    assert world.servers[1].versions.keys() == {"1.0"}
    assert any(line.endswith("handler.py, line 6, in initialize\nValueError: no weights here") for line in told)


def test_version_that_is_never_ready_is_rolled_back(world: World, new: Path) -> None:
    world.servers[1].never_ready.add("2.0")
    expected = rolled_back(
        "version 2.0 of model 'm' on i2: 0 of 1 workers are ready after 0.05 s; TorchServe's workers.log says why"
    )

    with pytest.raises(RolledBackError, match=expected):
        rollout(world).run(new)

    assert world.stands_at(*BEFORE)


def test_version_that_answers_otherwise_is_rolled_back_before_a_client_meets_it(world: World, new: Path) -> None:
    world.client.answers = {"2.0": {"label": "bad", "score": 0.9}}
    expected = rolled_back("compared on 3 rows: 3 of 3 (100.0%) rows are answered otherwise, limit 10.0%")

    with pytest.raises(RolledBackError, match=expected):
        rollout(world, rows=ROWS).run(new)

    assert world.stands_at(*BEFORE)
    assert not any(line.endswith("/2.0/set-default") for server in world.servers for line in server.lines)


def test_version_that_cannot_answer_rows_is_rolled_back(world: World, new: Path) -> None:
    world.client.answers = {"2.0": AnswerError("no text", code="missing_field", status=422)}
    expected = rolled_back(
        "compared on 3 rows: 3 of 3 (100.0%) rows failed, limit 1.0%; the first: missing_field (status 422)"
    )

    with pytest.raises(RolledBackError, match=expected):
        rollout(world, rows=ROWS).run(new)


def test_version_that_fails_in_the_traffic_is_rolled_back(world: World, new: Path) -> None:
    world.admin.failing.add("2.0")

    with pytest.raises(RolledBackError, match=r"as a canary: \d+ of \d+ \(\d+\.\d%\) requests failed, of the old ver"):
        rollout(world).run(new)

    assert world.stands_at(*BEFORE)


def test_canary_that_starts_again_is_rolled_back(world: World, new: Path) -> None:
    def start_again(server: FakeServer, line: str) -> None:
        if server.default == "2.0" and line == "GET /models/m/2.0":
            server.start()

    world.servers[0].before = start_again
    expected = rolled_back("i1 has lost version 2.0; was it started anew during the canary?")

    with pytest.raises(RolledBackError, match=expected):
        rollout(world).run(new)

    assert world.stands_at(*BEFORE)


def test_server_that_starts_again_just_before_the_switch_gets_the_new_version_all_the_same(
    world: World, new: Path
) -> None:
    restarts: list[str] = []

    def start_again(server: FakeServer, line: str) -> None:
        if not restarts and all(s.default == "2.0" for s in world.servers) and line == "GET /models/m":
            restarts.append(server.name)
            server.default, server.versions = "1.0", {"1.0": server.versions["1.0"]}

    world.servers[1].before = start_again
    rollout(world).run(new)

    assert restarts == ["i2"]
    assert world.stands_at(*AFTER)


def down(world: World) -> None:
    world.servers[1].up = False


def other_default(world: World) -> None:
    world.servers[1].default = "0.9"
    world.servers[1].versions["0.9"] = world.servers[1].versions["1.0"]


def has_it(world: World) -> None:
    world.servers[1].versions["2.0"] = world.servers[1].versions["1.0"]


def no_worker(world: World) -> None:
    world.servers[1].versions["1.0"].ready = False


def drained(world: World) -> None:
    world.admin.status["i2"] = "DRAIN"


def unknown(world: World) -> None:
    del world.admin.status["i2"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (down, "http://i2/models/m: no connection (Connection refused); is `suffuse serve` running there?"),
        (other_default, "it answers by version 0.9, and the model store has 1.0; start it again"),
        (has_it, "it has a version 2.0 already, which no rollout left; unregister it, or take another number"),
        (no_worker, "no worker of version 1.0 is ready; wait for one, or start the server again"),
        (drained, "HAProxy calls it DRAIN in rest_m; expected UP: wait, or end its drain"),
        (unknown, "HAProxy does not know it in rest_m; expected UP: wait, or end its drain"),
    ],
)
def test_server_that_is_not_fit_is_named_before_anything_is_changed(
    world: World,
    new: Path,
    fault: Callable[[World], None],
    why: str,
) -> None:
    fault(world)

    with pytest.raises(ServerError, match=f"^{re.escape(f'i2: {why}; nothing was changed')}$"):
        rollout(world).run(new)

    assert world.files == BEFORE[1]
    assert all(line.startswith("GET") for server in world.servers for line in server.lines)


def test_full_disk_changes_nothing(world: World, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fill)

    with pytest.raises(ServerError, match=r"\(No space left on device\); nothing was changed"):
        rollout(world).run(new)

    assert world.stands_at(*BEFORE)


def test_rows_without_an_address_to_ask_are_refused(world: World, new: Path) -> None:
    fleet = world.fleet()
    fleet.members[0]._client = None
    expected = (
        "rows cannot be compared: the servers were given by their management ports alone; expected --stack FOLDER, or "
        "no --rows"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        Rollout(fleet, world.store, SETTINGS, rows=ROWS).run(new)


def test_version_that_was_kept_can_be_brought_back(world: World, new: Path) -> None:
    rollout(world).run(new)

    rollout(world).run(world.store.folder / ".m-1.0.mar")

    assert world.stands_at("1.0", [".m-2.0.mar", "m.mar"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canary_share": 0.0}, "the canary's share is 0; expected more than 0, and 0.5 at most"),
        ({"canary_share": 0.6}, "the canary's share is 0.6; expected more than 0, and 0.5 at most"),
        ({"drain_s": -1.0}, "drain_s is -1; expected seconds, from 0"),
        ({"ready_s": float("nan")}, "ready_s is nan; expected seconds, from 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        RolloutSettings(**settings)  # type: ignore[arg-type]
