"""`suffuse plan` from its options to table, JSON and picture."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from suffuse.autoscale.service_time import Limits, Profile, ServiceTime
from suffuse.commands import plan
from suffuse.errors import DataError, InputError

SHORT = ("--duration", "40", "--max-workers", "3")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    service = ServiceTime(Limits(512, 512), request_s=0.02, token_s=1e-4)
    path.write_text(Profile("tiny", 1, service, (20, 40), 0.0, ()).dump(), "utf-8")
    return path


def run(profile: Path, *arguments: str, slo: str = "300") -> None:
    parser = ArgumentParser()
    plan.add_arguments(parser)
    plan.run(parser.parse_args(["--profile", str(profile), "--slo-p99", slo, *arguments]))


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize(
    ("load", "rate"), [(("--rate", "30"), 30), (("--step", "6", "30"), 14), (("--swing", "5", "25"), 15)]
)
def test_generated_loads_have_their_rates(
    load: tuple[str, ...], rate: float, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(profile, *load, *SHORT, "--json")

    assert answer(capsys)["rate_per_s"] == pytest.approx(rate, rel=0.2)


def test_trace_runs_at_the_speed_asked_for(profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("at,size\n" + "".join(f"{second},30\n" for second in range(101)), "utf-8")

    run(profile, "--trace", str(trace), "--time-column", "at", "--tokens-column", "size", "--speed", "10", "--json")

    assert answer(capsys)["duration_s"] == 10


def test_length_of_requests_can_be_set(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slowest = []
    for tokens in ("10", "500"):
        run(profile, "--rate", "5", *SHORT, "--tokens", tokens, "--json", "--batch-size", "1")
        slowest.append(answer(capsys)["strategies"][-1]["p50_ms"])

    assert slowest == pytest.approx([20 + 1 + 3 + 2, 20 + 50 + 3 + 2], abs=2)  # overhead and handover by default


def test_table_and_picture_are_made(profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plan.svg"

    run(profile, "--rate", "20", *SHORT, "--plot", str(picture))

    shown = capsys.readouterr().out
    assert "goal: p99 within 300 ms" in shown
    assert "The cheapest fixed number that meets the goal is 1 worker;" in shown
    assert picture.read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "plan takes one load: --trace, --rate, --step or --swing; got none"),
        (
            ("--rate", "3", "--swing", "1", "2"),
            "plan takes one load: --trace, --rate, --step or --swing; got --rate and --swing",
        ),
        (("--rate", "-3"), "the rate is -3 requests a second; expected 0 or more"),
        (("--rate", "3", "--tokens", "-1"), "--tokens is -1; expected at least 1, or 0 for the lengths of the profile"),
        (
            ("--rate", "3", "--min-workers", "4", "--max-workers", "2"),
            "min_workers is 4 and max_workers 2; expected 1 <= min_workers <= max_workers",
        ),
        (
            ("--rate", "3", "--start", "6", "3"),
            "start_s is 6 to 3; expected the shortest time, then the longest",
        ),
        (("--rate", "3", "--batch-size", "0"), "batch_size is 0; expected at least 1"),
        (
            ("--rate", "3", "--plot", "plan.doc"),
            "plan.doc: the name of a picture ends in .svg, .png, .pdf; got '.doc'",
        ),
    ],
)
def test_bad_options_are_refused(arguments: tuple[str, ...], message: str, profile: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(profile, *arguments)


def test_goal_that_is_no_time_is_refused(profile: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape('--slo-p99 is 0; expected milliseconds, more than 0')}$"):
        run(profile, "--rate", "3", slo="0")


def test_broken_trace_is_refused_by_line(profile: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,tokens\n5,9\n4,9\n", "utf-8")
    message = (
        f"{trace}:3: the time 4 comes before the one above it; expected times in ascending order: sort the file by time"
    )

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        run(profile, "--trace", str(trace))
