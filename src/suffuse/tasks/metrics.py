"""Measures of label sets in numpy, so that validation and ``evaluate`` count alike; scikit-learn is the reference."""

import numpy as np
from numpy.typing import NDArray

Sets = NDArray[np.bool_]
"""(rows, labels): whether a row has a label."""


def accuracy(given: Sets, expected: Sets) -> dict[str, float]:
    """Share of rows whose one label is right."""
    return {"accuracy": _exact(given, expected)}


def exact_match(given: Sets, expected: Sets) -> dict[str, float]:
    """Share of rows whose whole set of labels is right."""
    return {"exact_match": _exact(given, expected)}


def f1_scores(given: Sets, expected: Sets) -> dict[str, float]:
    """F1 as the mean over labels (macro) and over all decisions (micro); a label never met or given counts as 0."""
    hits_c = (given & expected).sum(axis=0)
    total_c = given.sum(axis=0) + expected.sum(axis=0)
    macro = np.divide(2 * hits_c, total_c, out=np.zeros(len(total_c)), where=total_c > 0).mean()
    return {"f1_macro": float(macro), "f1_micro": float(2 * hits_c.sum() / max(total_c.sum(), 1))}


def _exact(given: Sets, expected: Sets) -> float:
    return float((given == expected).all(axis=1).mean())
