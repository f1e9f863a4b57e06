"""Traces are read as they are, broken ones are named by line, and drawn loads have the rates they should."""

import re
from pathlib import Path

import numpy as np
import pytest

from suffuse.autoscale.arrivals import Arrivals, poisson, read_trace, step, swing
from suffuse.errors import DataError, InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, "utf-8")
    return path


def test_timestamps_and_context_lengths_are_found_by_their_names(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9305900,396,109\n2023-11-17 18:15:46.6805900,8,1\n"
    )

    arrivals = read_trace(write(tmp_path, text))

    assert arrivals.times_s.tolist() == pytest.approx([0, 4.25, 86400])
    assert arrivals.tokens.tolist() == [374, 396, 8]
    assert arrivals.duration_s == pytest.approx(86400)


def test_columns_can_be_named_and_seconds_start_at_the_first_request(tmp_path: Path) -> None:
    path = write(tmp_path, "when,size\n100.5,7\n100.5,8\n103,9\n")

    arrivals = read_trace(path, time_column="when", tokens_column="size")

    assert arrivals.times_s.tolist() == [0, 0, 2.5]
    assert arrivals.tokens.tolist() == [7, 8, 9]


def test_lengths_are_drawn_where_the_file_has_none(tmp_path: Path) -> None:
    path = write(tmp_path, "time\n" + "".join(f"{second}\n" for second in range(50)))

    assert set(read_trace(path, lengths=(16, 32)).tokens.tolist()) == {16, 32}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,tokens\n0,5\n-1,5\n", "{path}:3: the time is '-1'; expected 0 or more"),
        (
            "time,tokens\n4,5\n5,5\n3,5\n",
            (
                "{path}:4: the time 3 comes before the one above it; expected times in ascending order: "
                "sort the file by time"
            ),
        ),
        (
            "time,tokens\n4,5\nsoon,5\n",
            "{path}:3: the time is 'soon'; expected seconds, or an ISO timestamp such as 2023-11-16 18:15:46.7",
        ),
        (
            "time,tokens\nnan,5\n",
            "{path}:2: the time is 'nan'; expected seconds, or an ISO timestamp such as 2023-11-16 18:15:46.7",
        ),
        (
            "time,tokens\n\n4\n",
            "{path}:3: the length is ''; expected a whole number of tokens, at least 1",
        ),
        ("time,tokens\n4,0\n", "{path}:2: the length is '0'; expected a whole number of tokens, at least 1"),
        ("time,tokens\n", "{path}: no requests; expected a header line and a line for each request"),
        (
            "",
            (
                "{path}: no column of times among none: the file is empty; expected one of timestamp, time_s, time, "
                "or the name of another"
            ),
        ),
        (
            "when,tokens\n1,2\n",
            (
                "{path}: no column of times among 'when', 'tokens'; expected one of timestamp, time_s, time, "
                "or the name of another"
            ),
        ),
        (
            "time\n1\n",
            "{path}: no column of lengths; expected one of contexttokens, tokens, or the name of another",
        ),
    ],
)
def test_broken_trace_is_refused_by_line(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)

    with pytest.raises(DataError, match=f"^{re.escape(message.format(path=path))}$"):
        read_trace(path)


def test_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path, "time,tokens\n1,2\n")

    message = f"{path}: no column 'when'; expected one of 'time', 'tokens'"

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        read_trace(path, time_column="when")


def test_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    missing, binary = tmp_path / "none.csv", tmp_path / "binary.csv"
    binary.write_bytes(b"time\n\xff\xfe\n")

    expected = "expected a CSV file of arrivals"

    with pytest.raises(
        DataError, match=f"^{re.escape(f'{missing}: cannot be read (No such file or directory); {expected}')}$"
    ):
        read_trace(missing)
    with pytest.raises(DataError, match=f"^{re.escape(f'{binary}: not UTF-8; {expected}')}$"):
        read_trace(binary)


def test_faster_clock_leaves_requests_and_raises_the_rate() -> None:
    arrivals = Arrivals(np.array([0.0, 2.0, 4.0]), np.array([1, 2, 3]), 4.0)

    faster = arrivals.faster(4)

    assert faster.times_s.tolist() == [0, 0.5, 1]
    assert faster.rate_per_s == pytest.approx(4 * arrivals.rate_per_s)


def test_clock_that_stands_still_is_refused() -> None:
    message = "the clock is to run 0 times as fast; expected more than 0"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Arrivals(np.array([0.0]), np.array([1]), 1.0).faster(0)


def test_poisson_arrivals_have_their_rate_and_the_spread_of_chance() -> None:
    arrivals = poisson(50, 400, (8, 16))
    counts = np.histogram(arrivals.times_s, bins=400, range=(0, 400))[0]

    assert arrivals.rate_per_s == pytest.approx(50, rel=0.03)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.2)
    assert (np.diff(arrivals.times_s) >= 0).all()


def test_step_has_its_second_rate_in_the_middle_third() -> None:
    times_s = step(5, 50, 300, (8,)).times_s

    assert np.histogram(times_s, bins=3, range=(0, 300))[0] / 100 == pytest.approx([5, 50, 5], rel=0.2)


def test_swing_is_highest_in_the_middle() -> None:
    counts = np.histogram(swing(0, 60, 400, (8,)).times_s, bins=4, range=(0, 400))[0] / 100

    # The mean of (1 - cos) / 2 over a quarter of the period: 1/2 -+ 1/pi.
    assert counts == pytest.approx([60 * share for share in (0.182, 0.818, 0.818, 0.182)], rel=0.1)


def test_same_seed_gives_the_same_load() -> None:
    assert (poisson(5, 50, (8, 9), seed=3).times_s == poisson(5, 50, (8, 9), seed=3).times_s).all()


@pytest.mark.parametrize(
    ("rate", "duration", "message"),
    [
        (-1.0, 5.0, "the rate is -1 requests a second; expected 0 or more"),
        (float("nan"), 5.0, "the rate is nan requests a second; expected 0 or more"),
        (1.0, 0.0, "the duration is 0 s; expected more than 0"),
        (0.0, 5.0, "no request came in 5 s; expected a higher rate or a longer duration"),
        (
            1e9,
            60.0,
            (
                "1e+09 requests a second for 60 s are too many to simulate; expected at most 10,000,000 requests: "
                "take a shorter duration"
            ),
        ),
    ],
)
def test_load_that_makes_no_sense_is_refused(rate: float, duration: float, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        poisson(rate, duration, (8,))
