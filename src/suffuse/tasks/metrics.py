"""Measures of label sets in numpy, so that validation and ``evaluate`` count alike; scikit-learn is the reference."""

import numpy as np
from numpy.typing import NDArray

Sets = NDArray[np.bool_]
"""(rows, labels): whether a row has a label."""


def set_tallies(given: Sets, expected: Sets) -> NDArray[np.float64]:
    """What each row adds to the sums that the measures of sets are made of, (R, 2C + 2).

    For each label whether it is in both sets, and in how many it is; whether the sets are equal; 1.
    """
    counts_rc = given.astype(np.int8) + expected
    equal_r1 = (given == expected).all(axis=1, keepdims=True)
    return np.concatenate([given & expected, counts_rc, equal_r1, np.ones_like(equal_r1)], axis=1).astype(np.float64)


def exact_match(totals_bk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of rows whose whole set of labels is right, from each of B sums of `set_tallies`, (B,)."""
    shares_b: NDArray[np.float64] = totals_bk[:, -2] / np.maximum(totals_bk[:, -1], 1)
    return shares_b


def f1_scores(totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """F1 as the mean over labels (macro) and over all decisions (micro), from each of B sums of `set_tallies`, (B,).

    A label never met or given counts as 0.
    """
    hits_bc, counts_bc = np.split(totals_bk[:, :-2], 2, axis=1)
    f1_bc = np.divide(2 * hits_bc, counts_bc, out=np.zeros_like(hits_bc), where=counts_bc > 0)
    micro_b = 2 * hits_bc.sum(axis=1) / np.maximum(counts_bc.sum(axis=1), 1)
    return {"f1_macro": f1_bc.mean(axis=1), "f1_micro": micro_b}
