"""Whatever a client sends, it gets a clear error, nobody else is harmed, and the worker lives on."""

import json
from collections.abc import Iterator

import httpx
import pytest

import suffuse
from suffuse.errors import AuthorizationError, RequestError, UnknownModelError
from suffuse.serving.management import Management
from suffuse.serving.server import Server
from suffuse.serving.transports import Deadline, GrpcTransport

JSON = {"Content-Type": "application/json"}
PREDICTIONS = "/predictions/tiny"
EMPTY = "the body is empty; expected a JSON object or a list of them"
MISSING = "field 'text' is missing: got 'txet'; expected the text to classify; did you mean 'text' by 'txet'?"

# name -> body, status, code, message
BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "empty body": (b"", 400, "empty_body", EMPTY),
    "malformed JSON": (
        b'{"text": ',
        400,
        "invalid_json",
        "the body is not JSON: Expecting value: line 1 column 10 (char 9); expected an object or a list of them",
    ),
    "invalid UTF-8": (
        b'{"text": "caf\xe9"}',
        400,
        "not_utf8",
        "the body is not UTF-8: byte 0xe9 at position 13; expected JSON in UTF-8",
    ),
    "wrong type": (b"3", 422, "invalid_type", "the row is 3; expected an object with the field 'text'"),
    "field of the wrong type": (
        b'{"text": 3}',
        422,
        "invalid_type",
        "field 'text' is 3; expected a string: the text to classify",
    ),
    "misspelt field": (b'{"txet": "a film"}', 422, "missing_field", MISSING),
    "empty text": (b'{"text": " "}', 422, "empty_text", "field 'text' is empty; expected the text to classify"),
    "NUL": (
        b'{"text": "a\\u0000b"}',
        422,
        "invalid_text",
        "field 'text' holds a NUL character at position 1; expected text, not binary data",
    ),
    "lone surrogate": (
        b'{"text": "a\\ud800"}',
        422,
        "invalid_text",
        "field 'text' holds a lone surrogate (U+D800) at position 1; expected valid Unicode",
    ),
    "empty list": (b"[]", 400, "empty_list", "the list of rows is empty; expected at least one row"),
    "too many rows": (
        json.dumps(["a"] * 257).encode(),
        413,
        "too_many_rows",
        "the list has 257 rows; expected at most 256: send several requests",
    ),
}
ALL_BODIES = pytest.mark.parametrize(
    ("body", "status", "code", "message"), [pytest.param(*case, id=name) for name, case in BODIES.items()]
)


@pytest.fixture(autouse=True)
def same_worker_before_and_after(server: Server) -> Iterator[None]:
    """No test of this file may cost the worker its life."""
    with Management(server.management_url, key_file=server.key_file) as management:
        before = management.describe("tiny").workers
        yield
        assert management.describe("tiny").workers == before


@pytest.fixture
def grpc_client(server: Server) -> Iterator[suffuse.Client]:
    with suffuse.Client(server.grpc_url, key_file=server.key_file) as client:
        yield client


@ALL_BODIES
def test_bad_body_is_answered_with_its_error(
    rest: httpx.Client, body: bytes, status: int, code: str, message: str
) -> None:
    reply = rest.post(PREDICTIONS, content=body, headers=JSON)

    assert reply.headers["content-type"] == "application/json"
    assert (reply.status_code, reply.json()) == (
        status,
        {"error": {"code": code, "message": message, "status": status}},
    )


def test_body_without_content_type_is_read_as_json(rest: httpx.Client) -> None:
    reply = rest.post(PREDICTIONS, content=b'{"text": "a warm and funny film"}')

    assert (reply.status_code, reply.json()["label"]) == (200, "good")


def test_form_is_refused_with_a_word_on_content_type(rest: httpx.Client) -> None:
    # What `curl -d` sends when it is told no Content-Type: TorchServe keeps nothing of it.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = rest.post(PREDICTIONS, content=b'{"text": "a film"}', headers=form)

    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == (
        "the body is empty, or was sent without the header Content-Type: application/json; "
        "expected a JSON object or a list of them"
    )


def test_bad_row_leaves_its_neighbours_answered(rest: httpx.Client) -> None:
    rows = ["a warm and funny film", {"txet": "a film"}, {"text": "a dull and tired film"}]

    reply = rest.post(PREDICTIONS, json=rows)

    first, error, last = reply.json()
    assert (reply.status_code, first["label"], last["label"]) == (200, "good", "bad")
    assert error == {"error": {"code": "missing_field", "message": MISSING, "status": 422}}


def test_text_of_a_hundred_thousand_words_is_cut_and_the_answer_says_so(rest: httpx.Client) -> None:
    reply = rest.post(PREDICTIONS, json={"text": "funny " * 100_000})

    assert (reply.status_code, reply.json()["truncated"]) == (200, True)


def test_body_of_ten_megabytes_is_refused(rest: httpx.Client) -> None:
    reply = rest.post(PREDICTIONS, content=b"x" * 10_000_000, headers=JSON)

    assert reply.status_code == 413


def test_unknown_model_is_refused(rest: httpx.Client) -> None:
    reply = rest.post("/predictions/nobody", json="a film")

    assert (reply.status_code, reply.json()["message"]) == (404, "Model not found: nobody")


def test_wrong_token_is_refused(rest: httpx.Client) -> None:
    # TorchServe's own code for it is 400.
    reply = rest.post(PREDICTIONS, json="a film", headers={"Authorization": "Bearer wrong"})

    assert (reply.status_code, reply.json()["type"]) == (400, "InvalidKeyException")


def test_management_port_refuses_the_inference_key(server: Server) -> None:
    key = json.loads(server.key_file.read_text("utf-8"))["inference"]["key"]

    with Management(server.management_url, token=key) as management, pytest.raises(AuthorizationError):
        management.models()


# The same over gRPC


@ALL_BODIES
def test_bad_body_means_the_same_over_grpc(
    server: Server, key: dict[str, str], body: bytes, status: int, code: str, message: str
) -> None:
    transport = GrpcTransport(server.grpc_url)  # bare, for what our own client would not send
    reply = transport.predict("tiny", None, body, key, Deadline.after(30))
    transport.close()

    assert json.loads(reply) == {"error": {"code": code, "message": message, "status": status}}


def test_bad_row_leaves_its_neighbours_answered_over_grpc(grpc_client: suffuse.Client) -> None:
    first, error, last = grpc_client.predict("tiny", ["a warm and funny film", "", "a dull and tired film"])

    assert (first["label"], last["label"]) == ("good", "bad")
    assert error["error"]["code"] == "empty_text"


def test_unknown_model_is_refused_over_grpc(grpc_client: suffuse.Client) -> None:
    with pytest.raises(UnknownModelError):
        grpc_client.predict("nobody", "a film")


def test_wrong_token_is_refused_over_grpc(server: Server) -> None:
    with suffuse.Client(server.grpc_url, token="wrong") as client, pytest.raises(AuthorizationError):  # noqa: S106
        client.predict("tiny", "a film")


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
def test_client_refuses_ten_megabytes_before_sending(server: Server, kind: str) -> None:
    with suffuse.Client(getattr(server, kind), key_file=server.key_file) as client, pytest.raises(RequestError):
        client.predict("tiny", "x" * 10_000_000)
