"""Edits that should not matter, where words are after them, and the correlation of ranks."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from suffuse.explain import Explainer, GradientXInput
from suffuse.explain.stability import EDITS, Edit, doubled_space, full_stop, other_case, spearman, stability
from suffuse.runtime import Predictor

PredictorOf = Callable[[str, str, int], Predictor]


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        (other_case, "a warm film", Edit("A warm film")),
        (other_case, "«A warm film»", Edit("«a warm film»")),
        (other_case, "ßa", Edit("ßa")),
        (other_case, "12 34", Edit("12 34")),
        (doubled_space, " a warm film", Edit(" a  warm film", 3, 1)),
        (doubled_space, "film", Edit("film")),
        (full_stop, "a film", Edit("a film.")),
        (full_stop, "a film. ", Edit("a film")),
        (full_stop, ".", Edit("..")),
    ],
)
def test_edits_change_what_they_say(edit: Callable[[str], Edit], text: str, expected: Edit) -> None:
    assert edit(text) == expected


@given(text=some.text(alphabet="aB .é\U0001f642", min_size=1), kind=some.sampled_from(EDITS))
def test_characters_that_stay_are_found_where_they_are_now(text: str, kind: Callable[[str], Edit]) -> None:
    edit = kind(text)

    kept = len(text.rstrip()) - (text.rstrip().endswith(".") if kind is full_stop else 0)
    assert all(edit.text[edit.moved(place)].casefold() == text[place].casefold() for place in range(kept))


@given(
    some.lists(some.tuples(some.integers(0, 5), some.integers(0, 5)), min_size=3).filter(
        lambda pairs: all(len(set(side)) > 1 for side in zip(*pairs, strict=True))
    )
)
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=float).T

    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_spearman_of_what_never_changes_is_0() -> None:
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_that_the_tokenizer_does_not_see_changes_nothing_but_its_own(
    predictor_of: PredictorOf, kind: Callable[[str], Edit]
) -> None:
    explainer = Explainer(predictor_of("bert", "labels", 2), GradientXInput())
    row = {"text": "a warm and funny film"}

    found = stability(explainer, row, "text", explainer(row).explained[0], kind(row["text"]))

    assert found is not None
    assert -1 <= found <= 1
    if kind is not full_stop:  # lower case, and white space by itself is no token
        assert found == pytest.approx(1.0)


def test_too_few_words_have_no_order(predictor_of: PredictorOf) -> None:
    explainer = Explainer(predictor_of("bert", "labels", 2), GradientXInput())
    row = {"text": "warm film"}

    assert stability(explainer, row, "text", explainer(row).explained[0], full_stop(row["text"])) is None


def test_the_same_entity_is_looked_for_where_it_has_moved(predictor_of: PredictorOf) -> None:
    explainer = Explainer(predictor_of("bert", "entities", 1), GradientXInput())
    row = {"text": "funny, clever and moving from start to end"}
    last = explainer(row).explained[-1]

    found = stability(explainer, row, "text", last, doubled_space(row["text"]))

    assert found == pytest.approx(1.0)


def test_a_row_that_is_no_longer_answered_by_the_same_says_nothing(predictor_of: PredictorOf) -> None:
    explainer = Explainer(predictor_of("bert", "entities", 1), GradientXInput())
    row = {"text": "funny, clever and moving from start to end"}
    explained = explainer(row).explained[0]

    assert stability(explainer, row, "text", explained, Edit("and", 0, 0)) is None
