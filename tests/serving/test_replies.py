"""What TorchServe 0.12 was seen to answer, and what a proxy would, must become the right error."""

import json

import pytest

from suffuse.errors import (
    AnswerError,
    AuthorizationError,
    ClientError,
    ConnectError,
    DeadlineError,
    OverloadError,
    UnknownModelError,
)
from suffuse.serving.replies import RetryLaterError, grpc_refusal, handler_error, http_refusal

PLACE = "http://h:1: model 'm'"
JAVA = "org.pytorch.serve"
NO_ROOM = "the model's queue is full, or none of its workers is ready; send less at once, or add workers"
NO_WORKER = 'Model "m" has no worker to serve inference request. Please use scale workers API to add workers.'
KEY_REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


def torchserve(status: int, kind: str, message: str) -> bytes:
    return json.dumps({"code": status, "type": kind, "message": message}, indent=2).encode() + b"\n"


@pytest.mark.parametrize(
    ("status", "kind", "message", "error", "text"),
    [
        (400, "InvalidKeyException", KEY_REFUSED, AuthorizationError, f"{KEY_REFUSED} (status 400)"),
        (404, "ModelNotFoundException", "Model not found: m", UnknownModelError, "Model not found: m (status 404)"),
        (404, "ModelVersionNotFoundException", "No version 9", UnknownModelError, "No version 9 (status 404)"),
        (503, "ServiceUnavailableException", NO_WORKER, OverloadError, f"{NO_ROOM} (status 503)"),
        (503, "InternalServerException", "Prediction failed", AnswerError, "Prediction failed (status 503)"),
        (500, "InternalServerException", "Worker died.", AnswerError, "Worker died. (status 500)"),
    ],
)
def test_refusal_of_torchserve_over_rest(
    status: int, kind: str, message: str, error: type[ClientError], text: str
) -> None:
    refusal = http_refusal(status, torchserve(status, kind, message), PLACE)

    assert (type(refusal), str(refusal)) == (error, f"{PLACE}: {text}")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthorizationError),
        (403, AuthorizationError),
        (429, OverloadError),
        (500, AnswerError),
        (502, ConnectError),
        (503, OverloadError),
        (504, DeadlineError),
        (301, AnswerError),
    ],
)
def test_page_of_a_proxy_is_judged_by_its_status(status: int, error: type[ClientError]) -> None:
    assert type(http_refusal(status, b"<html>\n<body>sorry", PLACE)) is error


def test_page_of_a_proxy_is_quoted_by_its_first_line() -> None:
    refusal = http_refusal(500, b"\nsorry\n" + b"x" * 1000, PLACE)

    assert str(refusal) == f"{PLACE}: sorry (status 500)"


def test_refusal_that_is_nobodys_keeps_the_status() -> None:
    refusal = http_refusal(418, b"[]", PLACE)

    assert isinstance(refusal, AnswerError)
    assert (refusal.code, refusal.status) == ("http_418", 418)


def test_failure_of_a_handler_keeps_torchserves_type_and_status() -> None:
    refusal = http_refusal(503, torchserve(503, "InternalServerException", "Prediction failed"), PLACE)

    assert isinstance(refusal, AnswerError)
    assert (refusal.code, refusal.status) == ("InternalServerException", 503)


def test_error_of_a_handler_keeps_its_code_and_words() -> None:
    refusal = http_refusal(422, b'{"error": {"code": "missing_field", "message": "no text"}}', PLACE)

    assert isinstance(refusal, AnswerError)
    assert (str(refusal), refusal.code, refusal.status) == ("no text", "missing_field", 422)


def test_status_inside_an_error_wins_over_the_outer_one() -> None:
    refusal = handler_error({"code": "c", "message": "m", "status": 413}, 200)

    assert isinstance(refusal, AnswerError)
    assert refusal.status == 413


@pytest.mark.parametrize("error", [{}, {"code": 1, "message": None, "status": "x"}])
def test_odd_error_of_a_handler_still_becomes_one(error: dict[str, object]) -> None:
    refusal = handler_error(error)

    assert isinstance(refusal, AnswerError)
    assert refusal.status == 500


def test_handler_that_says_when_to_come_again_is_believed() -> None:
    refusal = handler_error({"code": "explanations_busy", "message": "m", "status": 429, "retry_after_s": 1.5})

    assert isinstance(refusal, RetryLaterError)
    assert (str(refusal), refusal.after_s) == ("m", 1.5)


