"""What a validation says of a model beyond its score: how sure that is, where it fails, what its scores mean."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.tasks import Arrays, Row, Task, Window
from suffuse.tasks.decisions import NOTHING
from suffuse.training.calibration import calibrate

RESAMPLES = 1000
MOST_DRAWN = 20_000_000
"""Rows drawn in all, of which many rows get fewer resamples: about a second."""
LEAST_RESAMPLES = 200
FIRST_LENGTH = 16
"""Tokens of the first slice; each further one goes twice as far."""
LABELS_SLICED = 50
LABELS_CONFUSED = 20
OTHERS = "(others)"
DIGITS = 6


@dataclass(frozen=True)
class Evaluation:
    """A validation's outcome.

    Args:
        metrics: of the answers.
        temperature: by which logits are to be divided; 1 where scores are no probabilities.
        details: intervals, slices, confusion and calibration, as a bundle's manifest has them, JSON.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    details: dict[str, Any] = field(default_factory=dict)


def evaluate(task: Task, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> Evaluation:
    """Answer rows that a network was not trained on, and measure.

    Beside what decoding takes, 0.1 s for 1,000 rows of two labels, and 1 to 2 s for 10,000 or 100,000: bootstrap and
    calibration are bounded.

    Args:
        task: which has chosen its thresholds.
        rows: with their targets.
        windows: of all rows, in order.
        outputs: of the windows, without the batch axis.
    """
    answers = task.decode(rows, windows, outputs)
    targets = [task.target(row) for row in rows]
    tallies_rk = task.tallies(answers, targets)
    decisions = task.decisions(rows, windows, outputs)
    calibration = calibrate(decisions) if decisions else None
    counted = Counter(task.confusions(answers, targets))
    details = {
        "rows": len(rows),
        "intervals": intervals(task, tallies_rk),
        "slices": {"length": list(_by_length(task, windows, tallies_rk)), "label": list(_by_label(counted))},
    }
    if counted:
        details["confusion"] = _confusion(counted)
    if calibration:
        details["calibration"] = _rounded(asdict(calibration))
    return Evaluation(task.metrics(answers, targets), calibration.temperature if calibration else 1.0, details)


def intervals(task: Task, tallies_rk: NDArray[np.float64], seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of each metric, by the percentiles of a bootstrap over rows.

    Args:
        task: which measures.
        tallies_rk: as `Task.tallies` gives them.
        seed: of the resamples.
    """
    count = len(tallies_rk)
    if not count:
        return {}
    random = np.random.default_rng(seed)
    resamples = int(np.clip(MOST_DRAWN // count, LEAST_RESAMPLES, RESAMPLES))
    totals_bk = np.stack(
        [np.bincount(random.integers(count, size=count), minlength=count) @ tallies_rk for _ in range(resamples)]
    )
    quantiles = {name: np.quantile(values_b, [0.025, 0.975]) for name, values_b in task.measured(totals_bk).items()}
    return {name: _rounded(bounds.tolist()) for name, bounds in quantiles.items()}


def _by_length(task: Task, windows: Sequence[Window], tallies_rk: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """Rows of about one length together, a long row's windows counted as one."""
    count = len(tallies_rk)
    tokens_r = np.bincount([window.row for window in windows], [len(window) for window in windows], count)
    low, high = 0, FIRST_LENGTH
    while low < tokens_r.max(initial=0):
        inside_r = (low < tokens_r) & (tokens_r <= high)
        if inside_r.any():
            measured = task.measured(tallies_rk[inside_r].sum(axis=0)[None])
            value = float(measured[task.slice_metric][0])
            yield {"slice": f"{low + 1}-{high} tokens", "rows": int(inside_r.sum()), task.slice_metric: _rounded(value)}
        low, high = high, 2 * high


def _by_label(counted: Counter[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Precision, recall and F1 of each label, the most frequent first; ``rows`` is how often it was expected."""
    for label in _frequent(counted, LABELS_SLICED):
        hits = counted[label, label]
        expected = sum(count for (wanted, _), count in counted.items() if wanted == label)
        given = sum(count for (_, got), count in counted.items() if got == label)
        shares = {"precision": hits / max(given, 1), "recall": hits / max(expected, 1)}
        yield {"slice": label, "rows": expected, **_rounded({**shares, "f1": 2 * hits / max(given + expected, 1)})}


def _confusion(counted: Counter[tuple[str, str]]) -> dict[str, Any]:
    """How often each label (rows) was answered by each (columns); rare labels together where there are many."""
    labels = _frequent(counted, LABELS_CONFUSED - 2)  # two more are for nothing and for others
    known = {NOTHING, *labels}
    merged: Counter[tuple[str, str]] = Counter()
    for (expected, given), count in counted.items():
        merged[expected if expected in known else OTHERS, given if given in known else OTHERS] += count
    shown = [*labels, *(name for name in (OTHERS, NOTHING) if any(name in pair for pair in merged))]
    return {"labels": shown, "counts": [[merged[expected, given] for given in shown] for expected in shown]}


def _frequent(counted: Counter[tuple[str, str]], most: int) -> list[str]:
    """Labels by how often they were expected, then by name."""
    expected: Counter[str] = Counter()
    for (wanted, given), count in counted.items():
        expected[wanted] += count
        expected[given] += 0
    del expected[NOTHING]
    return sorted(expected, key=lambda label: (-expected[label], label))[:most]


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, DIGITS) if isinstance(value, float) else value
