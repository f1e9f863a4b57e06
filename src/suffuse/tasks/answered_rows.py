"""Rows of question answering: their answers, checked against the context."""

from suffuse.errors import RowError, brief
from suffuse.tasks.base import Field, Row, check_present, check_text, describe

QUESTION = Field("question", "the question to answer")
CONTEXT = Field("context", "the text that holds the answer")
ANSWERS = Field("answers", 'an object with the lists "text" and "answer_start", both empty where there is no answer')


def answers_of(row: Row) -> list[tuple[str, int]]:
    """Text and start of each answer of a row.

    Raises:
        RowError: they are missing or malformed, or do not stand in the context where they say.
    """
    value = check_present(row, ANSWERS)
    if isinstance(value, list | tuple) and all(isinstance(answer, dict) for answer in value):
        value = {name: [check_present(answer, _PARTS[name]) for answer in value] for name in _PARTS}
    if not isinstance(value, dict):
        raise RowError(f"field 'answers' is {describe(value)}; expected {ANSWERS.meaning}", code="invalid_type")
    texts, starts = (_listed(value, field) for field in _PARTS.values())
    if len(texts) != len(starts):
        raise RowError(
            f"field 'answers' has {len(texts)} in 'text' and {len(starts)} in 'answer_start'; expected as many",
            code="invalid_answers",
        )
    context = check_text(row, CONTEXT)
    return [_checked(text, start, context) for text, start in zip(texts, starts, strict=True)]


_PARTS = {
    "text": Field("text", "the text of each answer"),
    "answer_start": Field("answer_start", "where in the context each answer starts, in characters"),
}


def _listed(answers: Row, field: Field) -> list[object]:
    value = check_present(answers, field)
    if not isinstance(value, list | tuple):
        raise RowError(
            f"field 'answers' has {describe(value)} in {field.name!r}; expected a list: {field.meaning}",
            code="invalid_type",
        )
    return list(value)


def _checked(text: object, start: object, context: str) -> tuple[str, int]:
    if not isinstance(text, str):
        raise RowError(f"field 'answers' has {describe(text)} in 'text'; expected strings", code="invalid_type")
    if not isinstance(start, int) or isinstance(start, bool):
        raise RowError(
            f"field 'answers' has {describe(start)} in 'answer_start'; expected whole numbers", code="invalid_type"
        )
    if not text.strip():
        raise RowError("field 'answers' has an empty text; expected empty lists for no answer", code="empty_text")
    if start < 0 or context[start : start + len(text)] != text:
        stands = brief(context[max(start, 0) : max(start, 0) + len(text)])
        raise RowError(
            f"field 'answers' has {brief(text)} at character {start}, where the context has {stands}; "
            "expected the answer word for word, counted in characters from 0",
            code="wrong_offset",
        )
    return text, start
