"""A text as it was sent, cut into parts of one look: words by score, what an answer marks in it, and the rest."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TypeVar

from suffuse.explain.colours import step_class, step_of
from suffuse.explain.words import Word
from suffuse.tasks import Answer


@dataclass(frozen=True)
class Mark:
    """A part of a text that an answer points at.

    Args:
        start: its first character.
        end: the character behind its last.
        label: of an entity; ``answer`` where it is one.
    """

    start: int
    end: int
    label: str


_Span = TypeVar("_Span", Word, Mark)


@dataclass(frozen=True)
class Part:
    """A word, or what stands between words; `score` is None where nothing was counted."""

    text: str
    score: float | None
    step: int


@dataclass(frozen=True)
class Stretch:
    """Parts that follow one another under the same mark, or under none."""

    parts: tuple[Part, ...]
    mark: Mark | None


def passages(texts: Mapping[str, str], words: Sequence[Word], answer: Answer) -> dict[str, tuple[Stretch, ...]]:
    """Cut each text of a row, by field; what an answer points at is in the last.

    Args:
        texts: as they were sent, by field.
        words: of all of them, with their scores for one thing that was answered.
        answer: what the predictor gave.
    """
    strongest = max((abs(word.score) for word in words), default=0.0)
    marks = {field: marks_of(answer) for field in list(texts)[-1:]}
    return {
        field: passage(text, [word for word in words if word.field == field], marks.get(field, ()), strongest)
        for field, text in texts.items()
    }


def marks_of(answer: Answer) -> tuple[Mark, ...]:
    """What an answer points at: entities, or the answer to a question."""
    if answer.get("answer"):
        return (Mark(answer["start"], answer["end"], "answer"),)
    return tuple(Mark(entity["start"], entity["end"], entity["label"]) for entity in answer.get("entities", ()))


def passage(text: str, words: Sequence[Word], marks: Sequence[Mark], strongest: float) -> tuple[Stretch, ...]:
    """Cut a text; the parts put together are the text again.

    Args:
        text: as it was sent.
        words: of this text alone, in order.
        marks: of what begins within another all but the first are left out.
        strongest: the score with the fullest colour, which several texts may share.
    """
    apart = _apart(marks)
    edges = {0, len(text)}
    for span in [(span.start, span.end) for span in words] + [(mark.start, mark.end) for mark in apart]:
        edges.update(span)
    mark_starts, word_starts = [mark.start for mark in apart], [word.start for word in words]
    stretches: list[Stretch] = []
    for start, end in pairwise(sorted(edges)):
        mark = _covering(apart, mark_starts, start)
        word = _covering(words, word_starts, start)
        score = None if word is None else word.score
        part = Part(text[start:end], score, 0 if score is None else step_of(score, strongest))
        if stretches and stretches[-1].mark == mark:
            stretches[-1] = Stretch((*stretches[-1].parts, part), mark)
        else:
            stretches.append(Stretch((part,), mark))
    return tuple(stretches)


def as_html(stretches: Sequence[Stretch], current: tuple[int, int] | None = None) -> str:
    """The passage for a page; no white space is added, and nothing of the text is markup.

    Args:
        stretches: of one text.
        current: start and end of the mark that is explained, which is drawn more strongly.
    """
    return "".join(_stretch_html(stretch, current) for stretch in stretches)


def _stretch_html(stretch: Stretch, current: tuple[int, int] | None) -> str:
    inside = "".join(_part_html(part) for part in stretch.parts)
    if stretch.mark is None:
        return inside
    style = ' class="current"' if (stretch.mark.start, stretch.mark.end) == current else ""
    return f'<mark{style} data-label="{escape(stretch.mark.label)}">{inside}</mark>'


def _part_html(part: Part) -> str:
    if part.score is None:
        return escape(part.text)
    return f'<span class="w {step_class(part.step)}" title="{part.score:+.3f}">{escape(part.text)}</span>'


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    apart: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, mark.end)):
        if mark.start < mark.end and (not apart or mark.start >= apart[-1].end):
            apart.append(mark)
    return apart


def _covering(spans: Sequence[_Span], starts: Sequence[int], place: int) -> _Span | None:
    """The one of spans in order that a character is in."""
    index = bisect_right(starts, place) - 1
    return spans[index] if index >= 0 and place < spans[index].end else None
