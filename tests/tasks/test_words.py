"""Words of raw text are cut as in published files of tagged text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.tasks.words import found_spans, joined_spans, word_spans


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the U.N. met", "the U.N. met"),
        ("(the U.S.).", "( the U.S. ) ."),
        ("a dull film.", "a dull film ."),
        ("J. Smith of Acme Inc. went", "J. Smith of Acme Inc. went"),
        ("in St. Louis, Mo.", "in St. Louis , Mo ."),
        ("Jean-Pierre paid $3.5 (12%)...", "Jean-Pierre paid $ 3.5 ( 12 % ) ..."),
        ("\u201cParis\u201d, he said", "\u201c Paris \u201d , he said"),
        ("Germany's O'Brien", "Germany 's O'Brien"),
        ("the boys' and THE U.N.'S", "the boys ' and THE U.N. 'S"),
        ("Germany 's, 's", "Germany 's , 's"),
        ("Paris\U0001f600!", "Paris \U0001f600 !"),
        ("東京のカフェ。서울은 Paris市", "東 京 の カ フ ェ 。 서울은 Paris 市"),
        ("ที่นี่", "ที่ นี่"),
        ("हिन्दी, cafe\u0301.", "हिन्दी , cafe\u0301 ."),
        ("\u200bParis\u200f \x01", "Paris"),
        ("مرحبا، باريس", "مرحبا ، باريس"),
        ("a\u00a0b\u3000c\n\td", "a b c d"),
        ("...", "..."),
        (" ", ""),
    ],
)
def test_punctuation_is_cut_off_at_the_ends_of_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(deadline=None, max_examples=200)
def test_words_are_in_order_and_leave_out_no_letter(text: str) -> None:
    spans = word_spans(text)

    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered for place, character in enumerate(text) if character.isalnum())


@given(st.lists(st.text(st.characters(exclude_categories=["Zs", "Cc"]), min_size=1, max_size=8), max_size=8))
@settings(deadline=None, max_examples=50)
def test_joined_words_stand_where_they_are_said_to(given_words: list[str]) -> None:
    text = " ".join(given_words)

    assert [text[start:end] for start, end in joined_spans(given_words)] == given_words


def test_given_words_are_found_in_their_text() -> None:
    assert found_spans("Paris,  France", ["Paris", ",", "France"]) == [(0, 5), (5, 6), (8, 14)]


@pytest.mark.parametrize(("given_words", "place"), [(["Paris", "Rome"], 1), (["France"], 0), (["Paris", "Paris"], 1)])
def test_the_first_word_that_is_not_next_in_the_text_is_named(given_words: list[str], place: int) -> None:
    assert found_spans("Paris, France", given_words) == place
