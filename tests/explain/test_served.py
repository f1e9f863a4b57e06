"""Whoever asks a server for an explanation gets it, or learns what to change, and costs no more than is allowed."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suffuse.bundle import MANIFEST
from suffuse.errors import BundleError, InputError
from suffuse.explain import served as served_module
from suffuse.explain.served import ExplanationLimits, ServedExplanations
from suffuse.runtime import Predictor, Service, load

TEXT = "a warm and funny film"
GRADIENT = {"method": "gradient"}
STRANGE = [
    "<p class='x'>funny &amp; <b>warm</b></p><br/>",
    "הסרט היה מצחיק מאוד, film",
    "film 👩🏽‍🚀 great 🙂🙂",
    "cafe\u0301 nai\u0308ve e\u0301\u0302 film",
]


@pytest.fixture(scope="module")
def predictor(explainable_bundle: Path) -> Predictor:
    return load(explainable_bundle, threads=1)


@pytest.fixture
def served(predictor: Predictor) -> ServedExplanations:
    """Explanations that time is never short for."""
    return ServedExplanations(predictor, ExplanationLimits(), lambda: 0.0)


def explain(served: ServedExplanations, row: object, **options: object) -> dict[str, Any]:
    reply = served.reply(json.dumps({"row": row, **options}).encode())
    assert reply.status == 200, reply.body
    content: dict[str, Any] = json.loads(reply.body)
    return content


def refusal(served: ServedExplanations, body: object, options: object = None) -> tuple[int, str, str]:
    reply = served.reply(body, options)
    error = json.loads(reply.body)["error"]
    assert error["status"] == reply.status
    return reply.status, error["code"], error["message"]


# What is asked


def test_the_answer_inside_is_that_of_a_prediction_to_the_byte(
    served: ServedExplanations, predictor: Predictor
) -> None:
    body = json.dumps({"text": TEXT}).encode()
    (prediction,) = Service(predictor).replies([body])

    assert served.reply(body).body.startswith(f'{{"answer":{prediction.body},"method":"integrated","windows":1,')


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"text": TEXT}).encode(),
        {"text": TEXT},
        TEXT,
        json.dumps({"row": {"text": TEXT}}),
        {"row": TEXT},
    ],
)
def test_a_row_alone_is_enough(served: ServedExplanations, body: object) -> None:
    reply = served.reply(body)

    assert reply == served.reply({"row": {"text": TEXT}, "method": "integrated", "steps": 16})
    assert reply.status == 200


@pytest.mark.parametrize("options", [b'{"target": "bad", "steps": 4}', {"target": "bad", "steps": 4}])
def test_options_may_come_beside_the_body(served: ServedExplanations, options: object) -> None:
    beside = served.reply({"text": TEXT}, options)

    assert beside == served.reply({"row": {"text": TEXT}, "target": "bad", "steps": 4})
    assert json.loads(beside.body)["explained"][0]["target"] == "bad"


@pytest.mark.parametrize("options", [None, b"", bytearray(), "", b"{}", {}])
def test_no_options_are_none(served: ServedExplanations, options: object) -> None:
    assert served.reply({"text": TEXT}, options) == served.reply({"text": TEXT})


@pytest.mark.parametrize("method", ["integrated", "gradient", "smooth", "rollout"])
def test_it_is_what_python_gives(served: ServedExplanations, predictor: Predictor, method: str) -> None:
    settings = {} if method in ("gradient", "rollout") else {"steps": 256}

    expected = predictor.explain(TEXT, method=method, **settings)  # type: ignore[arg-type]

    assert explain(served, TEXT, method=method, **settings) == json.loads(json.dumps(expected.to_dict()))


@pytest.mark.parametrize("text", STRANGE)
def test_words_stand_where_they_are_said_to(served: ServedExplanations, text: str) -> None:
    (explained,) = explain(served, text, **GRADIENT)["explained"]

    assert explained["words"]
    assert [text[word["start"] : word["end"]] for word in explained["words"]] == [
        word["text"] for word in explained["words"]
    ]


def test_a_text_of_which_nothing_is_left_after_cleaning_has_no_words(
    served: ServedExplanations, predictor: Predictor
) -> None:
    text = "\u200b\u200d"

    explanation = explain(served, text)

    assert explanation["answer"] == predictor(text)
    assert explanation["explained"][0]["words"] == []


def test_a_text_over_the_models_limit_is_explained_in_windows_and_says_so(served: ServedExplanations) -> None:
    text = " ".join(["funny film"] * 100)

    explanation = explain(served, text)

    (explained,) = explanation["explained"]
    assert explanation["windows"] > 1
    assert len(explained["words"]) == 200
    assert explained["steps"] == 16


# What one may cost


def test_a_long_row_gets_fewer_steps_and_says_so(predictor: Predictor) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(tokens=40), lambda: 0.0)

    (explained,) = explain(served, TEXT)["explained"]

    assert explained["steps"] == 40 // 7  # five words and two special tokens
    assert explained["gap"] > 0


def test_steps_are_not_doubled_for_those_who_wait(served: ServedExplanations) -> None:
    (explained,) = explain(served, TEXT, steps=1)["explained"]

    assert explained["steps"] == 1
    assert explained["gap"] > 0.05


@pytest.mark.parametrize(
    ("method", "steps", "most"), [("integrated", 100, 5), ("smooth", 100, 4), ("integrated", 6, 5), ("smooth", 5, 4)]
)
def test_more_steps_than_are_allowed_are_refused_with_how_many_are(
    predictor: Predictor, method: str, steps: int, most: int
) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(tokens=40), lambda: 0.0)

    said = refusal(served, {"row": TEXT, "method": method, "steps": steps})

    message = (
        f"{steps} steps on a row of 7 tokens; expected at most 40 tokens in all: "
        f"ask for at most {most} steps, or send a shorter text"
    )
    assert said == (422, "too_many_steps", message)
    assert explain(served, TEXT, method=method, steps=most)


def test_a_row_that_cannot_be_gone_through_once_is_refused(predictor: Predictor) -> None:
    served = ServedExplanations(predictor, ExplanationLimits(tokens=6), lambda: 0.0)

    assert refusal(served, {"row": TEXT, "method": "gradient"}) == (
        413,
        "too_long",
        "the row has 7 tokens; expected at most 6 to explain: send a shorter text",
    )


def test_fewer_things_are_explained_where_each_costs_much(
    predictor_of: Callable[[str, str, int], Predictor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of("bert", "entities", 1)
    row = "funny, clever and moving from start to end"
    tokens = sum(map(len, predictor.task.encode([predictor.task.check(row)], predictor.tokens)))
    entities = len(predictor(row)["entities"])
    assert entities > 2
    monkeypatch.setattr(predictor.bundle, "path", tmp_path)
    monkeypatch.setattr(predictor.bundle.manifest, "evaluation", {}, raising=False)
    (tmp_path / MANIFEST).touch()
    served = ServedExplanations(predictor, ExplanationLimits(tokens=2 * tokens), lambda: 0.0)

    explanation = explain(served, row, **GRADIENT)

    assert (len(explanation["explained"]), explanation["left_out"]) == (2, entities - 2)


# What is refused


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"", 400, "empty_body", "the body is empty; expected a JSON object or a list of them"),
        (
            b"{",
            400,
            "invalid_json",
            (
                "the body is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); "
                "expected an object or a list of them"
            ),
        ),
        (
            ["a", "b"],
            400,
            "several_rows",
            "the body is a list of 2; expected one row: each is explained by a request of its own",
        ),
        ({"row": " "}, 422, "empty_text", "field 'text' is empty; expected the text to classify"),
        (b"7", 422, "invalid_type", "the row is 7; expected an object with the field 'text'"),
        (
            {"row": ["a"]},
            422,
            "invalid_type",
            "the row is a list; expected an object with the field 'text'",
        ),
        (
            {"row": "a", "target": "goood"},
            422,
            "unknown_target",
            "target 'goood' is unknown; expected one of bad, good; did you mean 'good'?",
        ),
        (
            {"row": "a", "method": "integratd"},
            422,
            "unknown_method",
            (
                "method 'integratd' is unknown; expected one of integrated, gradient, smooth, rollout; "
                "did you mean 'integrated'?"
            ),
        ),
        (
            {"row": "a", "steps": 10_000},
            422,
            "invalid_option",
            "steps is 10,000; expected 1 to 1,000: 32 are enough for most texts",
        ),
        (
            {"row": "a", "steps": -1},
            422,
            "invalid_option",
            "steps is -1; expected 1 to 1,000: 32 are enough for most texts",
        ),
        (
            {"row": "a", "method": "gradient", "steps": 3},
            422,
            "invalid_option",
            "method gradient has no setting 'steps'; expected none",
        ),
        (
            {"row": "a", "steps": "16"},
            422,
            "invalid_option",
            "option 'steps' is '16'; expected a whole number, such as 16",
        ),
        (
            {"row": "a", "steps": True},
            422,
            "invalid_option",
            "option 'steps' is 'True'; expected a whole number, such as 16",
        ),
        (
            {"row": "a", "target": 3},
            422,
            "invalid_option",
            "option 'target' is '3'; expected a string: what of the answer to explain",
        ),
        (
            {"row": "a", "method": None},
            422,
            "invalid_option",
            "option 'method' is 'None'; expected one of integrated, gradient, smooth, rollout",
        ),
        (
            {"row": "a", "step": 3},
            422,
            "unknown_option",
            "option 'step' is unknown; expected one of row, target, method, steps; did you mean 'steps'?",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused_with_what_to_change(
    served: ServedExplanations, body: object, status: int, code: str, message: str
) -> None:
    assert refusal(served, body) == (status, code, message)


def test_options_that_are_no_object_are_refused(served: ServedExplanations) -> None:
    assert refusal(served, "a", b'["target"]') == (
        400,
        "invalid_option",
        "the options are \"['target']\"; expected a JSON object",
    )


def test_a_bundle_that_lacks_the_methods_graph_says_what_makes_it(
    served: ServedExplanations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise BundleError("b: it has no attention.onnx")

    monkeypatch.setattr(served_module, "Explainer", without)

    message = (
        "this model was exported without the graph that method 'rollout' computes with; "
        "expected one that has it: suffuse export RUN --to BUNDLE --explain, and archive that bundle"
    )
    assert refusal(served, {"row": "a", "method": "rollout"}) == (501, "no_explanations", message)


def test_an_explanation_that_passes_the_servers_limit_is_refused(
    served: ServedExplanations, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = len(served.reply({"text": TEXT}).body)
    monkeypatch.setattr(served_module, "MAX_REPLY_BYTES", 50)

    assert refusal(served, {"text": TEXT}) == (
        413,
        "reply_too_large",
        f"the explanation takes {length} bytes; expected at most 50: send a shorter text",
    )


def test_a_fault_of_ours_is_logged_and_answered(
    served: ServedExplanations, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_module, "Explainer", None)

    with caplog.at_level(logging.ERROR):
        said = refusal(served, {"text": TEXT})

    assert said == (500, "internal", "the model could not explain this row; the server's log says why")
    assert caplog.messages == ["an explanation could not be computed"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.0}, "explanations: share is 0; expected above 0 and at most 1, such as 0.2"),
        ({"share": 1.5}, "explanations: share is 1.5; expected above 0 and at most 1, such as 0.2"),
        ({"tokens": 0}, "explanations: tokens is 0; expected 1 or more, such as 4096"),
        ({"budget": 1}, "explanations: budget is unknown; expected one of share, tokens"),
    ],
)
def test_limits_that_make_no_sense_are_refused(predictor: Predictor, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ServedExplanations.open(predictor, settings)

    assert str(caught.value) == message
