"""Cards show every shape of answer, and nothing of a text is markup."""

from typing import Any

import pytest

from suffuse.playground.cards import card, style_sheet
from suffuse.playground.question import Asked, ask


def test_a_card_has_answer_probabilities_coloured_words_and_times(scripted: Any) -> None:  # noqa: ANN401
    *_, asked = ask("m <1>", scripted(), {"text": "a warm <dull>"})

    html = card(asked)

    assert "<h3>m &lt;1&gt;</h3>" in html
    assert '<b>good</b> <span class="sf-share">75.0%</span>' in html
    assert html.index("width:75.0%") < html.index("width:25.0%")
    assert '<span class="w p8" title="+1.000">warm</span>' in html
    assert '<span class="w n4" title="-0.500">&lt;dull&gt;</span>' in html
    assert '<td dir="auto">warm</td><td>+1.000</td>' in html
    assert "answered in " in html
    assert "explained in " in html


def test_what_went_wrong_is_an_alert_without_markup_of_its_own() -> None:
    html = card(Asked("m", {"text": "a"}, problem="field <b>"))

    assert '<p class="sf-problem" role="alert"><b>No answer.</b> field &lt;b&gt;</p>' in html
    assert "answered in" not in html


def test_an_explanation_on_its_way_is_announced() -> None:
    assert "explaining …" in card(Asked("m", {"text": "a"}, {"score": 3.5}, is_pending=True))


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"labels": ["a", "b"], "scores": {}}, "<b>a, b</b>"),
        ({"labels": [], "scores": {}}, "<b>no label</b>"),
        ({"answer": "<i>", "start": 0, "end": 3, "score": 0.5}, "<b>&lt;i&gt;</b>"),
        ({"answer": "", "start": 0, "end": 0, "score": 0.5}, "<b>no answer</b>"),
        ({"entities": []}, "<b>no entities</b>"),
        (
            {"entities": [{"text": "<A>", "label": "PER", "start": 0, "end": 3, "score": 0.9}]},
            '<td dir="auto">&lt;A&gt;</td><td>PER</td><td>90.0%</td>',
        ),
        ({"translation": "ein Film"}, "<b>ein Film</b>"),
        ({"score": 3.456}, "<b>3.46</b>"),
        ({"score": 1.0, "truncated": True}, "its end was left out"),
    ],
)
def test_every_shape_of_answer_is_shown(answer: dict[str, Any], shown: str) -> None:
    assert shown in card(Asked("m", {"text": "a"}, answer))


def test_many_labels_are_counted() -> None:
    scores = {str(number): number / 100 for number in range(10)}

    html = card(Asked("m", {"text": "a"}, {"label": "9", "score": 0.09, "scores": scores}))

    assert "and 2 labels that are less likely" in html
    assert html.count('scope="row"') == 8


def test_colours_differ_in_the_dark() -> None:
    css = style_sheet()

    assert ".sf .p8 { background: #0868ac; color: #ffffff; }" in css
    assert ".dark .sf .p8 { background: #6ebefa; color: #000000; }" in css
