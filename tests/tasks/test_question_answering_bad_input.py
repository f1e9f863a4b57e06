"""Bad settings, rows and answers are named with what was got and what was expected."""

import pytest

from suffuse.errors import InputError, RowError
from suffuse.tasks import QuestionAnswering, Row

TASK = QuestionAnswering()
ROW: Row = {"question": "what is superb", "context": "the cast is superb and the story moves"}


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"overlap": -1}, "overlap is -1; expected at least 0"),
        ({"max_windows": 0}, "max_windows is 0; expected at least 1"),
        ({"max_answer_tokens": 0}, "max_answer_tokens is 0; expected at least 1"),
        ({"n_best": 0}, "n_best is 0; expected 1 to 100"),
        ({"n_best": 101}, "n_best is 101; expected 1 to 100"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_given: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        QuestionAnswering(**settings_given)  # type: ignore[arg-type]

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        (
            "who?",
            "invalid_type",
            "the row is a string; expected an object with the fields 'question', 'context'",
        ),
        (
            {"text": "a film", "label": "good"},
            "missing_field",
            "field 'question' is missing: got 'text', 'label'; expected the question to answer",
        ),
        (
            {"question": "who?", "contxt": "he"},
            "missing_field",
            (
                "field 'context' is missing: got 'question', 'contxt'; expected the text that holds the answer; "
                "did you mean 'context' by 'contxt'?"
            ),
        ),
        (
            {"question": 3, "context": "he"},
            "invalid_type",
            "field 'question' is 3; expected a string: the question to answer",
        ),
        (
            {"question": "who?", "context": ["he"]},
            "invalid_type",
            "field 'context' is a list; expected a string: the text that holds the answer",
        ),
        (
            {"question": " \n", "context": "he"},
            "empty_text",
            "field 'question' is empty; expected the question to answer",
        ),
        (
            {"question": "who?", "context": ""},
            "empty_text",
            "field 'context' is empty; expected the text that holds the answer",
        ),
    ],
)
def test_a_bad_row_is_named_with_what_was_expected(row: object, code: str, message: str) -> None:
    with pytest.raises(RowError) as caught:
        TASK.check(row)

    assert (caught.value.code, str(caught.value)) == (code, message)


MEANING = 'an object with the lists "text" and "answer_start", both empty where there is no answer'


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ("the cast", "invalid_type", f"field 'answers' is a string; expected {MEANING}"),
        (None, "invalid_type", f"field 'answers' is null; expected {MEANING}"),
        (["the cast"], "invalid_type", f"field 'answers' is a list; expected {MEANING}"),
        (
            {"text": ["the cast"]},
            "missing_field",
            (
                "field 'answer_start' is missing: got 'text'; expected where in the context each answer starts, in "
                "characters"
            ),
        ),
        (
            [{"txt": "the cast", "answer_start": 0}],
            "missing_field",
            (
                "field 'text' is missing: got 'txt', 'answer_start'; expected the text of each answer; did you mean "
                "'text' by 'txt'?"
            ),
        ),
        (
            {"text": "the cast", "answer_start": [0]},
            "invalid_type",
            "field 'answers' has a string in 'text'; expected a list: the text of each answer",
        ),
        (
            {"text": ["the cast"], "answer_start": 0},
            "invalid_type",
            (
                "field 'answers' has 0 in 'answer_start'; expected a list: where in the context each answer starts, in "
                "characters"
            ),
        ),
        (
            {"text": ["the cast", "superb"], "answer_start": [0]},
            "invalid_answers",
            "field 'answers' has 2 in 'text' and 1 in 'answer_start'; expected as many",
        ),
        ({"text": [7], "answer_start": [0]}, "invalid_type", "field 'answers' has 7 in 'text'; expected strings"),
        (
            {"text": ["the cast"], "answer_start": ["0"]},
            "invalid_type",
            "field 'answers' has a string in 'answer_start'; expected whole numbers",
        ),
        (
            {"text": ["the cast"], "answer_start": [True]},
            "invalid_type",
            "field 'answers' has true in 'answer_start'; expected whole numbers",
        ),
        (
            {"text": [" "], "answer_start": [3]},
            "empty_text",
            "field 'answers' has an empty text; expected empty lists for no answer",
        ),
        (
            {"text": ["the cast"], "answer_start": [1]},
            "wrong_offset",
            (
                "field 'answers' has 'the cast' at character 1, where the context has 'he cast '; expected the answer "
                "word for word, counted in characters from 0"
            ),
        ),
        (
            {"text": ["move"], "answer_start": [-5]},
            "wrong_offset",
            (
                "field 'answers' has 'move' at character -5, where the context has 'the '; expected the answer word "
                "for word, counted in characters from 0"
            ),
        ),
        (
            {"text": ["x" * 99], "answer_start": [500]},
            "wrong_offset",
            (
                f"field 'answers' has '{'x' * 40}…' at character 500, where the context has ''; expected the answer "
                "word for word, counted in characters from 0"
            ),
        ),
    ],
)
def test_bad_answers_are_named_with_what_was_expected(answers: object, code: str, message: str) -> None:
    with pytest.raises(RowError) as caught:
        TASK.target({**ROW, "answers": answers})

    assert (caught.value.code, str(caught.value)) == (code, message)


def test_a_row_without_the_field_answers_is_named() -> None:
    with pytest.raises(RowError) as caught:
        TASK.target({"question": "who?", "context": "he"})

    assert str(caught.value) == f"field 'answers' is missing: got 'question', 'context'; expected {MEANING}"
