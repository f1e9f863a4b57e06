"""A validation says how sure its measures are, and where the model fails; temperature changes no answer."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from suffuse.tasks import Arrays, Classification, QuestionAnswering, Row, Similarity, Task, TokenClassification, Window
from suffuse.tasks.decisions import NOTHING
from suffuse.training.evaluation import OTHERS, evaluate, intervals

LABELS = ("bad", "fine", "good")
TASK = Classification(LABELS)
Case = tuple[list[Row], list[Window], list[Arrays]]


def window(row: int, tokens: int, spans: np.ndarray | None = None) -> Window:
    return Window(row, {"input_ids": np.ones(tokens, dtype=np.int64)}, spans=spans)


def single(count: int, labels: Sequence[str] = LABELS, seed: int = 0) -> Case:
    """Rows whose labels are drawn from what the logits say, of one window each."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, len(labels)))
    right = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    rows: list[Row] = [{"text": "film", "label": labels[index]} for index in right]
    windows = [window(row, int(random.integers(3, 60))) for row in range(count)]
    return rows, windows, [{"logits": logits_c} for logits_c in logits]


def several(count: int) -> Case:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (count, 3))
    right = logits + random.logistic(size=logits.shape) > 0
    rows: list[Row] = [{"text": "film", "labels": [LABELS[i] for i in np.flatnonzero(row)]} for row in right]
    return rows, [window(row, 9) for row in range(count)], [{"logits": logits_c} for logits_c in logits]


def tagged(count: int) -> Case:
    random = np.random.default_rng(2)
    spans = np.array([(-1, -1), (0, 3), (4, 7), (8, 12), (-1, -1)])
    rows: list[Row] = []
    outputs: list[Arrays] = []
    for _ in range(count):
        logits = random.normal(0, 2, (5, 3))
        tags = [("O", "B-PER", "I-PER")[index] for index in (logits + random.gumbel(size=(5, 3))).argmax(axis=1)[1:4]]
        legal = [tag if tag != "I-PER" or (at and tags[at - 1] != "O") else "B-PER" for at, tag in enumerate(tags)]
        rows.append({"text": "Ann Lee came", "tokens": ["Ann", "Lee", "came"], "tags": legal})
        outputs.append({"logits": logits})
    return rows, [window(row, 5, spans) for row in range(count)], outputs


def questions(count: int) -> Case:
    random = np.random.default_rng(3)
    spans = np.array([(-1, -1), (-1, -1), (0, 3), (4, 7), (8, 12), (-1, -1)])
    rows: list[Row] = []
    for number in range(count):
        answers = [{"text": "Lee", "answer_start": 4}] if number % 3 else []
        rows.append({"question": "who", "context": "Ann Lee came", "answers": answers})
    outputs: list[Arrays] = [{"logits": random.normal(0, 2, (8, 2))} for _ in range(count)]  # padded by two
    return rows, [window(row, 6, spans) for row in range(count)], outputs


CASES: list[tuple[Task, Case]] = [
    (TASK, single(60)),
    (Classification(LABELS, multi_label=True), several(60)),
    (Classification(LABELS, multi_label=True, threshold=0.3), several(60)),
    (TokenClassification(("O", "B-PER", "I-PER")), tagged(60)),
    (QuestionAnswering(no_answer=True, no_answer_threshold=0.7), questions(60)),
    (Similarity(), ([{"score": n % 5} for n in range(60)], [window(n, 4) for n in range(60)],
                    [{"logits": np.array([n % 7 - 3.0])} for n in range(60)])),
]  # fmt: skip


def without_scores(answer: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(answer, dict):
        return {key: without_scores(value) for key, value in answer.items() if key not in ("score", "scores")}
    return [without_scores(one) for one in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0, 10.0])
@pytest.mark.parametrize(("task", "case"), CASES[:-1])
def test_no_answer_changes_by_a_temperature(task: Task, case: Case, temperature: float) -> None:
    rows, windows, outputs = case
    divided = [{"logits": output["logits"] / temperature} for output in outputs]

    answers = task.decode(rows, windows, outputs)
    tempered = task.tempered(temperature).decode(rows, windows, divided)

    assert without_scores(tempered) == without_scores(answers)
    assert tempered != answers


