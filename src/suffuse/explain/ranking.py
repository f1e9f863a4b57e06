"""Which words a model goes by over many rows: one that means nothing there was learned from a fault of the data.

Of one answer, saliency says what each word counted. A word that counts much in row after row, and that nobody would
decide by, is a shortcut: it came with a label in the training rows, and will not come with it elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from suffuse.explain.explanation import Explanation

LEAST_ROWS = 5
"""Rows that a word must be in: the mean of fewer is that of a few sentences, not of a word."""


@dataclass(frozen=True)
class RankedWord:
    """What a word counts for a target, all rows taken together.

    Args:
        word: in lower case, so that the first word of a sentence is the same as within it.
        target: a label, or what else was explained.
        score: mean over the rows it is in, in logits; above 0 where it speaks for the target.
        deviation: standard deviation over those rows; 0 where all agree.
        rows: how many those are.
    """

    word: str
    target: str
    score: float
    deviation: float
    rows: int


def ranked_words(explanations: Iterable[Explanation], least_rows: int = LEAST_ROWS) -> dict[str, list[RankedWord]]:
    """The words that spoke for each target, those that counted most first.

    A word's score in a row is the sum of its places there. Words without a letter or digit are left out, as are those
    in fewer than `least_rows` explanations of the target.

    Args:
        explanations: of many rows, each by the same method; read one by one.
        least_rows: that a word must be in.

    Returns:
        For each target that was explained, in alphabetical order, its words by falling mean score.
    """
    scores: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for explanation in explanations:
        for explained in explanation.explained:
            in_this_row: defaultdict[str, float] = defaultdict(float)
            for word in explained.words:
                if any(map(str.isalnum, word.text)):
                    in_this_row[word.text.casefold()] += word.score
            for text, score in in_this_row.items():
                scores[explained.target][text].append(score)
    return {target: _ranked(target, scores[target], least_rows) for target in sorted(scores)}


def _ranked(target: str, scores: dict[str, list[float]], least_rows: int) -> list[RankedWord]:
    ranked = [
        RankedWord(word, target, float(np.mean(found)), float(np.std(found)), len(found))
        for word, found in scores.items()
        if len(found) >= least_rows
    ]
    return sorted(ranked, key=lambda word: (-word.score, word.word))
