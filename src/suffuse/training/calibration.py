"""Make scores mean what they say: one temperature for all logits, fitted on validation rows.

Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), arXiv 1706.04599. Dividing logits by a number
above 0 changes no order among them, so that answers stay as they are, and only their scores move.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suffuse.tasks.decisions import ABSENT, Decisions

BINS = 15
"""Of confidence, equally wide, as in the paper."""
LOWEST, HIGHEST = 0.1, 10.0
"""Bounds of a temperature; logits ten times as large are also ten times as far from those of ONNX Runtime."""
MOST_LOGITS = 2_000_000
"""Of the decisions looked at, which are evenly spread where there are more: half a second of work."""
MOST_STEPS = 50
DIGITS = 4
"""Decimals of a temperature: what the manifest says is what the weights were divided by."""


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy.

    Args:
        what: the decisions it is about.
        decisions: how many were looked at.
        temperature: by which logits are divided, fitted on all of them.
        ece_before: expected calibration error without it.
        ece: the same with it, cross-fitted: each half of the rows with the temperature fitted on the other half.
        bins: mean confidence, accuracy and number of the decisions in each bin that has some, cross-fitted as well.
    """

    what: str
    decisions: int
    temperature: float
    ece_before: float
    ece: float
    bins: list[tuple[float, float, int]]


def calibrate(decisions: Decisions, seed: int = 0) -> Calibration | None:
    """Fit a temperature, and measure what it changes; none where there are fewer than two rows.

    Args:
        decisions: of a network on rows that it was not trained on.
        seed: of the halves into which rows are dealt.
    """
    decisions = _limited(decisions)
    order_r = np.random.default_rng(seed).permutation(np.unique(decisions.rows_d))
    if len(order_r) < 2:
        return None
    is_first_d = np.isin(decisions.rows_d, order_r[: len(order_r) // 2])
    halves = [decisions.chosen(np.flatnonzero(is_first_d)), decisions.chosen(np.flatnonzero(~is_first_d))]
    fitted = [fit_temperature(half) for half in halves]
    crossed = [_confidence(half, other) for half, other in zip(halves, reversed(fitted), strict=True)]
    confidence_d, is_right_d = (np.concatenate(arrays) for arrays in zip(*crossed, strict=True))
    bins = reliability(confidence_d, is_right_d)
    return Calibration(
        what=decisions.what,
        decisions=len(decisions),
        temperature=round(fit_temperature(decisions), DIGITS),
        ece_before=expected_calibration_error(reliability(*_confidence(decisions, 1.0))),
        ece=expected_calibration_error(bins),
        bins=bins,
    )


def fit_temperature(decisions: Decisions) -> float:
    """The temperature with which the right classes are the most probable, from `LOWEST` to `HIGHEST`.

    One decision's worth of evenly spread doubt is added, as in Laplace's rule of succession: without it, rows without a
    mistake would ask for certainty. The negative log likelihood is convex in 1 / T, which Newton's method finds,
    bisecting where a step would leave what is still possible.
    """
    possible_dc = decisions.logits_dc > ABSENT
    logits_dc = decisions.logits_dc - decisions.logits_dc.max(axis=1, keepdims=True)
    right_d = np.take_along_axis(logits_dc, decisions.targets_d[:, None], axis=1)[:, 0]
    spread_d = np.where(possible_dc, logits_dc, 0.0).sum(axis=1) / possible_dc.sum(axis=1)
    doubt = 1.0 / len(decisions)
    wanted = right_d.mean() + doubt * spread_d.mean()
    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    inverse = 1.0
    for _ in range(MOST_STEPS):
        mean, variance = _moments(logits_dc, inverse)
        slope = (1.0 + doubt) * mean - wanted
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / ((1.0 + doubt) * variance) if variance > 0 else np.inf
        before, inverse = inverse, step if low < step < high else float(np.sqrt(low * high))
        if abs(inverse - before) < 1e-6 * before:
            break
    return float(1.0 / inverse)


def reliability(confidence_d: NDArray[np.float64], is_right_d: NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of decisions in each of `BINS` bins that has some."""
    bin_d = np.clip(np.ceil(confidence_d * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts, confidences, hits = (np.bincount(bin_d, weights, BINS) for weights in (None, confidence_d, is_right_d))
    return [
        (float(confidences[number] / counts[number]), float(hits[number] / counts[number]), int(counts[number]))
        for number in np.flatnonzero(counts)
    ]


def expected_calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """Mean distance between confidence and accuracy of the bins of `reliability`, weighted by their decisions."""
    total = sum(count for _, _, count in bins)
    return sum(abs(confidence - accuracy) * count for confidence, accuracy, count in bins) / total


def _moments(logits_dc: NDArray[np.float64], inverse: float) -> tuple[float, float]:
    """Mean over the decisions of the expected logit and of its variance; the largest logit of each is 0."""
    weights_dc = np.exp(logits_dc * inverse)
    weights_dc /= weights_dc.sum(axis=1, keepdims=True)
    mean_d = (weights_dc * logits_dc).sum(axis=1)
    variance_d = (weights_dc * (logits_dc - mean_d[:, None]) ** 2).sum(axis=1)
    return float(mean_d.mean()), float(variance_d.mean())


def _confidence(decisions: Decisions, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probability of the class that each decision is for, and whether it is the right one."""
    logits_dc = (decisions.logits_dc - decisions.logits_dc.max(axis=1, keepdims=True)) / temperature
    return 1.0 / np.exp(logits_dc).sum(axis=1), logits_dc.argmax(axis=1) == decisions.targets_d


def _limited(decisions: Decisions) -> Decisions:
    most = max(1, MOST_LOGITS // decisions.logits_dc.shape[1])
    if len(decisions) <= most:
        return decisions
    return decisions.chosen(np.linspace(0, len(decisions) - 1, most).astype(np.int64))
