"""A temperature makes scores mean what they say, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import log_softmax  # type: ignore[import-untyped]

from suffuse.tasks.decisions import ABSENT, Decisions
from suffuse.training import calibration
from suffuse.training.calibration import (
    HIGHEST,
    LOWEST,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def decisions_of(logits_dc: NDArray[np.float64], targets_d: NDArray[np.int64]) -> Decisions:
    return Decisions("the label of each row", logits_dc, targets_d, np.arange(len(targets_d)))


def honest(count: int, classes: int, seed: int = 0) -> Decisions:
    """Targets drawn from the very probabilities that the logits say."""
    random = np.random.default_rng(seed)
    logits_dc = random.normal(0, 2, (count, classes))
    noise_dc = random.gumbel(size=logits_dc.shape)
    return decisions_of(logits_dc, (logits_dc + noise_dc).argmax(axis=1))


def loss(decisions: Decisions, temperature: float) -> float:
    """Negative log likelihood with one decision's worth of doubt, by scipy."""
    logs_dc = log_softmax(decisions.logits_dc / temperature, axis=1)
    right = np.take_along_axis(logs_dc, decisions.targets_d[:, None], axis=1).mean()
    return float(-right - logs_dc.mean() / len(decisions))


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_logits_that_are_too_large_by_a_factor_are_divided_by_it(factor: float) -> None:
    told = honest(20_000, 4)

    fitted = fit_temperature(decisions_of(told.logits_dc * factor, told.targets_d))

    assert fitted == pytest.approx(factor, rel=0.03)


@given(st.integers(2, 200), st.integers(2, 6), st.integers(0, 99), st.floats(0.2, 5))
@settings(deadline=None, max_examples=40)
def test_the_temperature_is_the_one_that_scipy_finds(count: int, classes: int, seed: int, factor: float) -> None:
    told = honest(count, classes, seed)
    decisions = decisions_of(told.logits_dc * factor, told.targets_d)

    fitted = fit_temperature(decisions)

    reference = minimize_scalar(
        lambda inverse: loss(decisions, 1 / inverse), bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded"
    )
    assert LOWEST <= fitted <= HIGHEST
    assert loss(decisions, fitted) <= reference.fun + 1e-7


def test_rows_without_a_mistake_do_not_make_certain() -> None:
    logits_dc = np.tile([3.0, 0.0], (50, 1))

    fitted = fit_temperature(decisions_of(logits_dc, np.zeros(50, dtype=np.int64)))

    # As Laplace's rule has it: (50 + 1/2) of 51.
    assert 1 / (1 + np.exp(-3 / fitted)) == pytest.approx(50.5 / 51, abs=1e-3)


def test_a_network_that_is_always_wrong_gets_the_highest_temperature() -> None:
    logits_dc = np.tile([9.0, 0.0], (50, 1))

    assert fit_temperature(decisions_of(logits_dc, np.ones(50, dtype=np.int64))) == pytest.approx(HIGHEST, rel=1e-3)


def test_classes_that_cannot_be_chosen_count_for_nothing() -> None:
    told = honest(500, 3)
    padded_dc = np.pad(told.logits_dc, ((0, 0), (0, 7)), constant_values=ABSENT)

    assert fit_temperature(decisions_of(padded_dc, told.targets_d)) == pytest.approx(fit_temperature(told), rel=1e-5)


def test_bins_hold_confidence_accuracy_and_number() -> None:
    confidence_d = np.array([0.99, 0.97, 0.55, 0.0, 1.0 / 15])

    bins = reliability(confidence_d, np.array([True, False, True, False, False]))

    assert np.array(bins) == pytest.approx(np.array([(1 / 30, 0.0, 2), (0.55, 1.0, 1), (0.98, 0.5, 2)]))
    assert expected_calibration_error(bins) == pytest.approx((2 / 30 + 0.45 + 2 * 0.48) / 5)


def test_overconfidence_is_mended_on_rows_that_were_not_fitted_on() -> None:
    told = honest(4000, 3)

    measured = calibrate(decisions_of(told.logits_dc * 4, told.targets_d))

    assert measured is not None
    assert measured.ece_before > 0.1
    assert measured.ece < 0.03
    assert measured.temperature == pytest.approx(4, rel=0.1)
    assert sum(count for _, _, count in measured.bins) == measured.decisions == 4000


def test_halves_are_of_rows_so_that_no_row_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    told = honest(60, 3)
    seen: list[set[int]] = []

    def fit_and_remember(decisions: Decisions) -> float:
        seen.append(set(decisions.rows_d.tolist()))
        return 1.0

    monkeypatch.setattr(calibration, "fit_temperature", fit_and_remember)
    calibrate(Decisions("words", told.logits_dc, told.targets_d, np.repeat(np.arange(12), 5)))

    first, second, whole = seen
    assert not first & second
    assert first | second == whole == set(range(12))


def test_many_decisions_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_LOGITS", 300)

    measured = calibrate(honest(1000, 3))

    assert measured is not None
    assert measured.decisions == 100


def test_one_row_calibrates_nothing() -> None:
    assert calibrate(Decisions("words", np.zeros((5, 2)), np.zeros(5, dtype=np.int64), np.zeros(5, np.int64))) is None
