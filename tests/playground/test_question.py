"""A question is answered before it is explained, and whatever goes wrong is said in words, never raised."""

from typing import Any

import pytest

from suffuse.errors import ConnectError, OverloadError, RowError
from suffuse.playground.question import ask


def test_the_answer_comes_first_and_its_explanation_after_it(scripted: Any) -> None:  # noqa: ANN401
    model = scripted()

    first, second = ask("mine", model, {"text": "a warm <dull>", "other": "not for this model"})

    assert (first.answer, first.explanation, first.is_pending) == (model.answered, None, True)
    assert (second.answer, second.is_pending, second.problem) == (first.answer, False, "")
    assert second.explanation == model.explained
    assert first.answer_ms > 0
    assert second.explanation_ms > 0
    assert model.asked == [{"text": "a warm <dull>"}]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RowError("field 'text' is empty; expected the text to classify"),) * 2,
        (ConnectError("http://x: no connection"),) * 2,
        (OverloadError("429"), "The server is busy; ask again in a moment. (429)"),
        (
            ZeroDivisionError("secret"),
            "This could not be computed; the terminal in which the playground runs says why.",
        ),
    ],
)
def test_what_goes_wrong_is_said(scripted: Any, error: Exception, said: object) -> None:  # noqa: ANN401
    asked = list(ask("mine", scripted(answered=error), {"text": ""}))

    assert [(one.answer, one.problem, one.is_pending) for one in asked] == [(None, str(said), False)]


def test_an_answer_stays_where_its_explanation_fails(scripted: Any) -> None:  # noqa: ANN401
    model = scripted(explained=ConnectError("gone"))

    _, second = ask("mine", model, {"text": "a"})

    assert (second.answer, second.explanation, second.problem) == (model.answered, None, "gone")
