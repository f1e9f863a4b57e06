"""Comprehensiveness, sufficiency and curves of orders whose effect is known, and which words each share takes out."""

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from suffuse.explain.erasure import Erasable
from suffuse.explain.faithfulness import measured, occluded


class Sum:
    """Stands in for an answer whose probability is a sum over the words that are there."""

    def __init__(self, shares: list[float]) -> None:
        self.shares_w = np.array(shares)
        self.asked: NDArray[np.bool_] = np.zeros((0, len(shares)), dtype=bool)

    def probabilities(self, is_erased_mw: NDArray[np.bool_]) -> NDArray[np.float64]:
        self.asked = is_erased_mw
        found: NDArray[np.float64] = np.where(is_erased_mw, 0.0, self.shares_w).sum(axis=1)
        return found


def answer(*shares: float) -> Any:  # noqa: ANN401
    return cast("Erasable", Sum(list(shares)))


TEN = (0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025)


def test_the_true_order_loses_what_its_first_words_hold() -> None:
    scores_w = np.array(TEN)

    found = measured(answer(*TEN), {"true": scores_w})["true"]

    # 1, 5 and 10 % of ten words are one word, 20 % are two, 50 % five.
    assert found.comprehensiveness == pytest.approx((0.3 + 0.3 + 0.3 + 0.5 + 0.8) / 5)
    assert found.sufficiency == pytest.approx((0.7 + 0.7 + 0.7 + 0.5 + 0.2) / 5)
    assert found.curve == pytest.approx([0.0, *np.cumsum(TEN)])
    assert found.aopc == pytest.approx(np.trapezoid([0.0, *np.cumsum(TEN)], dx=0.1))


def test_the_order_alone_counts() -> None:
    found = measured(answer(*TEN), {"true": np.array(TEN), "as well": np.exp(9 * np.array(TEN)) - 100})

    assert found["true"].curve.tolist() == found["as well"].curve.tolist()


def test_the_wrong_order_is_worse() -> None:
    found = measured(answer(*TEN), {"true": np.array(TEN), "wrong": -np.array(TEN)})

    assert found["wrong"].comprehensiveness < found["true"].comprehensiveness
    assert found["wrong"].sufficiency > found["true"].sufficiency
    assert found["wrong"].aopc < found["true"].aopc


def test_words_of_equal_score_go_in_the_order_of_the_text() -> None:
    found = measured(answer(*TEN), {"equal": np.zeros(10)})["equal"]

    assert found.curve == pytest.approx([0.0, *np.cumsum(TEN)])


def test_several_orders_are_averaged() -> None:
    scores_w = np.array(TEN)

    found = measured(answer(*TEN), {"both": np.stack([scores_w, -scores_w]), "one": scores_w, "other": -scores_w})

    assert found["both"].aopc == pytest.approx((found["one"].aopc + found["other"].aopc) / 2)
    assert found["both"].sufficiency == pytest.approx((found["one"].sufficiency + found["other"].sufficiency) / 2)


@pytest.mark.parametrize(
    ("words", "taken"), [(2, [1, 1, 1, 1, 1]), (30, [1, 2, 3, 6, 15]), (200, [2, 10, 20, 40, 100])]
)
def test_bins_take_shares_of_the_words_rounded_up(words: int, taken: list[int]) -> None:
    erasable = answer(*[1 / words] * words)

    measured(erasable, {"any": np.arange(words, dtype=float)})

    counts = erasable.asked[1:].sum(axis=1).tolist()
    assert counts[:5] == taken
    assert counts[5:10] == [words - count for count in taken]
    assert counts[-1] == words


def test_occlusion_is_what_each_word_takes_with_it() -> None:
    assert occluded(answer(0.5, -0.1, 0.2), 3) == pytest.approx([0.5, -0.1, 0.2])
