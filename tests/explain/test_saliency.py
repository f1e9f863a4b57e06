"""Methods on a function whose gradient is known: what they add up to, when they stop, what they refuse."""

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from suffuse.bundle import Bundle
from suffuse.errors import BundleError, InputError
from suffuse.explain import GradientXInput, IntegratedGradients, SmoothGrad, make_method
from suffuse.explain.gradients import GRADIENT_TOKENS, GradientGraph, Subject
from suffuse.tasks import Arrays

WIDTH = 3


class Powers:
    """Stands in for the graph: logits are the sums of x^3 and of x over all tokens; a token is embedded as its id."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, graph: str, inputs: Arrays) -> dict[str, Any]:
        if graph == "predict":
            x = np.repeat(inputs["input_ids"][..., None], WIDTH, axis=2)
            return {"logits": np.stack([(x**3).sum(axis=(1, 2)), x.sum(axis=(1, 2))], axis=1)}
        self.shapes.append(inputs["input_ids"].shape)
        embeddings = np.repeat(inputs["input_ids"][..., None] + 0.0, WIDTH, axis=2)
        baselines = np.repeat(inputs["baseline_ids"][..., None] + 0.0, WIDTH, axis=2)
        x = baselines + inputs["scale"][:, None, None] * (embeddings - baselines) + inputs["noise"]
        weights = inputs["target"][:, :, None, None]
        return {
            "logits": np.stack([(x**3).sum(axis=(1, 2)), x.sum(axis=(1, 2))], axis=1),
            "gradient": weights[:, 0] * 3 * x**2 + weights[:, 1],
            "embeddings": embeddings,
            "baselines": baselines,
        }


@pytest.fixture
def powers() -> Powers:
    return Powers()


@pytest.fixture
def graph(powers: Powers) -> GradientGraph:
    manifest = SimpleNamespace(graphs={"explain": None}, model={"embedding_size": WIDTH, "baseline_token_id": 0})
    return GradientGraph(cast("Bundle", SimpleNamespace(path="b", manifest=manifest)), powers.run)


def subject(*ids: int, weights: tuple[float, float] = (1.0, 0.0)) -> Subject:
    inputs = {"input_ids": np.array(ids) + 1, "baseline_ids": np.zeros(len(ids), np.int64)}
    x = np.array(ids) + 1
    value = WIDTH * float(weights[0] * (x**3).sum() + weights[1] * x.sum())
    return Subject(inputs, np.array(weights, dtype=np.float32), value)


def test_gradient_times_input_is_just_that(graph: GradientGraph) -> None:
    said = GradientXInput().attribute([subject(0, 1)], graph)

    assert said.scores[0].tolist() == [WIDTH * 3 * 1.0**2 * 1.0, WIDTH * 3 * 2.0**2 * 2.0]
    assert (said.value, said.baseline, said.gap, said.steps) == (WIDTH * (1 + 8), None, None, 1)


def test_midpoints_are_those_of_the_rule(graph: GradientGraph) -> None:
    said = IntegratedGradients(steps=2, tolerance=1.0).attribute([subject(1)], graph)

    # x goes from 0 to 2; 3 x^2 at 0.5 and 1.5 has the mean 3.75.
    assert said.scores[0] == pytest.approx([WIDTH * 2 * 3.75])
    assert (said.value, said.baseline, said.steps) == (WIDTH * 8, 0.0, 2)
    assert said.gap == pytest.approx(0.5 / 8)


def test_what_is_linear_has_no_gap(graph: GradientGraph) -> None:
    said = IntegratedGradients(steps=1).attribute([subject(4, 2, weights=(0.0, 1.0))], graph)

    assert said.scores[0] == pytest.approx([WIDTH * 5, WIDTH * 3])
    assert said.gap == pytest.approx(0)
    assert said.steps == 1


def test_steps_are_doubled_until_the_gap_is_small_enough(graph: GradientGraph) -> None:
    said = IntegratedGradients(steps=2, tolerance=0.001).attribute([subject(1)], graph)

    # The rule's gap for a cube is 1 / (4 steps^2).
    assert said.steps == 16
    assert said.gap == pytest.approx(1 / (4 * 16**2), rel=1e-3)


def test_steps_are_doubled_to_256_at_most(graph: GradientGraph) -> None:
    said = IntegratedGradients(steps=24, tolerance=1e-12).attribute([subject(1)], graph)

    assert said.steps == 192
    assert said.gap is not None
    assert said.gap > 1e-12


def test_more_steps_are_taken_where_they_are_asked_for(graph: GradientGraph) -> None:
    assert IntegratedGradients(steps=1000, tolerance=1e-12).attribute([subject(1)], graph).steps == 1000


def test_gap_is_that_of_all_windows_together(graph: GradientGraph) -> None:
    said = IntegratedGradients(steps=2, tolerance=1.0).attribute([subject(1), subject(0, 0)], graph)

    assert [len(scores_n) for scores_n in said.scores] == [1, 2]
    assert (said.value, said.baseline) == (WIDTH * (8 + 2), 0.0)
    assert said.gap == pytest.approx((0.5 + 2 * 0.0625) / 10)


def test_gap_is_a_number_where_text_and_baseline_are_alike(graph: GradientGraph) -> None:
    said = IntegratedGradients().attribute([subject(-1)], graph)

    assert (said.gap, said.steps) == (0.0, 16)


def test_smooth_gradients_are_the_same_each_time_and_near_the_plain_one(graph: GradientGraph) -> None:
    method = SmoothGrad(steps=400, spread=0.1)

    first, second = (method.attribute([subject(0, 1)], graph) for _ in range(2))

    # The mean of 3 (x + n)^2 is 3 (x^2 + var n); the embeddings 1 and 2 deviate by 0.5.
    expected = [WIDTH * 3 * (x**2 + 0.05**2) * x for x in (1.0, 2.0)]
    assert first.scores[0] == pytest.approx(expected, rel=0.02)
    assert first.scores[0].tolist() == second.scores[0].tolist()
    assert (first.value, first.steps, first.gap) == (WIDTH * (1 + 8), 400, None)


def test_subjects_of_unlike_length_are_computed_together_and_each_as_if_alone(
    graph: GradientGraph, powers: Powers
) -> None:
    rows = [subject(0, 1, 2), subject(3, weights=(0.5, 2.0)), subject(2, 2)]

    together = GradientXInput().attribute(rows, graph)

    assert powers.shapes == [(3, 3)]
    alone = [GradientXInput().attribute([row], graph) for row in rows]
    assert [scores_n.tolist() for scores_n in together.scores] == [said.scores[0].tolist() for said in alone]
    assert together.value == sum(said.value for said in alone)


def test_noise_of_subjects_that_are_computed_together_is_their_own(graph: GradientGraph) -> None:
    rows = [subject(0, 1, 2), subject(3)]

    together = SmoothGrad(steps=4).attribute(rows, graph)

    alone = [SmoothGrad(steps=4).attribute([row], graph).scores[0] for row in rows]
    assert [scores_n.tolist() for scores_n in together.scores] == [scores_n.tolist() for scores_n in alone]


@pytest.mark.parametrize("length", [1, 24, 200, 700])
def test_points_are_computed_in_batches_within_the_budget(graph: GradientGraph, powers: Powers, length: int) -> None:
    IntegratedGradients(steps=64, tolerance=1e9).attribute([subject(*range(length))], graph)

    assert sum(rows for rows, _ in powers.shapes) == 64
    assert all(rows == 1 or rows * length <= GRADIENT_TOKENS for rows, _ in powers.shapes)
    assert len(powers.shapes) <= 1 + 64 / max(1, GRADIENT_TOKENS // length)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("integrated", {"steps": 10_000}, "steps is 10,000; expected 1 to 1,000: 32 are enough for most texts"),
        ("smooth", {"steps": 0}, "steps is 0; expected 1 to 1,000: 32 are enough for most texts"),
        ("integrated", {"tolerance": 0.0}, "tolerance is 0; expected a number above 0, such as 0.05"),
        ("integrated", {"tolerance": float("nan")}, "tolerance is nan; expected a number above 0, such as 0.05"),
        ("smooth", {"spread": -1.0}, "spread is -1; expected a number above 0, such as 1"),
        ("gradient", {"steps": 3}, "method gradient has no setting 'steps'; expected none"),
        ("rollout", {"steps": 3}, "method rollout has no setting 'steps'; expected none"),
        ("smooth", {"tolerance": 0.1}, "method smooth has no setting 'tolerance'; expected one of steps, spread"),
        ("lime", {}, "method 'lime' is unknown; expected one of integrated, gradient, smooth, rollout"),
    ],
)
def test_settings_that_make_no_sense_are_refused(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make_method(method, settings)


def test_a_method_is_made_of_its_name_and_settings() -> None:
    assert make_method("integrated", {"steps": 8}) == IntegratedGradients(steps=8)
    assert make_method("gradient", {}) == GradientXInput()


def test_a_bundle_without_gradients_is_refused_with_what_makes_them() -> None:
    bundle = SimpleNamespace(path="bundles/b", manifest=SimpleNamespace(graphs={"predict": None}))
    message = (
        "bundles/b: it has no explain.onnx, which explanations are computed with; "
        "make it from the run: suffuse export RUN --to bundles/b --explain"
    )

    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        GradientGraph(cast("Bundle", bundle), Powers().run)
