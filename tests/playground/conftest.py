"""A model that answers what it is told to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from suffuse.tasks import Answer, Field, Row

TEXT = Field("text", "the text to classify")
EXPLANATION = {
    "answer": {"label": "good", "score": 0.75, "scores": {"bad": 0.25, "good": 0.75}},
    "method": "integrated",
    "windows": 1,
    "explained": [
        {
            "target": "good",
            "value": 1.5,
            "gap": 0.01,
            "steps": 16,
            "words": [
                {"text": "warm", "start": 2, "end": 6, "score": 1.0, "field": "text"},
                {"text": "<dull>", "start": 7, "end": 13, "score": -0.5, "field": "text"},
            ],
            "other": 0.0,
        }
    ],
}


@dataclass(frozen=True)
class Scripted:
    """Answers and explains as told, or raises."""

    answered: Answer | Exception = field(default_factory=lambda: dict(EXPLANATION["answer"]))  # type: ignore[call-overload]
    explained: Mapping[str, Any] | Exception = field(default_factory=lambda: EXPLANATION)
    fields: tuple[Field, ...] = (TEXT,)
    name: str = "scripted"
    asked: list[Row] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    def answer(self, row: Row) -> Answer:
        self.asked.append(row)
        if isinstance(self.answered, Exception):
            raise self.answered
        return self.answered

    def explain(self, row: Row, method: str = "") -> Mapping[str, Any]:  # noqa: ARG002 - as told, whatever is asked
        self.methods.append(method)
        if isinstance(self.explained, Exception):
            raise self.explained
        return self.explained


@pytest.fixture
def scripted() -> type[Scripted]:
    """The class of scripted models."""
    return Scripted
