"""How far a bundle's explanations can be trusted: every method measured on the same rows, and the best one named."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.errors import BundleError, DataError
from suffuse.explain.erasure import Array, Erasable
from suffuse.explain.explanation import Explained, Explainer
from suffuse.explain.faithfulness import SHORT_WORDS, TENTHS, Faithfulness, measured, occluded
from suffuse.explain.saliency import METHODS, make_method
from suffuse.explain.stability import EDITS, stability
from suffuse.runtime import Predictor
from suffuse.tasks import Row

RANDOM, OCCLUSION = "random", "occlusion"
"""What methods are compared with: any order, and that of what each word takes with it when it alone is taken out.
Occlusion is never the default: it costs a prediction a word, and would be judged by what it is computed from."""
RANDOM_ORDERS = 3
RESAMPLES = 2000
DIGITS = 4
"""Decimals of figures: intervals over hundreds of rows are a hundred times wider."""

Interval = tuple[float, float, float]
"""A value and its 95 % bootstrap interval over rows."""


@dataclass(frozen=True)
class RowFigures:
    """What was measured of one row, by method.

    Args:
        faithfulness: of the order of its words; occlusion's where the text is short.
        stability: under one of `EDITS`; where words enough stay.
        seconds: of processor time for an explanation.
        prediction_seconds: the same for an answer without one.
    """

    faithfulness: Mapping[str, Faithfulness]
    stability: Mapping[str, float]
    seconds: Mapping[str, float]
    prediction_seconds: float


class Evaluation:
    """Figures of all methods over rows.

    Args:
        rows: what was measured of each.
    """

    def __init__(self, rows: Sequence[RowFigures]) -> None:
        self._rows = rows
        self._resampled_br = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))

    @property
    def best(self) -> str:
        """The method with the highest mean comprehensiveness, or a cheaper one that is as good.

        As good is one whose comprehensiveness, row by row, falls short of the highest by a mean whose 95 % interval
        reaches 0. The cheapest of these takes the least processor time. Only `METHODS` take part.
        """
        found = {
            name: np.array([row.faithfulness[name].comprehensiveness for row in self._rows]) for name in self._methods
        }
        highest = max(found, key=lambda name: float(found[name].mean()))
        as_good = [name for name in found if name == highest or self._mean(found[highest] - found[name])[1] <= 0]
        return min(as_good, key=lambda name: sum(row.seconds[name] for row in self._rows))

    def to_dict(self) -> dict[str, Any]:
        """As the manifest has it under `suffuse.explain.choice.EVALUATION`: figures as [value, low, high]."""
        names = [*self._methods, OCCLUSION, RANDOM]
        return {
            "rows": len(self._rows),
            "best": self.best,
            "shares": [0.0, *TENTHS],
            "methods": {name: figures for name in names if (figures := self._figures(name))},
        }

    @property
    def _methods(self) -> list[str]:
        return [name for name in self._rows[0].seconds if name in METHODS]

    def _figures(self, name: str) -> dict[str, Any]:
        known = [row for row in self._rows if name in row.faithfulness]
        if not known:
            return {}
        of = Evaluation(known)
        return {
            "comprehensiveness": of._mean(of._values(lambda row: row.faithfulness[name].comprehensiveness)),
            "sufficiency": of._mean(of._values(lambda row: row.faithfulness[name].sufficiency)),
            "aopc": of._mean(of._values(lambda row: row.faithfulness[name].aopc)),
            "aopc_over_random": self._aopc_over(name, RANDOM),
            "aopc_over_occlusion": self._aopc_over(name, OCCLUSION),
            "stability": self._stability(name),
            "cost": of._ratio(
                of._values(lambda row: row.seconds[name]), of._values(lambda row: row.prediction_seconds)
            ),
            "curve": np.mean([row.faithfulness[name].curve for row in known], axis=0).round(DIGITS).tolist(),
        }

    def _aopc_over(self, name: str, other: str) -> Interval | None:
        """The ratio of mean areas on the rows that have both; none where nothing falls when words are removed."""
        both = [row for row in self._rows if {name, other} <= set(row.faithfulness)]
        if not both:
            return None
        of = Evaluation(both)
        return of._ratio(
            of._values(lambda row: row.faithfulness[name].aopc), of._values(lambda row: row.faithfulness[other].aopc)
        )

    def _stability(self, name: str) -> Interval | None:
        known = [row for row in self._rows if name in row.stability]
        if not known:
            return None
        of = Evaluation(known)
        return of._mean(of._values(lambda row: row.stability[name]))

    def _values(self, value: Callable[[RowFigures], float]) -> Array:
        return np.array([value(row) for row in self._rows])

    def _mean(self, values_r: Array) -> Interval:
        return _interval(float(values_r.mean()), values_r[self._resampled_br].mean(axis=1))

    def _ratio(self, values_r: Array, others_r: Array) -> Interval | None:
        others_b = others_r[self._resampled_br].mean(axis=1)
        if min(others_r.mean(), others_b.min()) <= 0:
            return None
        return _interval(float(values_r.mean() / others_r.mean()), values_r[self._resampled_br].mean(axis=1) / others_b)


def evaluate(predictor: Predictor, rows: Iterable[Row]) -> Evaluation:
    """Measure all methods that a bundle has the graphs for; of each row the first thing that it is answered by.

    Args:
        predictor: its bundle must hold a graph of gradients.
        rows: checked; those with fewer than two words to put in order, or with nothing answered, are left out.

    Raises:
        BundleError: the bundle has no explain.onnx.
        DataError: no row is left.
    """
    explainers = _explainers(predictor)
    found: list[RowFigures] = []
    for index, row in enumerate(rows):
        if not found:  # twice, since a graph is opened when it is first called, which costs more than the call
            _row_figures(predictor, explainers, row, index)
        figures = _row_figures(predictor, explainers, row, index)
        found += [figures] if figures else []
    if not found:
        raise DataError("no row with an answer and two words to put in order; expected at least one: give other rows")
    return Evaluation(found)


def _explainers(predictor: Predictor) -> dict[str, Explainer]:
    Explainer(predictor, make_method("integrated", {}))  # which says what to do where there are no gradients
    explainers = {}
    for name in METHODS:
        try:
            explainers[name] = Explainer(predictor, make_method(name, {}))
        except BundleError:  # a bundle may have no graph of attention
            continue
    return explainers


def _row_figures(predictor: Predictor, explainers: Mapping[str, Explainer], row: Row, index: int) -> RowFigures | None:
    task = predictor.task
    start_s = time.process_time()
    windows = task.encode([row], predictor.tokens)
    outputs = predictor.outputs(windows)
    answer = task.decode([row], windows, outputs)[0]
    seconds = {"": time.process_time() - start_s}
    targets = task.explained(row, answer, windows, outputs)
    if not targets:
        return None
    explained: dict[str, Explained] = {}
    for name, explainer in explainers.items():
        start_s = time.process_time()
        explained[name] = explainer(row).explained[0]
        seconds[name] = time.process_time() - start_s
    words = next(iter(explained.values())).words
    if len(words) < 2:
        return None
    erasable = Erasable(predictor, row, words, targets[0])
    scores = {name: np.array([word.score for word in one.words]) for name, one in explained.items()}
    if len(words) <= SHORT_WORDS:
        start_s = time.process_time()
        scores[OCCLUSION] = occluded(erasable, len(words))
        seconds[OCCLUSION] = time.process_time() - start_s
    scores[RANDOM] = np.random.default_rng(index).random((RANDOM_ORDERS, len(words)))
    seconds[RANDOM] = 0.0
    return RowFigures(
        measured(erasable, scores),
        _stabilities(explainers, explained, task.fields[-1].name, row, index),
        seconds,
        seconds.pop(""),
    )


def _stabilities(
    explainers: Mapping[str, Explainer], explained: Mapping[str, Explained], field: str, row: Row, index: int
) -> dict[str, float]:
    """Of each method under one edit, another from row to row; none where the row holds no text but a list of words."""
    text = row.get(field)
    edit = EDITS[index % len(EDITS)](text) if isinstance(text, str) else None
    if edit is None or edit.text == text:
        return {}
    found = {name: stability(explainer, row, field, explained[name], edit) for name, explainer in explainers.items()}
    return {name: value for name, value in found.items() if value is not None}


def _interval(value: float, resampled_b: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled_b, [0.025, 0.975]).tolist()
    return round(value, DIGITS), round(low, DIGITS), round(high, DIGITS)
