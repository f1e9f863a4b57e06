"""Metrics are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score

from suffuse.tasks.metrics import Sets, exact_match, f1_scores, set_tallies

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 6))
SET_PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
CLASS_PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        st.just(shape[1]),
        arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
        arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


def measures(given_sets: Sets, expected: Sets) -> dict[str, float]:
    totals = set_tallies(given_sets, expected).sum(axis=0)[None]
    measured = {"exact_match": exact_match(totals), **f1_scores(totals)}
    return {name: float(values[0]) for name, values in measured.items()}


def one_hot(classes: np.ndarray, count: int) -> Sets:
    sets: Sets = np.eye(count, dtype=bool)[classes]
    return sets


@given(SET_PAIRS)
@settings(deadline=None, max_examples=80)
def test_sets_of_labels_count_as_in_scikit_learn(pair: tuple[Sets, Sets]) -> None:
    given_sets, expected = (np.pad(sets, ((0, 0), (0, 1))) for sets in pair)  # scikit-learn takes one column as classes

    measured = measures(given_sets, expected)

    labels = pair[0].shape[1]
    macro = f1_score(expected, given_sets, average="macro", zero_division=0)
    assert measured["exact_match"] == pytest.approx(accuracy_score(expected, given_sets))
    assert measured["f1_micro"] == pytest.approx(f1_score(expected, given_sets, average="micro", zero_division=0))
    assert measured["f1_macro"] == pytest.approx(macro)
    assert measures(*pair)["f1_macro"] == pytest.approx(macro * (labels + 1) / labels)  # the empty column counts as 0


@given(CLASS_PAIRS)
@settings(deadline=None, max_examples=80)
def test_single_labels_count_as_in_scikit_learn(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    count, classes, expected = case

    measured = measures(one_hot(classes, count), one_hot(expected, count))

    reference = {"labels": list(range(count)), "zero_division": 0}
    assert measured["exact_match"] == pytest.approx(accuracy_score(expected, classes))
    assert measured["f1_macro"] == pytest.approx(f1_score(expected, classes, average="macro", **reference))
    assert measured["f1_micro"] == pytest.approx(f1_score(expected, classes, average="micro", **reference))
