"""The page shows the fields that the picked models read, and fills its cards as answers come."""

from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs the extra playground")

from suffuse.errors import ConnectError
from suffuse.playground.cards import EMPTY
from suffuse.playground.examples import EXAMPLES
from suffuse.playground.page import NOBODY, Playground
from suffuse.tasks import Field

PAIR = (Field("text", "the first text"), Field("text_pair", "the second text"))


@pytest.fixture
def playground(scripted: Any) -> Playground:  # noqa: ANN401
    """Three models: one that reads a text, one that reads two, and one that is down."""
    models = {
        "one": scripted(),
        "two": scripted(answered={"score": 1.0}, fields=PAIR),
        "down": scripted(answered=ConnectError("nobody there")),
    }
    return Playground(models, EXAMPLES)


@pytest.mark.parametrize(
    ("first", "second", "visible"),
    [("one", NOBODY, [True, False]), ("two", NOBODY, [True, True]), ("one", "two", [True, True])],
)
def test_only_fields_that_are_read_are_shown(
    playground: Playground, first: str, second: str, visible: list[bool]
) -> None:
    picked, text, text_pair, *_, card = playground.shown(first, second)

    assert [text["visible"], text_pair["visible"]] == visible
    assert picked["choices"]
    assert card["visible"] == (second != NOBODY)


def test_an_example_fills_the_boxes(playground: Playground) -> None:
    index = next(index for index, example in enumerate(EXAMPLES) if "text_pair" in example)

    assert playground.picked(index) == [index, EXAMPLES[index]["text"], EXAMPLES[index]["text_pair"]]
    assert playground.picked(None) == [None, "", ""]


def test_both_answers_come_before_the_first_explanation(playground: Playground) -> None:
    steps = [[_state(card) for card in cards] for cards in playground.asked("one", "two", "", "a warm film", "b")]

    assert steps == [
        ["answered", ""],
        ["answered", "answered"],
        ["explained", "answered"],
        ["explained", "explained"],
    ]


def test_a_model_that_is_down_leaves_the_other_answered(playground: Playground) -> None:
    one, down = list(playground.asked("one", "down", "", "a warm film", ""))[-1]

    assert _state(one) == "explained"
    assert "nobody there" in down


def test_a_model_alone_leaves_the_second_place_empty(playground: Playground) -> None:
    assert {second for _, second in playground.asked("one", NOBODY, "", "a warm film", "")} == {""}
    assert EMPTY not in {first for first, _ in playground.asked("one", NOBODY, "", "a warm film", "")}


def test_the_method_that_was_picked_is_asked_of_both(scripted: Any) -> None:  # noqa: ANN401
    one, two = scripted(), scripted()

    list(Playground({"one": one, "two": two}, EXAMPLES).asked("one", "two", "gradient", "a warm film"))

    assert (one.methods, two.methods) == (["gradient"], ["gradient"])


def _state(card: str) -> str:
    return "explained" if "explained in" in card else "answered" if card else ""
