"""Which answers are given, and with which score, for logits made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from suffuse.tasks import QuestionAnswering, Row, Window

TASK = QuestionAnswering()
UNSURE = QuestionAnswering(no_answer=True)


def one_window(starts: Sequence[float], ends: Sequence[float], null: float = 0.0) -> tuple[Row, Window, dict[str, Any]]:
    """A context of single letters, each a token with these logits, behind one token for no answer."""
    context = " ".join("klmnopqr"[: len(starts)])
    spans = np.array([[-1, -1], *([2 * place, 2 * place + 1] for place in range(len(starts)))])
    window = Window(0, {"input_ids": np.arange(len(spans))}, spans=spans)
    logits = np.array([[null / 2, null / 2], *zip(starts, ends, strict=True)], dtype=np.float32)
    return {"question": "?", "context": context}, window, {"logits": logits}


def answer_to(task: QuestionAnswering, case: tuple[Row, Window, dict[str, Any]]) -> dict[str, Any]:
    row, window, output = case
    (answer,) = task.decode([row], [window], [output])
    return answer


def test_a_score_is_the_share_among_all_spans_and_no_answer() -> None:
    case = one_window(starts=[1.0, 0.0], ends=[0.0, 2.0], null=0.5)
    weights = {"k": np.exp(1.0), "k l": np.exp(3.0), "l": np.exp(2.0)}

    answers = [answer_to(replace(task, n_best=2), case) for task in (TASK, UNSURE)]

    for answer, total in zip(answers, (sum(weights.values()), sum(weights.values()) + np.exp(0.5)), strict=True):
        assert [(one["answer"], one["score"]) for one in (answer, *answer["alternatives"])] == [
            (text, pytest.approx(weights[text] / total, abs=1e-6)) for text in ("k l", "l")
        ]


def test_an_answer_is_no_longer_than_allowed() -> None:
    case = one_window(starts=[9.0, 0.0, 0.0, 1.0], ends=[0.0, 0.0, 2.0, 9.0])

    answers = [answer_to(QuestionAnswering(max_answer_tokens=most), case)["answer"] for most in (4, 3, 1)]

    assert answers == ["k l m n", "k l m", "n"]


def test_the_end_of_an_answer_is_never_before_its_start() -> None:
    assert answer_to(TASK, one_window(starts=[0.0, 0.0, 9.0], ends=[9.0, 0.0, 1.0]))["answer"] == "m"


def test_of_equal_spans_the_earliest_and_shortest_is_given() -> None:
    assert answer_to(replace(TASK, n_best=3), one_window(starts=[0.0] * 8, ends=[0.0] * 8)) == {
        "answer": "k",
        "start": 0,
        "end": 1,
        "score": pytest.approx(1 / 36, abs=1e-6),
        "alternatives": [
            {"answer": "k l", "start": 0, "end": 3, "score": pytest.approx(1 / 36, abs=1e-6)},
            {"answer": "k l m", "start": 0, "end": 5, "score": pytest.approx(1 / 36, abs=1e-6)},
        ],
    }


def test_a_span_that_two_windows_show_counts_once_with_its_better_score() -> None:
    row, window, low = one_window(starts=[1.0], ends=[1.0])
    _, _, high = one_window(starts=[2.0], ends=[1.0])

    (answer,) = replace(TASK, n_best=5).decode([row], [window, window], [low, high])

    assert answer == {"answer": "k", "start": 0, "end": 1, "score": 1.0, "alternatives": []}


@pytest.mark.parametrize(
    ("threshold", "null", "text"), [(0.0, 5.0, ""), (0.0, 3.9, "k"), (1.0, 4.9, "k"), (-1.0, 3.1, ""), (0.0, 4.0, "k")]
)
def test_no_answer_is_given_where_it_scores_above_the_best_one_by_the_threshold(
    threshold: float, null: float, text: str
) -> None:
    task = replace(UNSURE, no_answer_threshold=threshold)

    answer = answer_to(task, one_window(starts=[3.0], ends=[1.0], null=null))

    assert (answer["answer"], answer["start"], answer["end"]) == (text, 0, len(text))
    share = 1 / (1 + np.exp(null - 4.0))
    assert answer["score"] == pytest.approx(share if text else 1 - share, abs=1e-5)


def test_no_answer_is_never_given_unless_some_training_row_had_none() -> None:
    assert answer_to(TASK, one_window(starts=[0.0], ends=[0.0], null=99.0))["answer"] == "k"


def test_alternatives_to_no_answer_are_the_likeliest_spans() -> None:
    answer = answer_to(replace(UNSURE, n_best=2), one_window(starts=[1.0, 0.0], ends=[1.0, 0.0], null=9.0))

    assert (answer["answer"], [one["answer"] for one in answer["alternatives"]]) == ("", ["k"])


def test_one_window_that_is_sure_of_an_answer_outweighs_those_that_have_none() -> None:
    row, window, sure = one_window(starts=[3.0], ends=[3.0], null=-5.0)
    _, _, without = one_window(starts=[0.0], ends=[0.0], null=20.0)

    (answer,) = UNSURE.decode([row], [window, window], [without, sure])

    assert answer["answer"] == "k"


def test_calibration_finds_the_threshold_that_tells_rows_with_an_answer_from_those_without() -> None:
    rows, windows, outputs = [], [], []
    for index, (null, accepted) in enumerate([(1.0, ["k"]), (2.0, ["k"]), (4.0, []), (5.0, [])]):
        row, window, output = one_window(starts=[0.0], ends=[0.0], null=null)
        rows.append({**row, "answers": {"text": accepted, "answer_start": [0] * len(accepted)}})
        windows.append(replace(window, row=index))
        outputs.append(output)

    calibrated = UNSURE.calibrate(rows, windows, outputs)

    assert calibrated == replace(UNSURE, no_answer_threshold=3.0)
    assert [answer["answer"] for answer in calibrated.decode(rows, windows, outputs)] == ["k", "k", "", ""]


def test_calibration_leaves_a_task_alone_that_always_answers() -> None:
    row, window, output = one_window(starts=[0.0], ends=[0.0], null=9.0)

    assert TASK.calibrate([{**row, "answers": []}], [window], [output]) is TASK
