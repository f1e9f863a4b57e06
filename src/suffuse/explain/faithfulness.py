"""How faithful an order of words is to the model: what becomes of its answer when they are taken out in that order.

Comprehensiveness and sufficiency are those of ERASER (DeYoung et al. 2020, arXiv 1911.03429), the area over the
perturbation curve that of Samek et al. 2017 (arXiv 1509.06321). All three are differences of probability, so none
depends on the size of scores, only on their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from suffuse.explain.erasure import Array, Erasable, Mask

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the words that ERASER takes out, or keeps: always at least one word."""
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
"""Shares of the words at which the curve is measured."""
SHORT_WORDS = 64
"""Words of a text up to which each is taken out by itself: as many predictions."""


@dataclass(frozen=True)
class Faithfulness:
    """What taking out words in an order does to one answer; each number a drop of its probability.

    Args:
        comprehensiveness: mean over `BINS` of the drop without the first words; high is good.
        sufficiency: mean over `BINS` of the drop with the first words alone; low is good.
        curve: drop without the first words, at 0 and at each of `TENTHS`, (11,).
    """

    comprehensiveness: float
    sufficiency: float
    curve: Array

    @property
    def aopc(self) -> float:
        """Area under `curve`: the mean drop over all shares of words."""
        return float((self.curve[:-1] + self.curve[1:]).mean() / 2)


def occluded(erasable: Erasable, words: int) -> Array:
    """How much less probable what was answered is without each word by itself, (W,)."""
    masks = np.concatenate([np.zeros((1, words), dtype=bool), np.eye(words, dtype=bool)])
    whole, *without = erasable.probabilities(masks)
    return np.asarray(whole - np.array(without))


def measured(erasable: Erasable, scores: Mapping[str, Array]) -> dict[str, Faithfulness]:
    """What the orders of several methods do to one answer, computed together.

    Args:
        erasable: the answer.
        scores: of the words by each method, (W,), or several scores for each word, whose figures are averaged, (S, W).
            The highest is taken out first; of equal ones the first in the text.
    """
    orders = {name: np.argsort(-np.atleast_2d(scores_sw), axis=1, kind="stable") for name, scores_sw in scores.items()}
    masks = np.stack([_masks(order_w) for order_sw in orders.values() for order_w in order_sw])
    words = masks.shape[2]
    whole, *erased = erasable.probabilities(np.concatenate([np.zeros((1, words), dtype=bool), *masks]))
    drops = iter((whole - np.array(erased)).reshape(masks.shape[:2]))
    return {name: _figures(np.mean([next(drops) for _ in order_sw], axis=0)) for name, order_sw in orders.items()}


def _masks(order_w: NDArray[np.intp]) -> Mask:
    """The words to take out: the first of `BINS`, all but these, the first of `TENTHS`, (20, W)."""
    place_w = np.argsort(order_w)
    # Rounded first, or three tenths of 10 words would be 4 of them.
    bins, tenths = (
        np.stack([place_w < max(1, ceil(round(share * len(place_w), 9))) for share in shares])
        for shares in (BINS, TENTHS)
    )
    return np.concatenate([bins, ~bins, tenths])


def _figures(drops_m: Array) -> Faithfulness:
    removed, kept, curve = np.split(drops_m, [len(BINS), 2 * len(BINS)])
    return Faithfulness(float(removed.mean()), float(kept.mean()), np.append(0.0, curve))
