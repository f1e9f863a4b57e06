"""JSON as servers hand it over and send it back: bodies read with errors that say what is wrong, and replies."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil

from suffuse.errors import RequestError

MAX_REPLY_BYTES = 6_000_000
"""TorchServe ends a worker whose reply passes its max_response_size, 6,553,500 bytes by default."""


@dataclass(frozen=True)
class Reply:
    """A JSON body, its HTTP status, and for a refusal how many seconds to stay away, where that is known."""

    body: str
    status: int = 200
    retry_after_s: float | None = None

    @property
    def reason(self) -> str:
        """The standard words for the status."""
        return HTTPStatus(self.status).phrase

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers besides Content-Type."""
        return {} if self.retry_after_s is None else {"Retry-After": str(ceil(round(self.retry_after_s, 3)))}


def read_body(body: object) -> object:
    """What a body says.

    Args:
        body: raw JSON (bytes, str), or what a server has parsed from it already.

    Raises:
        RequestError: it is empty or no JSON.
    """
    if isinstance(body, str) and body.strip() and body.lstrip()[0] not in "{[":
        return body  # a JSON string that the server has parsed already: its text is the row
    if isinstance(body, str | bytes | bytearray):
        if not body.strip():
            raise RequestError("the body is empty; expected a JSON object or a list of them", code="empty_body")
        try:
            body = json.loads(body if isinstance(body, str) else bytes(body).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(
                f"the body is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}; "
                "expected JSON in UTF-8",
                code="not_utf8",
            ) from None
        except (ValueError, RecursionError) as error:  # nested too deep; a number of thousands of digits
            raise RequestError(
                f"the body is not JSON: {error}; expected an object or a list of them", code="invalid_json"
            ) from None
    if body is None or (isinstance(body, dict) and not body):
        # TorchServe makes an empty object of a form, which is what curl sends when it is told no Content-Type.
        raise RequestError(
            "the body is empty, or was sent without the header Content-Type: application/json; "
            "expected a JSON object or a list of them",
            code="empty_body",
        )
    return body


def dump(content: object) -> str:
    """JSON in ASCII: a message may quote a lone surrogate, which UTF-8 cannot carry.

    Raises:
        ValueError: a number is NaN, which is a failure, and not JSON.
    """
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def error_reply(code: str, message: str, status: int) -> Reply:
    """The reply to a request that cannot be answered."""
    return Reply(dump({"error": {"code": code, "message": message, "status": status}}), status)


def busy_reply(code: str, message: str, retry_after_s: float) -> Reply:
    """The reply to a request that there is no time for now: status 429, with the pause in its body and its header."""
    error = {"code": code, "message": message, "status": 429, "retry_after_s": round(retry_after_s, 3)}
    return Reply(dump({"error": error}), 429, retry_after_s)
