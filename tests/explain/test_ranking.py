"""Words are ranked by their mean score over the rows they are in, for each target by itself."""

import pytest

from suffuse.explain import Explained, Explanation, Word
from suffuse.explain.ranking import RankedWord, ranked_words


def explanation(target: str, **scores: float) -> Explanation:
    words = tuple(Word(text.replace("_", ""), 0, 1, score, "text") for text, score in scores.items())
    return Explanation({}, "integrated", 1, (Explained(target, None, 1.0, 0.0, 0.0, 16, words, 0.0),))


def test_the_word_that_counts_most_comes_first_whatever_its_case() -> None:
    rows = [explanation("good", Please=3.0, film=1.0), explanation("good", please=1.0, film=-1.0)]

    ranked = ranked_words(rows, least_rows=2)

    assert ranked == {
        "good": [RankedWord("please", "good", 2.0, 1.0, 2), RankedWord("film", "good", 0.0, 1.0, 2)],
    }


def test_each_target_has_a_ranking_of_its_own() -> None:
    ranked = ranked_words([explanation("good", film=1.0), explanation("bad", film=-1.0)], least_rows=1)

    assert {target: [(word.word, word.score) for word in words] for target, words in ranked.items()} == {
        "bad": [("film", -1.0)],
        "good": [("film", 1.0)],
    }


def test_places_in_one_row_are_added_up() -> None:
    (word,) = ranked_words([explanation("good", film=1.0, film_=2.0)], least_rows=1)["good"]

    assert (word.score, word.rows) == (3.0, 1)


def test_rare_words_and_marks_are_left_out() -> None:
    rows = [explanation("good", film=1.0, **{"?": 9.0}), explanation("good", film=1.0, rare=9.0, **{"?": 9.0})]

    assert [word.word for word in ranked_words(rows, least_rows=2)["good"]] == ["film"]


@pytest.mark.parametrize("rows", [[], [Explanation({"entities": []}, "integrated", 1, ())]])
def test_nothing_explained_gives_no_ranking(rows: list[Explanation]) -> None:
    assert ranked_words(rows) == {}
