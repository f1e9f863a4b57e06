"""An answer must be right, and whatever is wrong with one must be named."""

import json
import re
from typing import Any

import pytest

from suffuse.load_test.checks import Checker, RequestFailedError, difference, shape_fault

GOOD = {"label": "good", "score": 0.75, "scores": {"bad": 0.25, "good": 0.75}}
SCORES = "the scores {'bad': 0.25, 'good': 0.75}"
ENTITY = {"text": "Ann", "label": "PER", "start": 4, "end": 7, "score": 0.9}
ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": "say Ann"},
    "tokens": {"tokens": ["say", "Ann"]},
    "question": {"question": "who?", "context": "say Ann"},
}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ("text", GOOD),
        ("text", {**GOOD, "truncated": True}),
        ("text", {"labels": ["a"], "scores": {"a": 0.9, "b": 0.4}}),
        ("text", {"labels": [], "scores": {"a": 0.1, "b": 0.4}}),
        ("text", {"entities": [ENTITY]}),
        ("tokens", {"entities": [ENTITY]}),
        ("question", {"answer": "Ann", "start": 4, "end": 7, "score": 0.5}),
        ("question", {"answer": "", "start": 0, "end": 0, "score": 0.5}),
        ("text", {"score": 3.2}),
        ("text", {"translation": "dis Ann", "score": -1.5}),
    ],
)
def test_answers_of_every_task_are_right(row: str, answer: dict[str, Any]) -> None:
    assert shape_fault(answer, ROWS[row]) is None


@pytest.mark.parametrize(
    ("row", "answer", "fault"),
    [
        ("text", [GOOD], "a list where an object was expected"),
        ("text", {}, "no task answers with nothing"),
        ("text", {"slept": 1}, "no task answers with slept"),
        ("text", {**GOOD, "label": "poor"}, f"label 'poor' with score 0.75 is not in {SCORES}"),
        ("text", {**GOOD, "score": 0.7}, f"label 'good' with score 0.7 is not in {SCORES}"),
        (
            "text",
            {**GOOD, "label": "bad", "score": 0.25},
            f"label 'bad' has not the highest of {SCORES}",
        ),
        ("text", {**GOOD, "scores": {"good": 0.75}}, "the scores sum to 0.75; expected 1"),
        ("text", {**GOOD, "scores": {}}, "scores are {}; expected some from 0 to 1"),
        ("text", {**GOOD, "scores": {"good": 1.5}}, "scores are {'good': 1.5}; expected some from 0 to 1"),
        ("text", {"labels": ["c"], "scores": {"a": 0.9}}, "labels ['c'] have no scores"),
        ("text", {"entities": [{**ENTITY, "start": 3}]}, "entity 'Ann' does not stand at 3 to 7"),
        ("text", {"entities": [{**ENTITY, "score": 7}]}, "entity 'Ann' has label 'PER' and score 7"),
        ("question", {"answer": "Bob", "start": 4, "end": 7}, "the answer 'Bob' does not stand at 4 to 7"),
        ("question", {"answer": "Ann", "start": 4, "end": 7, "score": 5}, "the score is 5; expected 0 to 1"),
        ("text", {"translation": 5}, "the translation is no text"),
        ("text", {"scores": {"a": 1.0}}, '{"scores": {"a": 1.0}} is incomplete (KeyError: \'label\')'),
        ("text", {"entities": [{"start": 0}]}, """{"entities": [{"start": 0}]} is incomplete (KeyError: 'end')"""),
    ],
)
def test_each_wrong_answer_is_named(row: str, answer: object, fault: str) -> None:
    assert shape_fault(answer, ROWS[row]) == fault


@pytest.mark.parametrize(
    ("known", "answer", "expected"),
    [
        (GOOD, GOOD, None),
        (GOOD, {**GOOD, "scores": {"good": 0.75005, "bad": 0.24995}}, None),
        (GOOD, {**GOOD, "scores": {"bad": 0.26, "good": 0.74}}, "got 0.26 but 0.25"),
        # As good as equal: either label may be named.
        (
            {"label": "a", "score": 0.50001, "scores": {"a": 0.50001, "b": 0.49999}},
            {"label": "b", "score": 0.50001, "scores": {"a": 0.49999, "b": 0.50001}},
            None,
        ),
        ({"entities": [ENTITY]}, {"entities": []}, "got 0 but 1"),
        ({"entities": [ENTITY]}, {"entities": [{**ENTITY, "label": "LOC"}]}, "got 'LOC' but 'PER'"),
        ({"score": 1.0}, {"score": 1}, None),
        ({"score": 1.0}, {"score": 1.0, "truncated": True}, "got score, truncated but score"),
    ],
)
def test_answers_differ_by_more_than_the_last_digits(known: object, answer: object, expected: str | None) -> None:
    assert difference(known, answer) == expected


def dump(answer: object) -> bytes:
    return json.dumps(answer).encode()


def test_one_row_must_be_answered_the_same_each_time() -> None:
    checker = Checker(['{"text":"a"}', '{"text":"b"}', '{"text":"a"}'], None)
    checker.check(0, dump({"score": 1.0}))
    checker.check(1, dump({"score": 2.0}))

    with pytest.raises(RequestFailedError, match=r'^got 2 but 1 before; the row is {"text": "a"}$') as caught:
        checker.check(2, dump({"score": 2.0}))
    assert caught.value.kind == "wrong answer"


def test_expected_answers_count_from_the_first_request() -> None:
    checker = Checker(['{"text":"a"}'], [{"score": 1.0}])

    with pytest.raises(RequestFailedError, match=r'^got 2 but 1 expected; the row is {"text": "a"}$'):
        checker.check(0, dump({"score": 2.0}))


def test_answers_that_may_change_are_checked_by_their_shape_alone() -> None:
    checker = Checker(['{"text":"a"}'], None, answers_may_change=True)
    checker.check(0, dump({"score": 1.0}))

    checker.check(0, dump({"score": 2.0}))


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (b"<html>", "wrong answer", "not JSON: b'<html>'"),
        (b'{"error": {"code": "missing_field", "message": "no text"}}', "error missing_field", "no text"),
    ],
)
def test_reply_that_is_no_answer_is_a_failure(reply: bytes, kind: str, message: str) -> None:
    with pytest.raises(RequestFailedError, match=f"^{re.escape(message)}$") as caught:
        Checker(['{"text":"a"}'], None).check(0, reply)
    assert caught.value.kind == kind
