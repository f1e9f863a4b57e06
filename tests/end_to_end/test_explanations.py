"""A server says why: over REST and gRPC, beside predictions that do not change, and with refusals that help."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import suffuse
from suffuse.errors import AnswerError
from suffuse.serving.archive import ArchiveSettings, archive
from suffuse.serving.management import Management
from suffuse.serving.server import Server
from suffuse.serving.transports import Deadline, GrpcTransport

TEXT = "a warm and funny film"
JSON = {"Content-Type": "application/json"}
LONG = " ".join(["a warm and funny film about friends"] * 20)
STRANGE = [
    "<p class='x'>funny &amp; <b>warm</b></p>",
    "הסרט היה מצחיק, film",
    "film 👩🏽‍🚀 great 🙂",
    "cafe\u0301 nai\u0308ve film",
]


@pytest.fixture(scope="module", autouse=True)
def explainable(server: Server, store: Path, explainable_bundle: Path) -> Iterator[str]:
    """The name of a model that can explain, beside the one that cannot."""
    archive(explainable_bundle, store, ArchiveSettings(explanation_share=1.0))
    with Management(server.management_url, key_file=server.key_file) as management:
        management.register("explainable.mar", initial_workers=1)
        before = management.wait_ready("explainable", timeout_s=60).workers
        yield "explainable"
        after = management.describe("explainable").workers
        management.unregister("explainable")
    assert before == after  # no test of this file may cost the worker its life


@pytest.fixture(params=["url", "grpc_url"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[suffuse.Client]:
    with suffuse.Client(getattr(server, request.param), key_file=server.key_file) as connected:
        yield connected


@pytest.fixture(params=["rest", "grpc"])
def ask(
    request: pytest.FixtureRequest, server: Server, rest: httpx.Client, key: dict[str, str]
) -> Iterator[Callable[[str, bytes], bytes]]:
    """Bytes out, bytes in: ``ask("predictions" or "explanations", body)``."""
    transport = GrpcTransport(server.grpc_url)

    def over_grpc(kind: str, body: bytes) -> bytes:
        method = {"predictions": transport.predict, "explanations": transport.explain}[kind]
        return method("explainable", None, body, key, Deadline.after(30))

    def over_rest(kind: str, body: bytes) -> bytes:
        return rest.post(f"/{kind}/explainable", content=body, headers=JSON).content

    yield {"rest": over_rest, "grpc": over_grpc}[request.param]
    transport.close()


def test_words_that_the_model_learned_speak_for_its_answer(client: suffuse.Client, explainable: str) -> None:
    explanation = client.explain(explainable, TEXT)

    (explained,) = explanation["explained"]
    scores = {word["text"]: word["score"] for word in explained["words"]}
    assert explained["target"] == explanation["answer"]["label"] == "good"
    assert scores["funny"] > max(0.0, scores["film"])


def test_the_answer_inside_is_that_of_a_prediction_to_the_byte(ask: Callable[[str, bytes], bytes]) -> None:
    for text in (TEXT, "dull", LONG, *STRANGE):
        body = json.dumps({"text": text}).encode()

        prediction, explanation = ask("predictions", body), ask("explanations", body)

        assert explanation.startswith(b'{"answer":' + prediction + b',"method":')


def test_a_server_says_what_python_says(client: suffuse.Client, explainable: str, explainable_bundle: Path) -> None:
    offline = suffuse.load(explainable_bundle, threads=1).explain(TEXT, target="bad", method="smooth", steps=8)

    served = client.explain(explainable, {"text": TEXT}, target="bad", method="smooth", steps=8)

    (expected,), (explained,) = offline.to_dict()["explained"], served["explained"]
    assert [word["text"] for word in explained["words"]] == [word["text"] for word in expected["words"]]
    assert [word["score"] for word in explained["words"]] == pytest.approx(
        [word["score"] for word in expected["words"]], abs=1e-4
    )


def test_neighbours_of_explanations_are_answered_as_ever(client: suffuse.Client, explainable: str) -> None:
    rows = [f"{text} {number}" for number in range(10) for text in ("a warm and funny film", "dull", LONG)]
    alone = [client.predict(explainable, row) for row in rows]

    with ThreadPoolExecutor(16) as pool:
        explanations = [pool.submit(client.explain, explainable, row, method="gradient") for row in rows[:6]]
        bad = [pool.submit(client.explain, explainable, TEXT, target="god") for _ in range(6)]
        predictions = list(pool.map(lambda row: client.predict(explainable, row), rows))

    assert [answer["label"] for answer in predictions] == [answer["label"] for answer in alone]
    assert [answer["scores"]["good"] for answer in predictions] == pytest.approx(
        [answer["scores"]["good"] for answer in alone], abs=1e-4
    )
    assert [future.result()["answer"]["label"] for future in explanations] == [answer["label"] for answer in alone[:6]]
    assert all(isinstance(future.exception(), AnswerError) for future in bad)


def test_a_text_over_the_models_limit_is_explained_in_windows(client: suffuse.Client, explainable: str) -> None:
    explanation = client.explain(explainable, LONG, method="gradient")

    assert explanation["windows"] > 1
    assert len(explanation["explained"][0]["words"]) == len(LONG.split())


@pytest.mark.parametrize("text", STRANGE)
def test_words_stand_where_they_are_said_to(client: suffuse.Client, explainable: str, text: str) -> None:
    (explained,) = client.explain(explainable, text, method="gradient")["explained"]

    assert explained["words"]
    assert [text[word["start"] : word["end"]] for word in explained["words"]] == [
        word["text"] for word in explained["words"]
    ]


def test_a_text_of_which_cleaning_leaves_nothing_has_no_words(client: suffuse.Client, explainable: str) -> None:
    explanation = client.explain(explainable, "\u200b\u200d")

    assert explanation["answer"] == client.predict(explainable, "\u200b\u200d")
    assert explanation["explained"][0]["words"] == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            {"row": TEXT, "target": "god"},
            "unknown_target",
            "target 'god' is unknown; expected one of bad, good; did you mean 'good'?",
        ),
        (
            {"row": TEXT, "method": "lime"},
            "unknown_method",
            "method 'lime' is unknown; expected one of integrated, gradient, smooth, rollout",
        ),
        (
            {"row": TEXT, "steps": 10_000},
            "invalid_option",
            "steps is 10,000; expected 1 to 1,000: 32 are enough for most texts",
        ),
        (
            {"row": TEXT, "steps": "many"},
            "invalid_option",
            "option 'steps' is 'many'; expected a whole number, such as 16",
        ),
        ({"row": " "}, "empty_text", "field 'text' is empty; expected the text to classify"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_what_to_change(
    ask: Callable[[str, bytes], bytes], body: dict[str, Any], code: str, message: str
) -> None:
    reply = json.loads(ask("explanations", json.dumps(body).encode()))

    assert reply == {"error": {"code": code, "message": message, "status": 422}}


def test_a_refusal_has_its_status_over_rest(rest: httpx.Client) -> None:
    assert rest.post("/explanations/explainable", json={"row": TEXT, "target": "god"}).status_code == 422


def test_a_model_that_cannot_explain_says_what_makes_one(client: suffuse.Client) -> None:
    with pytest.raises(AnswerError) as caught:
        client.explain("tiny", TEXT)

    assert (caught.value.code, caught.value.status) == ("no_explanations", 501)
    assert str(caught.value) == (
        "this model was exported without explain.onnx, which explanations are computed with; expected one that has it: "
        "suffuse export RUN --to BUNDLE --explain, and archive that bundle"
    )


def test_body_of_ten_megabytes_is_refused(rest: httpx.Client) -> None:
    reply = rest.post("/explanations/explainable", content=b"x" * 10_000_000, headers=JSON)

    assert reply.status_code == 413


def test_who_comes_too_often_is_told_when_to_come_again(
    server: Server, store: Path, explainable_bundle: Path, rest: httpx.Client, client: suffuse.Client
) -> None:
    archive(explainable_bundle, store, ArchiveSettings(explanation_share=0.001, version="2.0"))
    with Management(server.management_url, key_file=server.key_file) as management:
        management.register("explainable.mar", initial_workers=1)
        management.wait_ready("explainable", timeout_s=60, version="2.0")
        try:
            replies = [rest.post("/explanations/explainable/2.0", json={"row": LONG, "steps": 16}) for _ in range(40)]
            prediction = client.predict("explainable", TEXT, version="2.0")
        finally:
            management.unregister("explainable", "2.0")

    assert {reply.status_code for reply in replies} == {200, 429}
    error = replies[-1].json()["error"]
    assert (error["code"], error["status"]) == ("explanations_busy", 429)
    assert 0 < error["retry_after_s"] <= float(replies[-1].headers["retry-after"])
    assert prediction["label"] == "good"
