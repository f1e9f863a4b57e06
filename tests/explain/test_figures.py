"""Figures for papers: the words as they stand, the same bytes each time, and no letter that would be drawn wrongly."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.explain.made_explanations import attention_of, explained_as, explanation_of, words_of

from suffuse.errors import InputError
from suffuse.explain import Explanation
from suffuse.explain.figures import draw_attention, draw_words

ELSE = "; --html shows any text"
LONG = "the cast is superb and the story moves\n\nfrom start to end " * 8


def shown_in(svg: str) -> list[str]:
    """What matplotlib names above each text that it draws as paths."""
    return re.findall(r"<!-- (.*?) -->", svg)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_explanations_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "other"):
        draw_words([explanation_of(LONG)], tmp_path / f"{name}.{suffix}")

    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"other.{suffix}").read_bytes()


def test_every_word_is_drawn_in_its_colour(tmp_path: Path) -> None:
    draw_words([explanation_of("a warm $film$ & more")], tmp_path / "words.svg")

    svg = (tmp_path / "words.svg").read_text("utf-8")
    shown = [text for text in shown_in(svg) if text.strip()]
    assert shown == [
        "good, logit 2.50, integrated", "a", "warm", "$film$", "&amp;", "more", "against", "for what is explained",
    ]  # fmt: skip
    assert "#0868ac" in svg


def test_a_long_text_is_wrapped_within_the_figure(tmp_path: Path) -> None:
    draw_words([explanation_of(LONG)], tmp_path / "words.svg")

    svg = (tmp_path / "words.svg").read_text("utf-8")
    drawn = " ".join(text for text in shown_in(svg) if text.strip())
    assert " ".join(LONG.split()) in drawn
    lefts = [float(left) for left in re.findall(r'<g style="fill: [^"]*" transform="translate\(([\d.]+)', svg)]
    assert max(lefts, default=0.0) < 6.3 * 72


def test_entities_stand_in_brackets_and_fields_are_named(tmp_path: Path) -> None:
    entity = {"text": "film", "label": "FILM", "start": 5, "end": 9, "score": 0.9}
    explained = explained_as("FILM", words_of("warm film"), (5, 9))
    texts = {"title": "odd", "text": "warm film"}

    draw_words(
        [explanation_of("", texts=texts, answer={"entities": [entity]}, explained=(explained,))], tmp_path / "w.svg"
    )

    shown = "".join(shown_in((tmp_path / "w.svg").read_text("utf-8")))
    assert "FILM at 5-9, logit 2.50" in shown
    assert "title:" in shown
    assert "[filmFILM]" in shown.replace(" ", "")


@pytest.mark.parametrize("num_hops", [1, 2])
def test_attention_shows_all_heads_and_the_most_moved_one_by_name(tmp_path: Path, num_hops: int) -> None:
    draw_attention(attention_of("a warm film", num_hops), tmp_path / "heads.svg")

    shown = shown_in((tmp_path / "heads.svg").read_text("utf-8"))
    heading = "layer 2, head 1, beta -0.90" if num_hops == 2 else "layer 1, head 1"
    assert heading in shown
    assert ("diffused" in shown) == (num_hops == 2)
    assert shown.count("[CLS]") == 2 * num_hops


@pytest.mark.parametrize(
    ("explanations", "message"),
    [
        (
            [explanation_of("👩🏽‍🚀🙂🙃🎬")],
            "a figure's font, DejaVu Sans, lacks U+1F3AC, U+1F3FD, U+1F469, U+1F642, U+1F643 and 1 more" + ELSE,
        ),
        (
            [explanation_of("a film"), explanation_of("الفيلم")],
            "a text is written from right to left, and a figure sets words from left to right" + ELSE,
        ),
        (
            [explanation_of("影很好看嗎")],
            "a figure's font, DejaVu Sans, lacks U+55CE, U+597D, U+5F71, U+5F88, U+770B" + ELSE,
        ),
    ],
)
def test_a_text_that_would_be_drawn_wrongly_is_refused(
    tmp_path: Path, explanations: Sequence[Explanation], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        draw_words(explanations, tmp_path / "words.svg")

    assert not (tmp_path / "words.svg").exists()
