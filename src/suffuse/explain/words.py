"""Scores of tokens as scores of words, each with its place in the text as it was sent."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suffuse.tasks.words import word_spans

_BETWEEN_BRACKETS = re.compile(r"[<>]|[^<>]+")


@dataclass(frozen=True)
class Word:
    """A part of a text and what it counts.

    Args:
        text: as it stands in the field.
        start: its first character there.
        end: the character behind its last.
        score: above 0 where it speaks for what is explained, below 0 where it speaks against.
        field: of the row.
    """

    text: str
    start: int
    end: int
    score: float
    field: str


def scored_words(
    text: str, field: str, spans_n2: NDArray[np.int64], scores_n: NDArray[np.float64]
) -> tuple[list[Word], float]:
    """Give each word of a text the sum of its tokens' scores.

    Words are cut as entity models see them, punctuation at their ends standing alone, and at the brackets of HTML.
    Where one token covers several words, they are one; where a token is of no word, such as a control character, it is
    one of its own. Words without a token are left out.

    Args:
        text: the words are of.
        field: its name.
        spans_n2: start and end of each token in it, (N, 2); a token may occur several times, as windows overlap.
        scores_n: their scores, (N,).

    Returns:
        The words in order, and the score of tokens that are white space alone.
    """
    trimmed = [_trimmed(text, *span) for span in spans_n2.tolist()]
    taken = {span for span in trimmed if span[0] < span[1]}
    parts = _joined([*_words(text), *taken])
    starts = [start for start, _ in parts]
    totals = np.zeros(len(parts))
    is_hit = np.zeros(len(parts), dtype=bool)
    blank = 0.0
    for (start, end), score in zip(trimmed, scores_n.tolist(), strict=True):
        if start == end:
            blank += score
            continue
        part = bisect_right(starts, start) - 1  # numpy would make an array of the starts for each token
        totals[part] += score
        is_hit[part] = True
    words = [
        Word(text[start:end], start, end, float(total), field)
        for (start, end), total, hit in zip(parts, totals, is_hit, strict=True)
        if hit
    ]
    return words, blank


def _words(text: str) -> list[tuple[int, int]]:
    return [
        (part.start() + start, part.start() + end)
        for part in _BETWEEN_BRACKETS.finditer(text)
        for start, end in word_spans(part.group())
    ]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without white space around it, which tokens of some models begin with."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _joined(spans: Iterable[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
