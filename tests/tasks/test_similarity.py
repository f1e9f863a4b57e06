"""Similarity: two texts are encoded together, a score is learned on the scale of the data, and comes back on it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from suffuse.errors import InputError, RowError
from suffuse.tasks import Level, Loss, Row, Similarity, Tokens, Window, task_from_dict, task_to_dict

TASK = Similarity()
SCORES = st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.5, 2.6, 4.0, 5.0]), min_size=2, max_size=30)


def windows_of(count: int) -> list[Window]:
    return [Window(row, {"input_ids": np.array([2, 3])}) for row in range(count)]


def refusal(call: Callable[[Any], object], row: object) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        call(row)
    return caught.value.code, str(caught.value)


def test_the_head_has_one_output_that_stands_alone() -> None:
    assert (TASK.head.size, TASK.head.level, TASK.head.loss) == (1, Level.ROW, Loss.SIGMOID)


def test_two_texts_are_one_window_that_says_where_it_was_cut(tiny_model: Path) -> None:
    tokens = Tokens((tiny_model / "tokenizer.json").read_text("utf-8"), max_tokens=8)

    windows = TASK.encode(
        [{"text": "a film", "text_pair": "funny"}, {"text": "a film", "text_pair": "funny " * 9}], tokens
    )

    assert windows[0].inputs["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
    assert [(window.row, len(window), window.truncated) for window in windows] == [(0, 6, False), (1, 8, True)]


@pytest.mark.parametrize(("value", "expected"), [(3, 3.0), (2.5, 2.5), ("3.8", 3.8), (" 5 ", 5.0), (0, 0.0)])
def test_a_score_is_a_number_or_a_string_that_holds_one(value: object, expected: float) -> None:
    assert TASK.target({"score": value}) == expected


def test_a_target_is_a_share_of_the_scale() -> None:
    task = Similarity(low=1, high=3)

    targets = task.targets(windows_of(3), [{"score": 1}, {"score": "1.5"}, {"score": 3}])

    assert [target.tolist() for target in targets] == [[0.0], [0.25], [1.0]]
    assert {target.dtype for target in targets} == {np.dtype(np.float32)}


def test_an_answer_is_on_the_scale_of_the_data() -> None:
    logits = [0.0, math.log(3.0), 800.0, -800.0]

    answers = Similarity(low=1, high=3).decode([], windows_of(4), [{"logits": np.array([logit])} for logit in logits])

    assert answers == [{"score": 2.0}, {"score": 2.5}, {"score": 3.0}, {"score": 1.0}]


def test_an_answer_says_that_a_text_was_cut() -> None:
    cut = Window(0, {"input_ids": np.array([2])}, truncated=True)

    assert TASK.decode([], [cut], [{"logits": np.array([0.0])}]) == [{"score": 2.5, "truncated": True}]


@given(st.data())
@settings(deadline=None, max_examples=50)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_correlations_are_those_of_scipy_and_0_where_there_are_none(data: st.DataObject) -> None:
    expected = data.draw(SCORES)
    given_scores = data.draw(st.lists(st.floats(0, 5, width=16), min_size=len(expected), max_size=len(expected)))

    measured = TASK.metrics([{"score": score} for score in given_scores], expected)

    spearman = float(stats.spearmanr(given_scores, expected).statistic)
    assert measured["spearman"] == pytest.approx(0.0 if math.isnan(spearman) else spearman, abs=1e-9)
    if len({*given_scores}) > 1 and len({*expected}) > 1:
        assert measured["pearson"] == pytest.approx(float(stats.pearsonr(given_scores, expected).statistic), abs=1e-6)
    else:
        assert measured["pearson"] == 0.0
    assert TASK.metric in measured


def test_settings_travel_as_json() -> None:
    task = Similarity(low=-1, high=1)

    assert task_from_dict(task_to_dict(task)) == task


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (5, 0, "low is 5 and high is 0; expected low below high, both finite"),
        (1, 1, "low is 1 and high is 1; expected low below high, both finite"),
        (0, math.inf, "low is 0 and high is inf; expected low below high, both finite"),
    ],
)
def test_a_scale_goes_up(low: float, high: float, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Similarity(low, high)

    assert str(caught.value) == message


MEANING = "a number from 0 (nothing in common) to 5 (the same meaning)"
OTHER_SCALE = "set the task's low and high where the data have another scale"


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("high", "invalid_type", f"field 'score' is 'high'; expected {MEANING}"),
        ("", "invalid_type", f"field 'score' is ''; expected {MEANING}"),
        ("nan", "invalid_type", f"field 'score' is 'nan'; expected {MEANING}"),
        (None, "invalid_type", f"field 'score' is null; expected {MEANING}"),
        (True, "invalid_type", f"field 'score' is true; expected {MEANING}"),
        ([3], "invalid_type", f"field 'score' is a list; expected {MEANING}"),
        (
            5.5,
            "out_of_range",
            f"field 'score' is 5.5; expected {MEANING}; {OTHER_SCALE}",
        ),
        (
            "-inf",
            "out_of_range",
            f"field 'score' is '-inf'; expected {MEANING}; {OTHER_SCALE}",
        ),
    ],
)
def test_a_bad_score_is_named_with_what_was_expected(value: object, code: str, message: str) -> None:
    assert refusal(TASK.target, {"score": value}) == (code, message)


def test_a_missing_score_is_named() -> None:
    row: Row = {"text": "a", "text_pair": "b", "scores": 3}

    code, message = refusal(TASK.target, row)

    assert code == "missing_field"
    assert message == (
        "field 'score' is missing: got 'text', 'text_pair', 'scores'; "
        f"expected {MEANING}; did you mean 'score' by 'scores'?"
    )


def test_a_missing_second_text_is_named() -> None:
    code, message = refusal(TASK.check, {"text": "a film"})

    assert code == "missing_field"
    assert message == (
        "field 'text_pair' is missing: got 'text'; expected the text to compare it with; "
        "did you mean 'text_pair' by 'text'?"
    )


def test_a_bare_text_is_no_pair() -> None:
    assert refusal(TASK.check, "a film") == (
        "invalid_type",
        "the row is a string; expected an object with the fields 'text', 'text_pair'",
    )


def test_a_model_learns_to_compare_and_answers_after_export(tiny_model: Path, tmp_path: Path) -> None:
    import suffuse
    from suffuse.export import export
    from suffuse.training.fit import fit

    rows = tmp_path / "pairs.csv"
    words = ["funny", "dull", "warm", "tired"]
    lines = [f"{one} {n},{two} {n},{5 * (one == two)}" for n in range(32) for one in words for two in (one, "boring")]
    rows.write_text("\n".join(["text,text_pair,score", *lines]) + "\n", "utf-8")
    recipe: dict[str, Any] = {
        "run": tmp_path / "run",
        "model.model": tiny_model,
        "model.optimization.learning_rate": 3e-3,
        "data.train": rows,
        "data.task": "Similarity",
        "data.loading.tokens_per_batch": 256,
        "trainer.max_epochs": 6,
        "trainer.accelerator": "cpu",
    }

    run = fit([f"--{key}={value}" for key, value in recipe.items()])
    model = suffuse.load(export(run, tmp_path / "bundle").path)

    same, other = model([{"text": "dull 3", "text_pair": pair} for pair in ("dull 3", "boring 3")])
    assert 0 <= other["score"] < same["score"] <= 5
    assert model.bundle.manifest.metrics["spearman"] > 0.5
