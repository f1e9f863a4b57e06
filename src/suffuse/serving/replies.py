"""What a server's refusals mean: HTTP replies and gRPC states become the errors of suffuse, here and nowhere else."""

import json
from collections.abc import Callable
from typing import Any

from suffuse.errors import (
    AnswerError,
    AuthorizationError,
    ClientError,
    ConnectError,
    DeadlineError,
    OverloadError,
    UnknownModelError,
)

_Refusal = Callable[[str], ClientError]


class RetryLaterError(OverloadError):
    """The server refused for lack of room and said how long to stay away: `after_s`, in seconds."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


# By the `type` of TorchServe's JSON errors, where HTTP statuses are of no help: a wrong key is a 400.
_BY_TYPE: dict[str, _Refusal] = {
    "InvalidKeyException": AuthorizationError,
    "ModelNotFoundException": UnknownModelError,
    "ModelVersionNotFoundException": UnknownModelError,
    "ServiceUnavailableException": OverloadError,
}

# By status, for replies without such a body: those of a proxy in front.
_BY_STATUS: dict[int, _Refusal] = {
    401: AuthorizationError,
    403: AuthorizationError,
    429: OverloadError,
    502: ConnectError,
    503: OverloadError,
    504: DeadlineError,
}


# By gRPC code, for refusals that are not TorchServe's own: of gRPC itself, or of a proxy.
_BY_CODE: dict[str, _Refusal] = {
    "DEADLINE_EXCEEDED": DeadlineError,
    "UNAUTHENTICATED": AuthorizationError,
    "PERMISSION_DENIED": AuthorizationError,
    "NOT_FOUND": UnknownModelError,
    "RESOURCE_EXHAUSTED": OverloadError,
}

# What REST would have answered; where TorchServe's own two ways disagree, REST's.
_STATUS_OF_CODE = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503}

_NO_ROOM = "the model's queue is full, or none of its workers is ready; send less at once, or add workers"
_TOO_LARGE = "the server cut the request, as it does with one that is larger than its max_request_size"


def http_refusal(status: int, body: bytes, place: str, retry_after: str | None = None) -> ClientError:
    """The error for an HTTP reply that is not an answer.

    Args:
        status: the HTTP status, not 2xx.
        body: the reply's body: TorchServe's error, a handler's, or a proxy's page.
        place: which server and model was asked; it opens the message.
        retry_after: the header of that name.
    """
    content = _json_object(body)
    if isinstance(content.get("error"), dict):
        return handler_error(content["error"], status)
    if status == 413:
        return _too_large(place)
    kind, message = content.get("type"), str(content.get("message") or _first_line(body))
    message = f"{place}: {message} (status {status})"
    refusal = _BY_TYPE.get(kind) if isinstance(kind, str) else _BY_STATUS.get(status)
    if refusal is None:
        return AnswerError(message, code=kind if isinstance(kind, str) else f"http_{status}", status=status)
    if refusal is not OverloadError:
        return refusal(message)
    # TorchServe's own words send its reader to an API for sequences.
    message = f"{place}: {_NO_ROOM} (status {status})"
    return _later(message, retry_after)


def grpc_refusal(code: str, details: str, place: str, retry_after: str | None = None) -> ClientError:
    """The error for a gRPC call that ended in another state than OK.

    Args:
        code: the name of the status code, such as ``INTERNAL``.
        details: its details. TorchServe's have a Java exception in their last line, and only that tells its refusals
            apart: most codes are INTERNAL.
        place: which server and model was asked; it opens the message.
        retry_after: the trailing metadata of that name, which a balancer sends.
    """
    message, _, exception = details.rpartition("\n")
    # TorchServe's only refusal of this form is the one for lack of room; its other ones name the exception's package.
    if exception == "InternalServerException.()":
        return OverloadError(f"{place}: {_NO_ROOM} ({code})")
    kind = exception.removesuffix(".()").rpartition(".")[2]
    if message and kind.endswith("Exception"):
        refusal = _BY_TYPE.get(kind)
        message = f"{place}: {message} ({code})"
        return refusal(message) if refusal else AnswerError(message, code=kind, status=_STATUS_OF_CODE.get(code, 500))
    if code == "CANCELLED":
        return _too_large(place)
    if code == "UNAVAILABLE":
        return ConnectError(f"{place}: no connection ({details}); is `suffuse serve` running there?")
    message = f"{place}: {details or 'no message'} ({code})"
    refusal = _BY_CODE.get(code)
    if refusal is None:
        return AnswerError(message, code=f"grpc_{code.lower()}", status=_STATUS_OF_CODE.get(code, 500))
    return _later(message, retry_after) if refusal is OverloadError else refusal(message)


def handler_error(error: dict[str, Any], status: int = 500) -> ClientError:
    """The error that a handler put into its answer; `RetryLaterError` where it says when to come again.

    Args:
        error: ``{"code": ..., "message": ..., "status": ...}``, and ``retry_after_s`` where there was no time.
        status: for an error that has none.
    """
    after_s = error.get("retry_after_s")
    if isinstance(after_s, int | float):
        return RetryLaterError(str(error.get("message", "no message")), float(after_s))
    own = error.get("status")
    return AnswerError(
        str(error.get("message", "no message")),
        code=str(error.get("code", "error")),
        status=own if isinstance(own, int) else status,
    )


def _later(message: str, retry_after: str | None) -> OverloadError:
    """An error of overload that says when to come again, where that was said in seconds; it may also be a date."""
    if retry_after is not None and retry_after.isdecimal():
        return RetryLaterError(message, float(retry_after))
    return OverloadError(message)


def _too_large(place: str) -> AnswerError:
    return AnswerError(f"{place}: {_TOO_LARGE}; send fewer rows at once", code="request_too_large", status=413)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _first_line(body: bytes) -> str:
    return body.decode(errors="replace").strip().partition("\n")[0][:200] or "no message"
