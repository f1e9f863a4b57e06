"""Whether an explanation stays the same when a text is changed in a way that should not matter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suffuse.explain.explanation import Explained, Explainer
from suffuse.explain.words import Word
from suffuse.tasks import Row

LEAST_WORDS = 3
"""Words that have to stay: two have only two orders."""


@dataclass(frozen=True)
class Edit:
    """A changed text.

    Args:
        text: as it is now.
        start: character of the old text from which on all has moved.
        shift: by how many characters.
    """

    text: str
    start: int = 0
    shift: int = 0

    def moved(self, place: int) -> int:
        """Where a character of the old text is now."""
        return place + self.shift if place >= self.start else place


def other_case(text: str) -> Edit:
    """The first letter small where it was a capital, and the other way round."""
    for place, letter in enumerate(text):
        if letter.isalpha():
            swapped = letter.swapcase()
            return Edit(text[:place] + swapped + text[place + 1 :] if len(swapped) == 1 else text)
    return Edit(text)


def doubled_space(text: str) -> Edit:
    """A second space behind the first word."""
    place = text.find(" ", len(text) - len(text.lstrip()))
    return Edit(text) if place < 0 else Edit(f"{text[:place]} {text[place:]}", place + 1, 1)


def full_stop(text: str) -> Edit:
    """A full stop at the end, or none where there was one."""
    bare = text.rstrip()
    return Edit(bare[:-1] if bare.endswith(".") and bare != "." else f"{bare}.")


EDITS: Sequence[Callable[[str], Edit]] = (other_case, doubled_space, full_stop)


def stability(explainer: Explainer, row: Row, field: str, explained: Explained, edit: Edit) -> float | None:
    """Rank correlation of the scores of the words that stay, before and after an edit.

    Args:
        explainer: by the method in question.
        row: a checked row.
        field: of the text that is edited, the last of the row.
        explained: of the row as it was.
        edit: of that text.

    Returns:
        Spearman's; none where fewer than `LEAST_WORDS` words stay, or the row is no longer answered by the same thing,
        which says nothing of the explanation.
    """
    span = explained.span and (edit.moved(explained.span[0]), edit.moved(explained.span[1] - 1) + 1)
    after = next(
        (one for one in explainer({**row, field: edit.text}, explained.target).explained if one.span == span), None
    )
    if after is None:
        return None
    scores = {(word.field, word.start, word.end): word.score for word in after.words}
    pairs = [(word.score, scores[place]) for word in explained.words if (place := _moved(word, field, edit)) in scores]
    if len(pairs) < LEAST_WORDS:
        return None
    before_w, after_w = np.array(pairs).T
    return spearman(before_w, after_w)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of ranks, equal values sharing the mean of theirs; 0 where all values of one side are equal."""
    first_ranks, second_ranks = _ranks(first), _ranks(second)
    if np.ptp(first_ranks) == 0 or np.ptp(second_ranks) == 0:
        return 0.0
    return float(np.corrcoef(first_ranks, second_ranks)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]


def _moved(word: Word, field: str, edit: Edit) -> tuple[str, int, int]:
    if word.field != field:
        return word.field, word.start, word.end
    return field, edit.moved(word.start), edit.moved(word.end - 1) + 1