def test_seconds_to_stay_away_are_kept() -> None:
    refusal = http_refusal(503, b"", PLACE, "7")

    assert isinstance(refusal, RetryLaterError)
    assert refusal.after_s == 7.0


@pytest.mark.parametrize("retry_after", [None, "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon"])
def test_what_is_no_number_of_seconds_leaves_a_plain_refusal(retry_after: str | None) -> None:
    assert type(http_refusal(429, b"", PLACE, retry_after)) is OverloadError


@pytest.mark.parametrize(
    ("code", "details", "error", "text"),
    [
        (
            "INTERNAL",
            f"Model not found: m\n{JAVA}.archive.model.ModelNotFoundException",
            UnknownModelError,
            "Model not found: m (INTERNAL)",
        ),
        (
            "INTERNAL",
            f"No version 9\n{JAVA}.archive.model.ModelVersionNotFoundException",
            UnknownModelError,
            "No version 9 (INTERNAL)",
        ),
        ("INTERNAL", f"{NO_WORKER}\nInternalServerException.()", OverloadError, f"{NO_ROOM} (INTERNAL)"),
        (
            "UNAVAILABLE",
            f"Prediction failed\n{JAVA}.http.InternalServerException",
            AnswerError,
            "Prediction failed (UNAVAILABLE)",
        ),
        (
            "RESOURCE_EXHAUSTED",
            f"Worker died.\n{JAVA}.http.InternalServerException",
            AnswerError,
            "Worker died. (RESOURCE_EXHAUSTED)",
        ),
        ("PERMISSION_DENIED", KEY_REFUSED, AuthorizationError, f"{KEY_REFUSED} (PERMISSION_DENIED)"),
        ("UNAUTHENTICATED", "", AuthorizationError, "no message (UNAUTHENTICATED)"),
        (
            "UNAVAILABLE",
            "Connection refused",
            ConnectError,
            "no connection (Connection refused); is `suffuse serve` running there?",
        ),
        ("DEADLINE_EXCEEDED", "late", DeadlineError, "late (DEADLINE_EXCEEDED)"),
        ("RESOURCE_EXHAUSTED", "too many", OverloadError, "too many (RESOURCE_EXHAUSTED)"),
    ],
)
def test_refusal_over_grpc(code: str, details: str, error: type[ClientError], text: str) -> None:
    refusal = grpc_refusal(code, details, PLACE)

    assert (type(refusal), str(refusal)) == (error, f"{PLACE}: {text}")


@pytest.mark.parametrize(
    ("code", "details", "kind", "status"),
    [
        ("INTERNAL", "no model_name\nBadRequestException.()", "BadRequestException", 500),
        ("INVALID_ARGUMENT", "bad", "grpc_invalid_argument", 400),
        ("UNIMPLEMENTED", "no such method", "grpc_unimplemented", 501),
        ("UNAVAILABLE", f"failed\n{JAVA}.http.InternalServerException", "InternalServerException", 503),
        ("UNKNOWN", "two\nlines", "grpc_unknown", 500),
    ],
)
def test_error_over_grpc_has_the_code_and_status_of_rest(code: str, details: str, kind: str, status: int) -> None:
    refusal = grpc_refusal(code, details, PLACE)

    assert isinstance(refusal, AnswerError)
    assert (refusal.code, refusal.status) == (kind, status)


def test_request_that_is_too_large_is_the_same_error_both_ways() -> None:
    details = "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"
    expected = (
        f"{PLACE}: the server cut the request, as it does with one that is larger than its max_request_size; send "
        "fewer rows at once"
    )

    for refusal in (http_refusal(413, b"", PLACE), grpc_refusal("CANCELLED", details, PLACE)):
        assert isinstance(refusal, AnswerError)
        assert (str(refusal), refusal.code, refusal.status) == (expected, "request_too_large", 413)


@pytest.mark.parametrize(("retry_after", "after_s"), [("3", 3.0), ("0", 0.0)])
def test_grpc_refusal_of_a_balancer_says_when_to_come_again(retry_after: str, after_s: float) -> None:
    error = grpc_refusal("RESOURCE_EXHAUSTED", "too many", "here", retry_after)

    assert isinstance(error, RetryLaterError)
    assert (str(error), error.after_s) == ("here: too many (RESOURCE_EXHAUSTED)", after_s)


@pytest.mark.parametrize("retry_after", [None, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_grpc_refusal_without_seconds_is_plain_overload(retry_after: str | None) -> None:
    error = grpc_refusal("RESOURCE_EXHAUSTED", "too many", "here", retry_after)

    assert type(error) is OverloadError
