"""The model cuts as the runtime cuts, finds the costs that made its measurements, and survives its file."""

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.autoscale.service_time import (
    Limits,
    Measurement,
    Profile,
    ServiceTime,
    fit,
    median_error,
    micro_batches,
)
from suffuse.batching import token_batches
from suffuse.errors import InputError

LIMITS = Limits(micro_batch_tokens=512, max_tokens=512)
TRUE = ServiceTime(LIMITS, 1e-3, 2e-4, 5e-4, 1e-4, 3e-7)
LENGTHS = (8, 32, 128, 512)


def measured(service: ServiceTime, noise: float = 0.0) -> list[Measurement]:
    random = np.random.default_rng(0)
    batches = [(length,) * size for length in LENGTHS for size in (1, 4, 16)] + [LENGTHS * 3, LENGTHS[:2] * 8]
    return [
        Measurement(batch, tuple(service.seconds(batch) * random.lognormal(0, noise, 9).round(6))) for batch in batches
    ]


def profile() -> Profile:
    return Profile("sentiment", 1, TRUE, LENGTHS, 0.01, tuple(measured(TRUE)))


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 700), max_size=80), budget=st.integers(1, 1024))
def test_micro_batches_are_those_that_the_runtime_cuts(lengths: list[int], budget: int) -> None:
    cut = [(len(batch), max(lengths[index] for index in batch)) for batch in token_batches(lengths, budget)]

    assert list(micro_batches(lengths, budget)) == cut


def test_seconds_add_up_batch_requests_and_micro_batches() -> None:
    # 20 rows of 64 tokens: 8, 8 and 4 rows at once.
    padded = 20 * 64

    assert TRUE.seconds([64] * 20) == pytest.approx(1e-3 + 20 * 2e-4 + 3 * 5e-4 + padded * 1e-4 + padded * 64 * 3e-7)


def test_long_row_costs_as_many_windows_as_the_model_makes_of_it() -> None:
    windows = replace(TRUE, request_s=0.0, limits=replace(LIMITS, max_windows=3))

    assert TRUE.seconds([5000]) == TRUE.seconds([512])
    assert windows.seconds([600]) == pytest.approx(windows.seconds([512, 88]))
    assert windows.seconds([5000]) == pytest.approx(windows.seconds([512] * 3))


def test_fit_finds_the_costs_that_made_the_measurements() -> None:
    fitted = fit(measured(TRUE), LIMITS)

    assert [fitted.batch_s, fitted.request_s, fitted.micro_batch_s] == pytest.approx([1e-3, 2e-4, 5e-4], rel=1e-3)
    assert [fitted.token_s, fitted.attention_s] == pytest.approx([1e-4, 3e-7], rel=1e-3)
    assert fitted.spread == pytest.approx((1.0,) * len(fitted.spread))


def test_fit_of_noisy_measurements_has_no_negative_cost_and_keeps_their_spread() -> None:
    measurements = measured(replace(TRUE, batch_s=0.0, attention_s=0.0), noise=0.2)

    fitted = fit(measurements, LIMITS)

    assert min(fitted.batch_s, fitted.request_s, fitted.micro_batch_s, fitted.token_s, fitted.attention_s) >= 0
    assert median_error(fitted, measurements) < 0.15
    assert np.std(np.log(fitted.spread)) == pytest.approx(0.2, rel=0.35)


def test_fit_of_nothing_is_refused() -> None:
    message = "no measurements to fit; expected some, of batches that differ in number and lengths"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fit([], LIMITS)


def test_drawn_time_is_the_usual_one_times_the_spread() -> None:
    service = replace(TRUE, spread=(0.5, 2.0))
    random = Random(0)

    drawn = {service.draw([64], random) / TRUE.seconds([64]) for _ in range(20)}

    assert sorted(drawn) == pytest.approx([0.5, 2.0])


def test_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(profile().dump(), "utf-8")

    assert Profile.open(path) == profile()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "ValueError: no format 1"),
        ({"lengths": []}, "ValueError: lengths below 1, or none"),
        ({"service": None}, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_file_that_is_no_profile_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(json.loads(profile().dump()) | change), "utf-8")
    message = f"{path}: not a profile ({reason}); expected a file that `suffuse profile BUNDLE --output FILE` wrote"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Profile.open(path)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("token_s", -1, "a cost or a spread that is below 0, not finite, or missing"),
        ("spread", [], "a cost or a spread that is below 0, not finite, or missing"),
        ("limits", {"micro_batch_tokens": 0, "max_tokens": 8}, "limits below 1"),
    ],
)
def test_profile_with_impossible_numbers_is_refused(field: str, value: object, reason: str, tmp_path: Path) -> None:
    content = json.loads(profile().dump())
    content["service"][field] = value
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(content), "utf-8")
    expected = "expected a file that `suffuse profile BUNDLE --output FILE` wrote"
    message = f"{path}: not a profile (ValueError: {reason}); {expected}"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Profile.open(path)


def test_missing_profile_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    message = (
        f"{path}: cannot be read (No such file or directory); "
        "expected a file that `suffuse profile BUNDLE --output FILE` wrote"
    )

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Profile.open(path)
