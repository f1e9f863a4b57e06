"""A task is its JSON, and a row is checked before anything is computed from it."""

import contextlib
import json
import re
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import BundleError, RowError
from suffuse.tasks import TASKS, Classification, Task, task_from_dict, task_to_dict

TASK = Classification(("bad", "good"))
KNOWN = "classification, token_classification, question_answering, similarity"
PAIR_TASK = Classification(("bad", "good"), pair=True)


def refusal(row: object, task: Task = TASK) -> RowError:
    with pytest.raises(RowError) as caught:
        task.check(row)
    return caught.value


@given(
    st.builds(
        Classification,
        labels=st.lists(st.text(max_size=5), unique=True, max_size=4).map(tuple),
        pair=st.booleans(),
        multi_label=st.booleans(),
        threshold=st.floats(0, 1),
    )
)
@settings(deadline=None, max_examples=50)
def test_a_task_comes_back_from_its_json(task: Classification) -> None:
    assert task_from_dict(json.loads(json.dumps(task_to_dict(task)))) == task


@pytest.mark.parametrize("task", TASKS.values())
def test_a_task_is_found_under_its_name_and_described_whole(task: type[Task]) -> None:
    assert TASKS[task.name] is task
    assert set(task_to_dict(task())) == {"name", *(field.name for field in fields(task))}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "poetry"}, "task 'poetry' is not known to this version; expected one of " + KNOWN),
        ({}, "task None is not known to this version; expected one of " + KNOWN),
        (
            {"name": "classification", "lables": [], "hue": 1},
            (
                "task 'classification' has no setting hue, lables; "
                "expected labels, max_windows, multi_label, pair, threshold"
            ),
        ),
    ],
)
def test_a_task_of_another_version_is_refused(description: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match="^" + re.escape(message) + "$"):
        task_from_dict(description)


def test_a_bare_text_is_a_row_where_there_is_one_field() -> None:
    assert TASK.check("fine") == {"text": "fine"}


def test_a_row_may_hold_more_than_is_asked() -> None:
    row = {"text": "fine", "id": 7}

    assert TASK.check(row) is row


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        (["fine"], "invalid_type", "the row is a list; expected an object with the field 'text'"),
        (None, "invalid_type", "the row is null; expected an object with the field 'text'"),
        (3, "invalid_type", "the row is 3; expected an object with the field 'text'"),
        (float("nan"), "invalid_type", "the row is NaN; expected an object with the field 'text'"),
        (b"fine", "invalid_type", "the row is of type bytes; expected an object with the field 'text'"),
        ({"text": 3}, "invalid_type", "field 'text' is 3; expected a string: the text to classify"),
        ({"text": True}, "invalid_type", "field 'text' is true; expected a string: the text to classify"),
        ({"text": None}, "invalid_type", "field 'text' is null; expected a string: the text to classify"),
        ({"text": {"a": 1}}, "invalid_type", "field 'text' is an object; expected a string: the text to classify"),
        ({"text": ""}, "empty_text", "field 'text' is empty; expected the text to classify"),
        ("\n \t\u00a0", "empty_text", "field 'text' is empty; expected the text to classify"),
        (
            {"text": "a\0b"},
            "invalid_text",
            "field 'text' holds a NUL character at position 1; expected text, not binary data",
        ),
        (
            {"text": "ab\ud83d"},
            "invalid_text",
            "field 'text' holds a lone surrogate (U+D83D) at position 2; expected valid Unicode",
        ),
        ({}, "missing_field", "field 'text' is missing: the row has no fields; expected the text to classify"),
        (
            {"txet": "fine"},
            "missing_field",
            "field 'text' is missing: got 'txet'; expected the text to classify; did you mean 'text' by 'txet'?",
        ),
        (
            {"body": "fine", "id": 1},
            "missing_field",
            "field 'text' is missing: got 'body', 'id'; expected the text to classify",
        ),
        (
            {"x" * 100: "fine"},
            "missing_field",
            f"field 'text' is missing: got '{'x' * 40}…'; expected the text to classify",
        ),
    ],
)
def test_a_bad_row_says_what_it_held_and_what_was_expected(row: object, code: str, message: str) -> None:
    error = refusal(row)

    assert (error.code, str(error), error.status) == (code, message, 422)


def test_a_row_of_a_thousand_fields_is_refused_in_one_line() -> None:
    assert str(refusal({f"field {number}": "x" for number in range(1000)})).count("'field ") == 12


def test_a_bare_text_is_no_pair() -> None:
    assert str(refusal("fine", PAIR_TASK)) == (
        "the row is a string; expected an object with the fields 'text', 'text_pair'"
    )


def test_the_second_text_of_a_pair_is_checked_as_the_first() -> None:
    assert str(refusal({"text": "fine", "text_pair": " "}, PAIR_TASK)) == (
        "field 'text_pair' is empty; expected the second text of the pair"
    )


def test_an_error_names_the_place_that_a_reader_knows() -> None:
    error = refusal({}).at("reviews.csv:3")

    assert str(error) == (
        "reviews.csv:3: field 'text' is missing: the row has no fields; expected the text to classify"
    )
    assert (error.code, error.where) == ("missing_field", "reviews.csv:3")


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
@settings(deadline=None, max_examples=100)
def test_whatever_is_checked_is_a_row_or_a_row_error(row: object) -> None:
    with contextlib.suppress(RowError):
        assert TASK.check(row)["text"].strip()
