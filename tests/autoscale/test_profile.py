"""A bundle is measured at many lengths and numbers, after a warm-up, and rows of a file as they are."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from suffuse.autoscale.profile import measure
from suffuse.autoscale.service_time import Profile
from suffuse.errors import InputError, RowError


def ticking() -> Callable[[], float]:
    """A clock on which everything takes 10 ms."""
    ticks = count()
    return lambda: next(ticks) * 0.01


@pytest.fixture(scope="module")
def profile(tiny_bundle: Path) -> Profile:
    return measure(tiny_bundle, rounds=2, clock=ticking())


def test_rows_are_made_up_to_the_longest_input_of_the_model(profile: Profile) -> None:
    assert profile.service.limits.max_tokens == 64
    # Which words are one token is up to the tokenizer: of the next word only a part might have had room.
    assert all(bound / 2 < length <= bound for length, bound in zip(profile.lengths, (8, 16, 32, 64), strict=True))


def test_each_length_is_measured_alone_and_in_batches(profile: Profile) -> None:
    measured = {(one.tokens[0], len(one.tokens)) for one in profile.measurements if len(set(one.tokens)) == 1}

    assert {(length, size) for length in profile.lengths for size in (1, 4, 16, 64)} <= measured


def test_rows_of_different_lengths_are_measured_together(profile: Profile) -> None:
    assert sum(len(set(one.tokens)) > 1 for one in profile.measurements) == 3


def test_warm_up_is_not_counted(profile: Profile) -> None:
    assert all(one.seconds == pytest.approx((0.01, 0.01)) for one in profile.measurements)


def test_time_that_is_always_the_same_is_the_cost_of_a_batch(profile: Profile) -> None:
    assert profile.service.seconds([8]) == pytest.approx(0.01, rel=1e-3)
    assert profile.service.seconds([64] * 64) == pytest.approx(0.01, rel=1e-3)
    assert profile.error == pytest.approx(0, abs=1e-3)


def test_windows_of_a_row_too_long_for_the_model_are_counted(profile: Profile) -> None:
    # The task reads 16 windows of a text, whatever its length.
    assert profile.service.limits.max_windows == 16


def test_rows_of_a_file_give_the_lengths(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\na warm film\na warm and funny film about friends\n", "utf-8")

    profile = measure(tiny_bundle, str(rows), rounds=1, clock=ticking())

    short, long = profile.lengths
    assert 5 <= short < long
    assert {tokens for one in profile.measurements for tokens in one.tokens} == {short, long}


def test_bad_row_of_a_file_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text('text,n\na warm film,1\n" ",2\n', "utf-8")

    message = "rows.csv:3: field 'text' is empty; expected the text to classify"

    with pytest.raises(RowError, match=f"^{re.escape(message)}$"):
        measure(tiny_bundle, str(rows))


def test_no_threads_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape('threads is 0; expected at least 1')}$"):
        measure(tiny_bundle, threads=0)
