"""How well answers match those that people gave, counted as the official SQuAD 2.0 script does.

Rajpurkar, Jia, Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD" (2018),
https://worksheets.codalab.org/bundles/0x6b567e1cf2e041ec80d7098f031c5c9e. On data in which every question has an answer
it gives what the script of SQuAD 1.1 gives.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """A text in lower case without ASCII punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def match(answer: str, accepted: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of words against the closest of the accepted answers.

    Args:
        answer: what was answered; empty for no answer.
        accepted: any of them is right; none means that no answer is.

    Returns:
        Two shares; where either side is empty, both are 1 if the other is empty too, and 0 if not.
    """
    given = normalised(answer)
    wanted = [text for text in map(normalised, accepted) if text] or [""]
    return float(given in wanted), max(_f1(given.split(), text.split()) for text in wanted)


def best_threshold(
    differences: NDArray[np.float64], answered: NDArray[np.float64], empty: NDArray[np.float64]
) -> float:
    """The threshold with the highest mean F1, where a row is left without an answer if its difference is above it.

    As ``find_best_thresh`` of the official script, but in the middle between two rows and not on one of them: of
    equally good places that with the most room, so that rounding changes no answer.

    Args:
        differences: score of no answer minus score of the best answer, of each row (R,), finite.
        answered: F1 of the best answer of each row (R,).
        empty: F1 of no answer for each row (R,).
    """
    order = np.argsort(differences, kind="stable")
    sorted_r = differences[order]
    # Place k answers the k rows with the lowest differences. Beyond the ends there is room of our choice.
    totals = empty.sum() + np.concatenate([[0.0], np.cumsum((answered - empty)[order])])
    edges = np.concatenate([[sorted_r[0] - 2.0], sorted_r, [sorted_r[-1] + 2.0]])
    room = np.diff(edges)
    totals[room == 0] = -np.inf  # rows with the same difference go together
    best = np.flatnonzero(totals >= totals.max() - 1e-9)
    place = best[room[best].argmax()]
    return float((edges[place] + edges[place + 1]) / 2)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))
