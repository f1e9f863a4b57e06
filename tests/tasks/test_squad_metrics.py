"""Measures of SQuAD: torchmetrics counts the matches beside us, and every threshold is tried beside the best one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from suffuse.tasks.squad_metrics import best_threshold, match, normalised

WORDS = st.sampled_from(["the", "a", "an", "cat", "cats", "Cat", "dog's", "the-cat", "U.S.", "ÉTÉ", "été", "…", "!"])
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat!", "cat"),
        ("a.n. other", "other"),
        ("theatre", "theatre"),
        ("\tU.S.\n", "us"),
        ("an «été»", "«été»"),
        ("The", ""),
    ],
)
def test_case_punctuation_articles_and_white_space_do_not_count(text: str, expected: str) -> None:
    assert normalised(text) == expected


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.lists(TEXTS.filter(normalised), min_size=1, max_size=3))
def test_matches_are_those_of_torchmetrics(answer: str, accepted: list[str]) -> None:
    expected = squad(
        {"prediction_text": answer, "id": "0"},
        {"answers": {"text": accepted, "answer_start": [0] * len(accepted)}, "id": "0"},
    )

    assert match(answer, accepted) == pytest.approx(
        (expected["exact_match"].item() / 100, expected["f1"].item() / 100), abs=1e-6
    )


@pytest.mark.parametrize(
    ("answer", "accepted", "expected"),
    [
        ("", (), (1, 1)),
        ("cat", (), (0, 0)),
        ("", ("cat",), (0, 0)),
        ("the", (), (1, 1)),  # nothing is left of it
        ("cat", ("the", "cat"), (1, 1)),
        ("", ("the", "cat"), (0, 0)),  # the script leaves out what is nothing where something is left
        ("", ("the",), (1, 1)),
    ],
)
def test_no_answer_is_right_where_there_is_none(
    answer: str, accepted: tuple[str, ...], expected: tuple[float, float]
) -> None:
    assert match(answer, accepted) == expected


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(-5, 5).map(float), st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=12,
    )
)
def test_no_threshold_is_better_than_the_best_one(rows: list[tuple[float, float, float]]) -> None:
    differences, answered, empty = np.array(rows).T

    def mean_f1(threshold: float) -> float:
        return float(np.where(differences > threshold, empty, answered).mean())

    best = max(mean_f1(threshold) for threshold in [*differences, differences.min() - 1])
    assert mean_f1(best_threshold(differences, answered, empty)) == pytest.approx(best)


def test_the_threshold_lies_in_the_middle_of_the_widest_gap() -> None:
    differences = np.array([5.0, -3.0, 0.0, 1.0])

    # Right with an answer at -3, and without at 5; the rows between are wrong either way.
    threshold = best_threshold(differences, np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0]))

    assert threshold == 3.0
