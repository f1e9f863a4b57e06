"""Bundles and served models are asked alike; what cannot be asked is refused with what would help."""

import json
import re
from pathlib import Path

import httpx
import pytest

import suffuse
from suffuse.errors import AnswerError, BundleError, ConnectError, InputError
from suffuse.explain import Explainer
from suffuse.playground.models import BundleModel, ServedModel, Servers, known_fields, open_models
from suffuse.serving.client import Client
from suffuse.serving.transports import RestTransport

URL = "http://127.0.0.1:1"


def served(*fields: str) -> Client:
    """A client of a server whose model needs these fields."""

    def wire(request: httpx.Request) -> httpx.Response:
        row = json.loads(request.content)
        if missing := [name for name in fields if name not in row]:
            error = {"code": "missing_field", "message": f"field {missing[0]!r} is missing", "status": 422}
            return httpx.Response(422, json={"error": error})
        return httpx.Response(200, json={"score": 1.0})

    return Client(URL, transport=RestTransport(URL, httpx.MockTransport(wire)))


def test_a_bundle_answers_and_explains_as_it_does_elsewhere(explainable_bundle: Path) -> None:
    model = BundleModel(explainable_bundle)
    predictor = suffuse.load(explainable_bundle)

    assert model.name == "explainable"
    assert model.fields == predictor.task.fields
    assert model.answer({"text": "a warm film"}) == predictor("a warm film")
    assert model.explain({"text": "a warm film"}) == Explainer(predictor)("a warm film").to_dict()
    assert (
        model.explain({"text": "a warm film"}, "rollout")
        == predictor.explain("a warm film", method="rollout").to_dict()
    )


def test_a_bundle_that_explains_nothing_says_how_to_make_one_that_does(tiny_bundle: Path) -> None:
    model = BundleModel(tiny_bundle)

    expected = (
        f"the bundle tiny has no graph to explain with; make it anew: suffuse export RUN --to {tiny_bundle} --explain"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        model.explain({"text": "a warm film"})


@pytest.mark.parametrize("fields", [("text",), ("text", "text_pair"), ("question", "context")])
def test_the_fields_of_a_served_model_are_found_by_asking(fields: tuple[str, ...]) -> None:
    model = ServedModel(served(*fields), "m", "there")

    assert model.name == "m at there"
    assert {field.name for field in model.fields} == set(fields)
    assert model.answer(dict.fromkeys(fields, "a")) == {"score": 1.0}


def test_a_served_model_is_told_the_method() -> None:
    asked: list[object] = []

    def wire(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"answer": {"score": 1.0}, "explained": []})

    ServedModel(Client(URL, transport=RestTransport(URL, httpx.MockTransport(wire))), "m", "there").explain(
        {"text": "a"}, "gradient"
    )

    assert asked[-1] == {"row": {"text": "a"}, "method": "gradient"}


def test_a_served_model_of_an_unknown_form_is_refused() -> None:
    expected = (
        "model 'm' reads rows of a form that this version does not know; "
        "expected one of: text; question, context; text, text_pair"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        ServedModel(served("sound"), "m", "there")


def test_another_error_of_a_served_model_is_not_taken_for_a_missing_field() -> None:
    def wire(_: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={"error": {"code": "internal", "message": "no", "status": 500}})

    with pytest.raises(AnswerError):
        ServedModel(Client(URL, transport=RestTransport(URL, httpx.MockTransport(wire)), retries=0), "m", "there")


def test_every_task_has_its_form() -> None:
    assert [[field.name for field in fields] for fields in known_fields()] == [
        ["text"],
        ["question", "context"],
        ["text", "text_pair"],
    ]


def test_models_of_one_name_are_numbered(tiny_bundle: Path) -> None:
    models = open_models([str(tiny_bundle), str(tiny_bundle)], Servers())

    assert list(models) == ["tiny", "tiny (2)"]


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^no model was named; expected folders of bundles, addresses of servers, or both$"
    ):
        open_models([], Servers())


def test_a_server_without_a_model_is_refused() -> None:
    expected = f"which models of {URL}/? Expected {URL}/predictions/NAME, or --management URL to ask it"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        open_models([f"{URL}/"], Servers())


def test_a_server_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffuse.playground.models.TIMEOUT_S", 0.1)

    with pytest.raises(ConnectError):
        open_models([f"{URL}/predictions/m"], Servers())


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_models([str(tmp_path)], Servers())
