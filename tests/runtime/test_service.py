"""Every body gets one reply, whatever it holds, and harms no other."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.bundle import Limits
from suffuse.errors import InputError, RowError
from suffuse.runtime import Predictor, Reply, Service
from suffuse.runtime import service as service_module
from suffuse.tasks import Answer, Classification

EMPTY_BODY = (
    "the body is empty, or was sent without the header Content-Type: application/json; "
    "expected a JSON object or a list of them"
)
INTERNAL = {
    "code": "internal",
    "message": "the model could not compute this request; the server's log says why",
    "status": 500,
}
BLANK = {
    "code": "empty_text",
    "message": "field 'text' is empty; expected the text to classify",
    "status": 422,
}


class Upper:
    """Stands in for a predictor: answers in capitals, breaks on ``break``, and has no number for ``nan``."""

    bundle = SimpleNamespace(manifest=SimpleNamespace(limits=Limits(max_tokens=16, max_rows=4), graphs={}))
    task = Classification()

    def __init__(self) -> None:
        self.calls: list[int] = []

    def answers(self, rows: Sequence[object]) -> list[Answer | RowError]:
        self.calls.append(len(rows))
        return [self._answer(row) for row in rows]

    def _answer(self, row: object) -> Answer | RowError:
        try:
            text = self.task.check(row)["text"]
        except RowError as error:
            return error
        if text == "break":
            raise ZeroDivisionError("by this row")
        return {"label": text.upper(), "score": float("nan" if text == "nan" else 1)}


@pytest.fixture
def predictor() -> Upper:
    return Upper()


@pytest.fixture
def service(predictor: Upper) -> Service:
    return Service(cast("Predictor", predictor))


def contents(replies: list[Reply]) -> list[tuple[int, Any]]:
    return [(reply.status, json.loads(reply.body)) for reply in replies]


def answered(text: str) -> Answer:
    return {"label": text, "score": 1.0}


def test_a_row_gets_an_answer_and_a_list_gets_a_list(service: Service) -> None:
    replies = service.replies([b'{"text": "a"}', b'[{"text": "b"}, "c"]', b'"d"'])

    assert contents(replies) == [(200, answered("A")), (200, [answered("B"), answered("C")]), (200, answered("D"))]


def test_a_string_that_the_server_has_parsed_is_a_row_whatever_it_says(service: Service) -> None:
    replies = service.replies(["null", "7", '"d"'])

    assert contents(replies) == [(200, answered("NULL")), (200, answered("7")), (200, answered('"D"'))]


def test_json_sent_as_plain_text_is_json(service: Service) -> None:
    replies = service.replies([' {"text": "a"}', '["b"]'])

    assert contents(replies) == [(200, answered("A")), (200, [answered("B")])]


def test_all_requests_are_computed_together(service: Service, predictor: Upper) -> None:
    service.replies([b'"a"', b'["b", "c"]', b"[]", b'"d"'])

    assert predictor.calls == [4]


@pytest.mark.parametrize("content", [{"text": "é"}, {"text": 1}, ["a", "", "b"], {}, [], {"text": float("nan")}, "a"])
def test_a_body_is_alike_parsed_or_raw(service: Service, content: Any) -> None:  # noqa: ANN401
    text = json.dumps(content, ensure_ascii=False)

    replies = service.replies([content, content, text.encode(), bytearray(text.encode())])

    if content == {}:
        replies = replies[2:] * 2
    assert replies == [replies[0]] * 4


def test_a_bad_row_is_refused_with_its_status(service: Service) -> None:
    (reply,) = service.replies(['{"text": " "}'])

    assert (reply.status, reply.reason) == (422, "Unprocessable Entity")
    assert json.loads(reply.body) == {"error": BLANK}


def test_bad_row_leaves_its_neighbours_answered(service: Service) -> None:
    replies = service.replies([b'["a", "", "b"]', b'{"text": ""}', b'"c"'])

    assert contents(replies) == [
        (200, [answered("A"), {"error": BLANK}, answered("B")]),
        (422, {"error": BLANK}),
        (200, answered("C")),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"", 400, "empty_body", "the body is empty; expected a JSON object or a list of them"),
        (b" \n", 400, "empty_body", "the body is empty; expected a JSON object or a list of them"),
        (None, 400, "empty_body", EMPTY_BODY),
        ({}, 400, "empty_body", EMPTY_BODY),
        (b"null", 400, "empty_body", EMPTY_BODY),
        ([], 400, "empty_list", "the list of rows is empty; expected at least one row"),
        (b"[]", 400, "empty_list", "the list of rows is empty; expected at least one row"),
        (
            b"text",
            400,
            "invalid_json",
            "the body is not JSON: Expecting value: line 1 column 1 (char 0); expected an object or a list of them",
        ),
        (
            b'{"text": "\xff"}',
            400,
            "not_utf8",
            "the body is not UTF-8: byte 0xff at position 10; expected JSON in UTF-8",
        ),
        (
            ["a"] * 5,
            413,
            "too_many_rows",
            "the list has 5 rows; expected at most 4: send several requests",
        ),
        (b"7", 422, "invalid_type", "the row is 7; expected an object with the field 'text'"),
        (b"NaN", 422, "invalid_type", "the row is NaN; expected an object with the field 'text'"),
        (
            b'{"text": -Infinity}',
            422,
            "invalid_type",
            "field 'text' is -Infinity; expected a string: the text to classify",
        ),
        (
            b'{"text": "a\\u0000"}',
            422,
            "invalid_text",
            "field 'text' holds a NUL character at position 1; expected text, not binary data",
        ),
        (
            b'{"\\ud800": "a"}',
            422,
            "missing_field",
            "field 'text' is missing: got '\\ud800'; expected the text to classify",
        ),
    ],
)
def test_a_body_that_cannot_be_used_is_refused(
    service: Service, body: object, status: int, code: str, message: str
) -> None:
    replies = service.replies([body])

    assert contents(replies) == [(status, {"error": {"code": code, "message": message, "status": status}})]


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000, '{"text": ' + "1" * 5_000 + "}"])
def test_json_that_python_gives_up_on_is_malformed(service: Service, body: str) -> None:
    (reply,) = service.replies([body.encode()])

    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("broken", ["break", "nan"])
def test_a_request_that_cannot_be_computed_fails_alone(
    service: Service, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    with caplog.at_level(logging.ERROR):
        replies = service.replies([b'"a"', ["b", broken], b"{", b'["c", ""]'])

    assert [reply.status for reply in replies] == [200, 500, 400, 200]
    assert json.loads(replies[1].body) == {"error": INTERNAL}
    assert json.loads(replies[3].body) == [answered("C"), {"error": BLANK}]
    assert caplog.messages == ["a request of 2 rows could not be computed"]


def test_answers_that_pass_the_servers_limit_are_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_REPLY_BYTES", 50)

    replies = service.replies(['["a", "b"]', '["a"]'])

    message = "the answers take 53 bytes; expected at most 50: send fewer rows at once"
    assert contents(replies) == [
        (413, {"error": {"code": "reply_too_large", "message": message, "status": 413}}),
        (200, [answered("A")]),
    ]


def test_explanations_come_after_the_predictions_of_their_batch_and_take_their_own_places(predictor: Upper) -> None:
    asked: list[tuple[object, object, int, list[int]]] = []

    def explain(body: object, options: object, waiting: int) -> Reply:
        asked.append((body, options, waiting, list(predictor.calls)))
        return Reply(f'"why {len(asked)}"')

    service = Service(cast("Predictor", predictor), explain)

    replies = service.replies([b"why a", b'"b"', b"why c", b'["d", ""]'], {0: b"{}", 2: None})

    assert [json.loads(reply.body) for reply in replies] == [
        "why 1",
        answered("B"),
        "why 2",
        [answered("D"), {"error": BLANK}],
    ]
    assert asked == [(b"why a", b"{}", 2, [3]), (b"why c", None, 2, [3])]


def test_predictions_are_computed_as_if_no_explanation_was_asked_for(service: Service) -> None:
    beside = service.replies([b'"a"', b'"why"', b'{"text": ""}'], {1: None})

    assert [beside[0], beside[2]] == service.replies([b'"a"', b'{"text": ""}'])


def test_a_model_that_cannot_explain_says_what_makes_one(service: Service) -> None:
    (reply,) = service.replies([b'"a"'], {0: None})

    message = (
        "this model was exported without explain.onnx, which explanations are computed with; expected one that has it: "
        "suffuse export RUN --to BUNDLE --explain, and archive that bundle"
    )
    assert contents([reply]) == [(501, {"error": {"code": "no_explanations", "message": message, "status": 501}})]


def test_no_requests_get_no_replies(service: Service) -> None:
    assert service.replies([]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "break", "nan"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["text", "x"]), inner),
    max_leaves=6,
)
BODIES = JSON | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps(value).encode()) | st.binary() | st.text()


@given(st.lists(BODIES, max_size=5))
@settings(deadline=None, max_examples=200)
def test_whatever_comes_gets_a_reply_in_json_each_as_if_alone(bodies: list[object]) -> None:
    logging.disable(logging.CRITICAL)
    service = Service(cast("Predictor", Upper()))

    replies = service.replies(bodies)

    logging.disable(logging.NOTSET)
    assert replies == [service.replies([body])[0] for body in bodies]
    for reply in replies:
        content = json.loads(reply.body, parse_constant=pytest.fail)
        if reply.status != 200:
            assert set(content) == {"error"}
            assert set(content["error"]) == {"code", "message", "status"}
            assert content["error"]["status"] == reply.status


@pytest.mark.parametrize(
    ("variable", "settings_of_archive", "threads"),
    [
        (None, {"maxWorkers": 4}, 2),
        (None, {"maxWorkers": 99}, 1),
        (None, {}, 8),
        (None, None, 8),
        ("3", {"maxWorkers": 4}, 3),
    ],
)
def test_workers_share_the_cores_unless_told(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    settings_of_archive: dict[str, int] | None,
    threads: int,
) -> None:
    monkeypatch.setenv("SUFFUSE_THREADS", variable or "")
    monkeypatch.setattr(service_module, "available_cores", lambda: 8)
    given_threads: list[int] = []

    def opened(bundle: object, threads: int) -> Upper:
        given_threads.append(threads)
        return Upper()

    monkeypatch.setattr(service_module, "Predictor", opened)

    Service.open(tiny_bundle, settings_of_archive)

    assert given_threads == [threads]


@pytest.mark.parametrize("text", ["many", "-1", "1.5"])
def test_threads_that_are_no_number_are_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SUFFUSE_THREADS", text)

    with pytest.raises(InputError) as caught:
        Service.open(tiny_bundle)

    assert str(caught.value) == (
        f"SUFFUSE_THREADS is '{text}'; expected a number of threads, or nothing for a fair share"
    )


def test_a_worker_answers_from_a_bundle(tiny_bundle: Path) -> None:
    (reply,) = Service.open(tiny_bundle).replies([b'{"text": "a warm and funny film"}'])

    assert (reply.status, json.loads(reply.body)["label"]) == (200, "good")


def test_a_worker_explains_from_a_bundle_that_can(explainable_bundle: Path) -> None:
    service = Service.open(explainable_bundle, {"explanations": {"share": 0.5}})
    body = b'{"text": "a warm and funny film"}'
    (prediction,), (explanation,) = service.replies([body]), service.replies([body], {0: None})

    assert explanation.status == 200
    assert json.loads(explanation.body)["answer"] == json.loads(prediction.body)


def test_limits_of_explanations_that_make_no_sense_are_refused(explainable_bundle: Path) -> None:
    message = r"^explanations: shares is unknown; expected one of share, tokens$"

    with pytest.raises(InputError, match=message):
        Service.open(explainable_bundle, {"explanations": {"shares": 0.5}})


def test_a_worker_is_warm_before_its_first_request(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Upper()
    monkeypatch.setattr(service_module, "Predictor", lambda *_: predictor)

    Service.open(tiny_bundle)

    assert predictor.calls == [1]
