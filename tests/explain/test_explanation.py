"""An explanation holds the predictor's own answer, its words stand in the text, and it says what it does not know."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from suffuse.errors import InputError, RowError
from suffuse.explain import Explainer, Explanation, GradientXInput, IntegratedGradients
from suffuse.explain import explanation as explanation_module
from suffuse.runtime import Predictor
from suffuse.tasks import Row, Task, Tokens

PredictorOf = Callable[[str, str, int], Predictor]

QUICK = IntegratedGradients(steps=8, tolerance=1e9)
LONG = " ".join(["the cast is superb and the story moves", "a dull and tired film about nothing"] * 6)
STRANGE = [
    "<p class='x'>funny &amp; <b>warm</b></p><br/>",
    "הסרט היה מצחיק מאוד, film",
    "فيلم رائع جدا",
    "film 👩🏽‍🚀 great 🙂🙂",
    "cafe\u0301 nai\u0308ve e\u0301\u0302 film",
    "電影很好看 film",
    "tab\tand\nlines\r\nfilm\u00a0x",
]


def span_of(row: Row, explanation: Explanation) -> list[str]:
    return [row[word.field][word.start : word.end] for word in explanation.explained[0].words]


def total(explanation: Explanation) -> Sequence[float]:
    return [sum(word.score for word in part.words) + part.other for part in explanation.explained]


def test_its_answer_is_the_predictors(case: Any) -> None:  # noqa: ANN401 - a class of conftest.py
    explanation = Explainer(case.predictor, GradientXInput())(case.row)

    assert explanation.answer == case.predictor(case.row)
    assert (explanation.method, explanation.windows, explanation.left_out) == ("gradient", 1, 0)


def test_its_words_are_those_of_the_texts_and_add_up(case: Any) -> None:  # noqa: ANN401
    explanation = Explainer(case.predictor, IntegratedGradients(steps=64, tolerance=1e9))(case.row)

    assert explanation.explained
    for part in explanation.explained:
        texts = [case.row[word.field][word.start : word.end] for word in part.words]
        assert texts == [word.text for word in part.words]
        assert [text for text in texts if text != ","] == " ".join(case.row.values()).replace(",", "").split()
    for part, score in zip(explanation.explained, total(explanation), strict=True):
        assert part.baseline is not None
        assert part.gap is not None
        missed = abs(score - (part.value - part.baseline))
        assert missed == pytest.approx(part.gap * abs(part.value - part.baseline), abs=1e-6)
        assert missed < 0.05


def test_special_tokens_count_nothing_on_the_way_from_a_baseline_that_has_them(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "labels", 2)

    assert Explainer(predictor, QUICK)("a warm film").explained[0].other == 0
    assert Explainer(predictor, GradientXInput())("a warm film").explained[0].other != 0


def test_the_label_that_was_given_is_explained_unless_another_is_asked_for(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "labels", 2)
    explainer = Explainer(predictor, QUICK)

    given = explainer("a warm film")
    other = next(label for label in ("bad", "good") if label != given.answer["label"])
    asked = explainer("a warm film", other)

    assert [part.target for part in given.explained] == [given.answer["label"]]
    assert [part.target for part in asked.explained] == [other]
    assert asked.answer == given.answer
    assert given.explained[0].value > asked.explained[0].value


def test_each_of_several_labels_is_explained(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "several", 1)

    explanation = Explainer(predictor, QUICK)("the cast is superb")

    assert [part.target for part in explanation.explained] == explanation.answer["labels"] == ["bad", "good", "odd"]


def test_the_likeliest_label_is_explained_where_none_was_given(
    predictor_of: PredictorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of("bert", "several", 1)
    monkeypatch.setattr(predictor, "task", replace(predictor.task, threshold=1.1))  # type: ignore[call-arg]

    explanation = Explainer(predictor, QUICK)("the cast is superb")

    assert explanation.answer["labels"] == []
    scores = explanation.answer["scores"]
    assert [part.target for part in explanation.explained] == [max(scores, key=scores.__getitem__)]


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_each_entity_is_explained_and_says_where_it_is(predictor_of: PredictorOf, architecture: str) -> None:
    predictor = predictor_of(architecture, "entities", 2)

    explanation = Explainer(predictor, QUICK)(LONG)

    entities = explanation.answer["entities"]
    assert entities
    assert explanation.windows > 1
    shown = entities[: explanation_module.MAX_TARGETS]
    assert [(part.target, part.span) for part in explanation.explained] == [
        (entity["label"], (entity["start"], entity["end"])) for entity in shown
    ]


def test_entities_of_one_label_can_be_asked_for(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("gpt2", "entities", 1)

    explanation = Explainer(predictor, QUICK)(LONG, "FILM")

    films = [entity for entity in explanation.answer["entities"] if entity["label"] == "FILM"]
    assert 0 < len(films) < len(explanation.answer["entities"])
    assert len(explanation.explained) + explanation.left_out == len(films)


def test_more_entities_than_are_explained_are_counted(
    predictor_of: PredictorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_module, "MAX_TARGETS", 2)
    predictor = predictor_of("gpt2", "entities", 1)

    content = Explainer(predictor, GradientXInput())(LONG).to_dict()

    assert len(content["explained"]) == 2
    assert content["left_out"] == len(content["answer"]["entities"]) - 2


def test_an_answer_is_explained_by_question_and_context(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "answers", 2)
    row = {"question": "who is superb", "context": LONG}

    explanation = Explainer(predictor, QUICK)(row)

    (part,) = explanation.explained
    assert (part.target, part.span) == ("answer", (explanation.answer["start"], explanation.answer["end"]))
    assert {word.field for word in part.words} == {"question", "context"}
    assert explanation.windows > 1


def test_no_answer_can_be_explained_too(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "answers", 2)

    (part,) = Explainer(predictor, QUICK)({"question": "who is superb", "context": LONG}, "no answer").explained

    assert (part.target, part.span) == ("no answer", None)


def test_a_text_over_the_limit_is_explained_in_windows_that_add_up(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "labels", 2)
    text = LONG + " " + LONG

    explanation = Explainer(predictor, IntegratedGradients(steps=64, tolerance=1e9))(text)

    assert explanation.windows == explanation.to_dict()["windows"] == 5
    (part,) = explanation.explained
    assert [word.text for word in part.words] == text.split()
    assert part.baseline is not None
    assert total(explanation)[0] == pytest.approx(part.value - part.baseline, abs=0.05)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("text", STRANGE)
def test_words_of_strange_texts_stand_where_they_say(predictor_of: PredictorOf, architecture: str, text: str) -> None:
    predictor = predictor_of(architecture, "labels", 2)

    explanation = Explainer(predictor, GradientXInput())(text)

    words = explanation.explained[0].words
    assert words
    assert all(text[word.start : word.end] == word.text for word in words)
    assert "".join(word.text for word in words) == "".join(text.split())


def test_it_is_json(case: Any) -> None:  # noqa: ANN401
    content = Explainer(case.predictor, QUICK)(case.row).to_dict()

    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content) == ["answer", "method", "windows", "explained"]
    for part in content["explained"]:
        assert set(part) - {"start", "end"} == {"target", "value", "baseline", "gap", "steps", "words", "other"}
        assert set(part["words"][0]) == {"text", "start", "end", "score", "field"}


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("labels", "goood", "target 'goood' is unknown; expected one of bad, good, odd; did you mean 'good'?"),
        ("labels", "?", "target '?' is unknown; expected one of bad, good, odd"),
        ("pairs", "yess", "target 'yess' is unknown; expected one of no, yes; did you mean 'yes'?"),
        ("alike", "scores", "target 'scores' is unknown; expected one of score; did you mean 'score'?"),
        ("entities", "FLIM", "target 'FLIM' is unknown; expected one of FILM, MOOD; did you mean 'FILM'?"),
        ("answers", "answr", "target 'answr' is unknown; expected one of answer, no answer; did you mean 'answer'?"),
    ],
)
def test_an_unknown_target_is_refused(predictor_of: PredictorOf, task: str, target: str, message: str) -> None:
    predictor = predictor_of("bert", task, 1)
    row = {field.name: "a warm film" for field in predictor.task.fields}

    with pytest.raises(RowError, match=f"^{re.escape(message)}$") as caught:
        Explainer(predictor)(row, target)

    assert caught.value.code == "unknown_target"


def test_a_row_that_cannot_be_answered_is_refused_as_by_the_predictor(predictor_of: PredictorOf) -> None:
    with pytest.raises(RowError, match=r"^field 'text' is empty; expected the text to classify$"):
        Explainer(predictor_of("bert", "labels", 1))(" ")


def test_a_task_that_does_not_say_what_its_answers_rest_on_is_refused(
    predictor_of: PredictorOf, tokens_of: dict[str, Tokens]
) -> None:
    task = predictor_of("bert", "labels", 1).task

    with pytest.raises(InputError, match=r"^answers of the task classification cannot be explained; .* rest on$"):
        Task.explained(task, {}, {}, [], [])
    with pytest.raises(InputError, match=r"^answers of the task classification cannot be explained; .* tokens stand$"):
        Task.located(task, {}, tokens_of["bert"])
