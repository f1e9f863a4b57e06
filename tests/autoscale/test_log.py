"""The log must show each change and signs of life, and never stop a controller."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from suffuse.autoscale.controller import Event
from suffuse.autoscale.log import HEARTBEAT_S, DecisionLog
from suffuse.autoscale.policy import Signals

EVENT = Event(datetime(2026, 1, 2, tzinfo=UTC), "m", 4, "load", Signals(50.0, 0.04, 7, 2, 2, 1), {"a": (2, 3)}, {})


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def reasons(path: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in path.read_text("utf-8").splitlines()]


def test_changes_are_written_and_repetitions_are_not(path: Path, clock: Clock) -> None:
    log = DecisionLog(path, clock)

    for event in (
        EVENT,
        replace(EVENT, signals=Signals(51.0, 0.05, 3, 1, 2, 1)),
        replace(EVENT, reason="more", wished=5),
        replace(EVENT, reason="ready", wished=5, servers={"a": (3, 3)}),
        replace(EVENT, reason="error", wished=5, servers={}, errors={"a": "down"}),
        replace(EVENT, reason="unreadable", wished=5, servers={}, errors={"a": "down"}),
    ):
        log.observe(event)

    assert reasons(path) == ["load", "more", "ready", "error", "unreadable"]


def test_silence_has_an_end(path: Path, clock: Clock) -> None:
    log = DecisionLog(path, clock)
    log.observe(EVENT)
    clock.now_s = HEARTBEAT_S - 0.1
    log.observe(EVENT)
    clock.now_s = HEARTBEAT_S

    log.observe(EVENT)

    assert reasons(path) == ["load", "load"]


def test_file_that_was_moved_away_is_begun_anew(path: Path, clock: Clock) -> None:
    log = DecisionLog(path, clock)
    log.observe(EVENT)
    path.rename(path.with_suffix(".old"))

    log.observe(replace(EVENT, wished=5, reason="more"))

    assert reasons(path) == ["more"]


def test_stderr_is_the_log_unless_a_file_is_named(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    DecisionLog(None, clock).observe(EVENT)

    assert capsys.readouterr().err == EVENT.as_json() + "\n"


def test_file_that_cannot_be_written_is_complained_of_and_no_more(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    DecisionLog(tmp_path, clock).observe(EVENT)

    message = f"suffuse: {tmp_path}: a decision could not be logged: [Errno 21] Is a directory: '{tmp_path}'\n"
    assert capsys.readouterr().err == message
