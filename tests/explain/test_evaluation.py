"""All methods measured on the same rows: the best by a rule that can be told, figures that are JSON, every task."""

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from suffuse.bundle import Manifest
from suffuse.errors import DataError
from suffuse.explain import default_method
from suffuse.explain.evaluation import Evaluation, RowFigures, evaluate
from suffuse.explain.faithfulness import Faithfulness
from suffuse.runtime import Predictor

PredictorOf = Callable[[str, str, int], Predictor]

SEEN = ["integrated", "gradient", "occlusion", "random"]


def rows(count: int = 40, *, gradient: Sequence[float] = (0.1,), seconds: float = 1.0) -> list[RowFigures]:
    """Rows on which integrated gradients reach 0.3 in the mean, occlusion and random order 0.5 and 0.1."""
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        drops = {"integrated": 0.3, "gradient": gradient[index % len(gradient)], "occlusion": 0.5, "random": 0.1}
        noise = random.normal(scale=0.01)
        faithfulness = {
            name: Faithfulness(drop + noise, -drop, np.linspace(0, drop, 11)) for name, drop in drops.items()
        }
        times = {"integrated": 20.0, "gradient": seconds, "occlusion": 5.0, "random": 0.0}
        found.append(RowFigures(faithfulness, {"integrated": 0.9, "gradient": 0.8}, times, 1.0))
    return found


def test_the_most_comprehensive_method_is_the_best() -> None:
    assert Evaluation(rows()).best == "integrated"


def test_a_cheaper_method_that_is_as_good_is_the_best() -> None:
    assert Evaluation(rows(gradient=(0.1, 0.49))).best == "gradient"


def test_a_dearer_method_that_is_as_good_is_not() -> None:
    assert Evaluation(rows(gradient=(0.1, 0.49), seconds=30.0)).best == "integrated"


def test_a_method_that_is_surely_a_little_worse_is_not_as_good() -> None:
    assert Evaluation(rows(gradient=(0.29,))).best == "integrated"


def test_figures_are_means_with_intervals_around_them() -> None:
    figures = Evaluation(rows()).to_dict()

    assert (figures["rows"], figures["best"], list(figures["methods"])) == (40, "integrated", SEEN)
    for method in figures["methods"].values():
        for name in ("comprehensiveness", "sufficiency", "aopc"):
            value, low, high = method[name]
            assert low <= value <= high
    integrated = figures["methods"]["integrated"]
    assert integrated["comprehensiveness"][0] == pytest.approx(0.3, abs=0.01)
    assert integrated["aopc"] == pytest.approx([0.15] * 3)
    assert integrated["aopc_over_random"] == pytest.approx([3.0] * 3)
    assert integrated["aopc_over_occlusion"] == pytest.approx([0.6] * 3)
    assert integrated["stability"] == pytest.approx([0.9] * 3)
    assert integrated["cost"] == pytest.approx([20.0] * 3)
    assert integrated["curve"] == pytest.approx(np.linspace(0, 0.3, 11).tolist())
    assert figures["methods"]["random"]["stability"] is None


def test_there_is_no_ratio_to_what_does_not_fall() -> None:
    flat = [
        RowFigures({**row.faithfulness, "random": Faithfulness(0.0, 0.0, np.zeros(11))}, {}, row.seconds, 1.0)
        for row in rows()
    ]

    assert Evaluation(flat).to_dict()["methods"]["integrated"]["aopc_over_random"] is None


def test_there_is_no_comparison_with_occlusion_on_long_texts() -> None:
    long = [
        RowFigures(
            {name: one for name, one in row.faithfulness.items() if name != "occlusion"},
            row.stability,
            {name: one for name, one in row.seconds.items() if name != "occlusion"},
            1.0,
        )
        for row in rows()
    ]

    methods = Evaluation(long).to_dict()["methods"]

    assert list(methods) == ["integrated", "gradient", "random"]
    assert methods["integrated"]["aopc_over_occlusion"] is None


def test_every_task_is_measured(case: Any) -> None:  # noqa: ANN401 - a class of conftest.py
    figures = evaluate(case.predictor, [case.row] * 3).to_dict()

    assert json.loads(json.dumps(figures, allow_nan=False)) == json.loads(json.dumps(figures))
    assert figures["rows"] == 3
    assert {"integrated", "gradient", "smooth", "occlusion", "random"} <= set(figures["methods"])
    for method in figures["methods"].values():
        # Without any word all orders are the same.
        assert method["curve"][-1] == pytest.approx(figures["methods"]["random"]["curve"][-1], abs=1e-4)
        assert all(-1 <= bound <= 1 for bound in method["comprehensiveness"])


def test_occlusion_is_left_out_for_long_texts(predictor_of: PredictorOf) -> None:
    figures = evaluate(predictor_of("bert", "labels", 2), [{"text": "a warm film " * 30}]).to_dict()

    assert "occlusion" not in figures["methods"]


@pytest.mark.parametrize("found", [[], [{"text": "film"}]])
def test_rows_without_an_order_of_words_are_refused(predictor_of: PredictorOf, found: list[dict[str, str]]) -> None:
    message = r"^no row with an answer and two words to put in order; expected at least one: give other rows$"

    with pytest.raises(DataError, match=message):
        evaluate(predictor_of("bert", "labels", 2), found)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({}, "integrated"),
        ({"faithfulness": {"best": "smooth"}}, "smooth"),
        ({"faithfulness": {"best": "of a later version"}}, "integrated"),
    ],
)
def test_the_best_method_is_the_default(evaluation: dict[str, Any], expected: str) -> None:
    manifest = cast("Manifest", SimpleNamespace(evaluation=evaluation))

    assert default_method(manifest) == expected
