"""The choices that answers are made of, beside the right ones: how sure a network is is fitted and measured on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOTHING = "(none)"
"""In the place of a label where nothing was expected, or nothing was answered."""
ABSENT = -1e4
"""The logit of a class that cannot be chosen, where others have more; finite, so that it times 0 is 0."""


@dataclass(frozen=True)
class Decisions:
    """Choices of one class among several, whose probabilities are the softmax of logits.

    Args:
        what: what is chosen, for people.
        logits_dc: of each choice, (D, C), float64; `ABSENT` where there is no such class.
        targets_d: index of the right class, (D,).
        rows_d: index of the row that each is about, (D,).
    """

    what: str
    logits_dc: NDArray[np.float64]
    targets_d: NDArray[np.int64]
    rows_d: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets_d)

    def chosen(self, indices: NDArray[np.int64]) -> "Decisions":
        """Those at `indices`."""
        return Decisions(self.what, self.logits_dc[indices], self.targets_d[indices], self.rows_d[indices])


def yes_or_no(what: str, logits_rc: NDArray[np.float64], is_right_rc: NDArray[np.bool_]) -> Decisions:
    """Decisions for or against each class by itself: the sigmoid of a logit is the softmax of 0 and that logit.

    Args:
        what: what is chosen, for people.
        logits_rc: of each row, (R, C).
        is_right_rc: which classes a row has, (R, C).
    """
    logits_d = logits_rc.ravel()
    rows_d = np.repeat(np.arange(len(logits_rc)), logits_rc.shape[1])
    return Decisions(
        what, np.stack([np.zeros_like(logits_d), logits_d], axis=1), is_right_rc.ravel().astype(np.int64), rows_d
    )