@pytest.mark.parametrize(("task", "case"), CASES)
def test_every_task_is_evaluated(task: Task, case: Case) -> None:
    evaluated = evaluate(task, *case)

    assert evaluated.details["rows"] == 60
    assert evaluated.metrics.keys() == evaluated.details["intervals"].keys()
    for name, value in evaluated.metrics.items():
        low, high = evaluated.details["intervals"][name]
        assert low <= value <= high
    assert sum(one["rows"] for one in evaluated.details["slices"]["length"]) == 60


@pytest.mark.parametrize(("task", "case"), CASES[:-1])
def test_scores_that_are_probabilities_are_calibrated(task: Task, case: Case) -> None:
    evaluated = evaluate(task, *case)

    assert evaluated.details["calibration"]["temperature"] == evaluated.temperature != 1.0


def test_scores_that_are_no_probabilities_are_left_as_they_are() -> None:
    task, case = CASES[-1]

    evaluated = evaluate(task, *case)

    assert evaluated.temperature == 1.0
    assert not evaluated.details.keys() & {"calibration", "confusion"}


def test_interval_of_a_share_is_the_binomial_one() -> None:
    rows, windows, outputs = single(400)
    answers, targets = TASK.decode(rows, windows, outputs), [TASK.target(row) for row in rows]

    low, high = intervals(TASK, TASK.tallies(answers, targets))["accuracy"]

    share = TASK.metrics(answers, targets)["accuracy"]
    margin = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert [low, high] == pytest.approx([share - margin, share + margin], abs=0.01)


def test_windows_of_a_long_row_count_together() -> None:
    rows: list[Row] = [{"text": "film", "label": "bad"}, {"text": "film", "label": "good"}]
    outputs: list[Arrays] = [{"logits": np.array([1.0, 0.0, 0.0])}] * 3

    found = evaluate(TASK, rows, [window(0, 12), window(0, 8), window(1, 16)], outputs).details["slices"]["length"]

    assert found == [
        {"slice": "1-16 tokens", "rows": 1, "accuracy": 0.0},
        {"slice": "17-32 tokens", "rows": 1, "accuracy": 1.0},
    ]


def test_labels_have_precision_and_recall_and_are_told_apart() -> None:
    rows: list[Row] = [{"text": "film", "label": label} for label in ("bad", "bad", "good", "fine")]
    given = (0, 2, 2, 2)
    outputs: list[Arrays] = [{"logits": np.eye(3)[index]} for index in given]

    details = evaluate(TASK, rows, [window(row, 4) for row in range(4)], outputs).details

    assert details["slices"]["label"] == [
        {"slice": "bad", "rows": 2, "precision": 1.0, "recall": 0.5, "f1": 0.666667},
        {"slice": "fine", "rows": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        {"slice": "good", "rows": 1, "precision": 0.333333, "recall": 1.0, "f1": 0.5},
    ]
    assert details["confusion"] == {
        "labels": ["bad", "fine", "good"],
        "counts": [[1, 0, 1], [0, 0, 1], [0, 0, 1]],
    }


def test_entities_that_were_missed_or_are_too_many_are_beside_nothing() -> None:
    task = TokenClassification(("O", "B-LOC", "B-PER", "I-LOC", "I-PER"))
    answers = [{"entities": [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 9, "label": "LOC"}]}]
    row = {"tokens": ["Ann", "Lee", "came"], "tags": ["B-LOC", "B-PER", "O"]}

    assert task.confusions(answers, [task.target(row)]) == [("LOC", "PER"), ("PER", NOTHING), (NOTHING, "LOC")]


def test_rare_labels_are_put_together_where_there_are_many() -> None:
    labels = tuple(f"label {number:02}" for number in range(40))

    confusion = evaluate(Classification(labels), *single(300, labels)).details["confusion"]

    assert len(confusion["labels"]) == 19
    assert confusion["labels"][-1] == OTHERS
    assert sum(map(sum, confusion["counts"])) == 300


def test_answers_to_questions_keep_their_threshold_when_logits_are_divided() -> None:
    task = QuestionAnswering(no_answer=True, no_answer_threshold=3.0)

    assert task.tempered(2.0) == replace(task, no_answer_threshold=1.5)


def test_a_threshold_of_one_half_stays() -> None:
    assert Classification(("a",), multi_label=True).tempered(3.0).threshold == 0.5


def test_evaluating_many_rows_takes_seconds() -> None:
    case = single(20_000)
    start_s = time.perf_counter()

    evaluate(TASK, *case)

    assert time.perf_counter() - start_s < 20
