"""Words are found where they stand in the text as it was sent, and every token counts for one of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.explain.words import Word, scored_words
from suffuse.tasks import Tokens


def scored(text: str, *tokens: tuple[int, int, float]) -> tuple[list[Word], float]:
    spans_n2 = np.array([token[:2] for token in tokens], dtype=np.int64).reshape(-1, 2)
    return scored_words(text, "text", spans_n2, np.array([token[2] for token in tokens]))


def test_pieces_of_a_word_count_together() -> None:
    words, other = scored("unfunny film", (0, 2, 1.0), (2, 7, -3.0), (8, 12, 0.5))

    assert words == [Word("unfunny", 0, 7, -2.0, "text"), Word("film", 8, 12, 0.5, "text")]
    assert other == 0


def test_punctuation_counts_for_itself() -> None:
    words, _ = scored("funny!", (0, 5, 1.0), (5, 6, 2.0))

    assert [(word.text, word.score) for word in words] == [("funny", 1.0), ("!", 2.0)]


def test_words_of_html_stand_apart_from_its_tags() -> None:
    text = "<b>dull</b>"

    words, _ = scored(text, *((place, place + 1, 1.0) for place in range(len(text))))

    assert [word.text for word in words] == ["<", "b", ">", "dull", "<", "/", "b", ">"]


def test_white_space_at_a_token_is_not_of_the_word() -> None:
    words, other = scored("a film\n", (0, 1, 1.0), (1, 6, 2.0), (6, 7, 4.0))

    assert [(word.text, word.start, word.end) for word in words] == [("a", 0, 1), ("film", 2, 6)]
    assert other == 4.0


def test_words_that_share_a_token_are_one() -> None:
    words, _ = scored("(good).", (0, 1, 1.0), (1, 5, 2.0), (5, 7, 4.0))

    assert [(word.text, word.score) for word in words] == [("(", 1.0), ("good", 2.0), (").", 4.0)]


def test_tokens_of_one_character_count_for_its_word() -> None:
    words, _ = scored("ok 🙂", (0, 2, 1.0), (3, 4, 2.0), (3, 4, 3.0))

    assert [(word.text, word.score) for word in words] == [("ok", 1.0), ("🙂", 5.0)]


def test_a_token_that_two_windows_show_counts_twice() -> None:
    words, _ = scored("film", (0, 4, 1.0), (0, 4, 2.0))

    assert [word.score for word in words] == [3.0]


def test_a_word_without_a_token_is_left_out() -> None:
    words, _ = scored("seen unseen", (0, 4, 1.0))

    assert [word.text for word in words] == ["seen"]


def test_a_token_of_no_word_is_one_of_its_own() -> None:
    words, _ = scored("a\u200db", (0, 3, 1.0))

    assert [(word.text, word.score) for word in words] == [("a\u200db", 1.0)]


def test_no_tokens_make_no_words() -> None:
    assert scored("\u0301") == ([], 0.0)


TEXTS = st.text(
    st.sampled_from(
        [*"ab é.,!?<>/&;'\"\n\t-", "\u0301", "\u200d", "\ufe0f", "🙂", "👩", "🏽", "ש", "ل", "م", "電", "ไ", "ม"]
    ),
    max_size=40,
)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@given(text=TEXTS)
@settings(deadline=None, max_examples=60)
def test_words_stand_where_they_say_and_lose_no_score(
    tokens_of: dict[str, Tokens], architecture: str, text: str
) -> None:
    (encoding,) = tokens_of[architecture].located([text])
    is_text = np.array([sequence is not None for sequence in encoding.sequence_ids], dtype=bool)
    spans_n2 = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[is_text]
    scores_n = np.arange(1.0, len(spans_n2) + 1)

    words, other = scored_words(text, "text", spans_n2, scores_n)

    assert all(text[word.start : word.end] == word.text and word.text.strip() == word.text != "" for word in words)
    assert all(before.end <= after.start for before, after in pairwise(words))
    assert sum(word.score for word in words) + other == pytest.approx(scores_n.sum())
