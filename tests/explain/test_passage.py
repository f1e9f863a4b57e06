"""A cut text, put together, is the text; words keep their scores across marks, and marks do not overlap."""

from hypothesis import given
from hypothesis import strategies as st

from suffuse.explain import Word
from suffuse.explain.passage import Mark, as_html, marks_of, passage, passages

TEXT = "warm film, dull film"


def word(start: int, end: int, score: float) -> Word:
    return Word(TEXT[start:end], start, end, score, "text")


def test_words_and_what_is_between_follow_one_another() -> None:
    (stretch,) = passage(TEXT, [word(0, 4, 2.0), word(5, 9, -1.0)], [], 2.0)

    assert [(part.text, part.score, part.step) for part in stretch.parts] == [
        ("warm", 2.0, 8),
        (" ", None, 0),
        ("film", -1.0, -4),
        (", dull film", None, 0),
    ]


def test_a_mark_may_begin_within_a_word() -> None:
    stretches = passage(TEXT, [word(0, 4, 2.0)], [Mark(2, 9, "X")], 2.0)

    assert [(stretch.mark and stretch.mark.label, [part.text for part in stretch.parts]) for stretch in stretches] == [
        (None, ["wa"]),
        ("X", ["rm", " film"]),
        (None, [", dull film"]),
    ]
    assert stretches[1].parts[0].score == 2.0


def test_of_marks_that_overlap_the_first_stays() -> None:
    stretches = passage(TEXT, [], [Mark(5, 9, "B"), Mark(0, 6, "A"), Mark(11, 11, "empty")], 1.0)

    assert [stretch.mark.label for stretch in stretches if stretch.mark] == ["A"]


def test_an_answer_says_what_is_marked() -> None:
    entity = {"text": "film", "label": "FILM", "start": 5, "end": 9, "score": 0.5}

    assert marks_of({"entities": [entity]}) == (Mark(5, 9, "FILM"),)
    assert marks_of({"answer": "warm", "start": 0, "end": 4, "score": 0.5}) == (Mark(0, 4, "answer"),)
    assert marks_of({"answer": "", "start": 0, "end": 0, "score": 0.5}) == ()
    assert marks_of({"label": "good", "score": 0.5, "scores": {}}) == ()


def test_texts_share_one_scale_and_the_last_has_the_marks() -> None:
    words = [Word("who", 0, 3, 4.0, "question"), Word("warm", 0, 4, 2.0, "context")]
    answer = {"answer": "warm", "start": 0, "end": 4, "score": 0.5}

    cut = passages({"question": "who", "context": "warm film"}, words, answer)

    assert [(stretch.mark, stretch.parts[0].step) for stretch in cut["question"]] == [(None, 8)]
    assert (cut["context"][0].mark, cut["context"][0].parts[0].step) == (Mark(0, 4, "answer"), 4)


def test_labels_and_text_are_escaped() -> None:
    stretches = passage("<b>&", [Word("<b>", 0, 3, 1.0, "text")], [Mark(0, 3, '"><i>')], 1.0)

    assert as_html(stretches, (0, 3)) == (
        '<mark class="current" data-label="&quot;&gt;&lt;i&gt;">'
        '<span class="w p8" title="+1.000">&lt;b&gt;</span></mark>&amp;'
    )


@given(
    st.text(max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=4),
)
def test_parts_put_together_are_the_text(
    text: str, word_places: list[tuple[int, int]], mark_places: list[tuple[int, int]]
) -> None:
    words: list[Word] = []
    for start, length in sorted(word_places):
        end = min(len(text), start + length)
        if start < end and (not words or start >= words[-1].end):
            words.append(Word(text[start:end], start, end, 1.0, "text"))
    marks = [Mark(start, min(len(text), start + length), "X") for start, length in mark_places if start < len(text)]

    stretches = passage(text, words, marks, 1.0)

    assert "".join(part.text for stretch in stretches for part in stretch.parts) == text
