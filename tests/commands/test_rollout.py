"""`suffuse rollout` from its options to what it refuses, and what it prints."""

import json
import re
from pathlib import Path

import pytest
from tests.balancing.rollout_fakes import World, write_archive

from suffuse.balancing import fleet
from suffuse.cli import main


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """What `--stack` leads to, whatever folder it names."""
    made = World.make(tmp_path)
    monkeypatch.setattr(fleet, "fleet_of_state", lambda *_: made.fleet())
    return made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "rollout takes either --stack FOLDER or --server URL; got neither"),
        (["--stack", "s", "--server", "http://h:1"], "rollout takes either --stack FOLDER or --server URL; got both"),
        (
            ["--server", "http://h:1"],
            "rollout --server needs --model-store FOLDER, the one that the servers load from",
        ),
        (
            ["--server", "http://h:1", "--model-store", "store", "--key-file", "a", "b"],
            "got 1 servers and 2 key files; expected one for each, or none",
        ),
        (["--stack", "s", "--max-errors", "-1"], "limit errors is -1; expected a number from 0"),
        (
            ["--stack", "s", "--rows", "none.csv"],
            "none.csv: no such file or folder; expected an existing one, relative to the current folder",
        ),
    ],
)
def test_options_that_make_no_sense_are_bad_input(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "m", "new.mar", *options]) == 2
    assert capsys.readouterr().err == f"suffuse: {message}\n"


def test_summary_goes_to_stdout_and_steps_to_stderr(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_archive(tmp_path / "new.mar", "2.0")

    status = main(["rollout", "m", str(new), "--stack", "s", "--canary-seconds", "0", "--drain-seconds", "0"])

    out, error = capsys.readouterr()
    assert status == 0
    assert json.loads(out)["to"] == "2.0"
    assert error.splitlines() == [
        "i1: version 2.0 starts",
        "i2: version 2.0 starts",
        "version 2.0 answers on every server",
        "i1: version 1.0 is gone",
        "i2: version 1.0 is gone",
    ]


def test_rollback_is_a_failure_in_one_line(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.client.answers = {"2.0": {"label": "bad"}}
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a warm, funny film"}\n' * 2, "utf-8")
    new = write_archive(tmp_path / "new.mar", "2.0")

    status = main(["rollout", "m", str(new), "--stack", "s", "--rows", str(rows), "--drain-seconds", "0"])

    out, error = capsys.readouterr()
    assert (status, out) == (1, "")
    assert re.search(
        r"^suffuse: version 2\.0 of model 'm' was rolled back, version 1\.0 is served: compared on 2 rows: .*\n\Z",
        error,
        re.MULTILINE,
    )
