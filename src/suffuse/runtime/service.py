"""Request bodies in, replies out: what a server's handler needs and no server knows.

All rows of all requests that came together are computed together; each request gets its own status, and a request that
cannot be answered harms no other.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

from suffuse.bundle import Bundle
from suffuse.errors import InputError, RequestError, RowError
from suffuse.machine import available_cores
from suffuse.runtime.predictor import Predictor, error_answer
from suffuse.tasks import Answer

MAX_REPLY_BYTES = 6_000_000
"""TorchServe ends a worker whose reply passes its max_response_size, 6,553,500 bytes by default."""
THREADS_VARIABLE = "SUFFUSE_THREADS"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """A JSON body and its HTTP status."""

    body: str
    status: int = 200

    @property
    def reason(self) -> str:
        """The standard words for the status."""
        return HTTPStatus(self.status).phrase


@dataclass(frozen=True)
class _Request:
    rows: list[object]
    is_list: bool


class Service:
    """Replies to request bodies from one predictor."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._max_rows = predictor.bundle.manifest.limits.max_rows

    @classmethod
    def open(cls, folder: str | Path, settings: Mapping[str, Any] | None = None) -> "Service":
        """Open a bundle for a server's worker and answer once, so that the first request is not slower than others.

        Args:
            folder: of the bundle.
            settings: the archive's model-config.yaml; ``maxWorkers`` says how many workers share the cores, unless the
                environment variable SUFFUSE_THREADS gives the threads of each.

        Raises:
            BundleError: the folder is no bundle, or a file in it is missing or altered.
            InputError: SUFFUSE_THREADS is not a number.
        """
        workers = max(1, int((settings or {}).get("maxWorkers", 1)))
        predictor = Predictor(Bundle.open(folder), _given_threads() or max(1, available_cores() // workers))
        predictor.answers([{field.name: "warm up" for field in predictor.task.fields}])
        return cls(predictor)

    def replies(self, bodies: Sequence[object]) -> list[Reply]:
        """A reply for each body, in order. Never raises.

        Args:
            bodies: raw JSON (bytes, str), or what a server has parsed from it already.
        """
        requests = [self._read(body) for body in bodies]
        readable = [request for request in requests if isinstance(request, _Request)]
        try:
            computed = iter(self._computed(readable))
        except Exception:
            # Compute each request alone, so that the one at fault fails alone.
            computed = iter([self._alone(request) for request in readable])
        return [request if isinstance(request, Reply) else next(computed) for request in requests]

    def _computed(self, requests: Sequence[_Request]) -> list[Reply]:
        answers = iter(self._predictor.answers([row for request in requests for row in request.rows]))
        return [_reply(request, list(islice(answers, len(request.rows)))) for request in requests]

    def _alone(self, request: _Request) -> Reply:
        try:
            return self._computed([request])[0]
        except Exception:
            _log.exception("a request of %d rows could not be computed", len(request.rows))
            return _error_reply("internal", "the model could not compute this request; the server's log says why", 500)

    def _read(self, body: object) -> "_Request | Reply":
        try:
            content = _parse(body)
            if not isinstance(content, list):
                return _Request([content], is_list=False)
            if not content:
                raise RequestError("the list of rows is empty; expected at least one row", code="empty_list")
            if len(content) > self._max_rows:
                raise RequestError(
                    f"the list has {len(content)} rows; expected at most {self._max_rows}: send several requests",
                    code="too_many_rows",
                    status=413,
                )
            return _Request(content, is_list=True)
        except RequestError as error:
            return _error_reply(error.code, str(error), error.status)


def _given_threads() -> int:
    text = os.environ.get(THREADS_VARIABLE, "").strip() or "0"
    if not text.isdecimal():
        raise InputError(f"{THREADS_VARIABLE} is {text!r}; expected a number of threads, or nothing for a fair share")
    return int(text)


def _parse(body: object) -> object:
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


def _reply(request: _Request, answers: Sequence[Answer | RowError]) -> Reply:
    if request.is_list:
        body = _dump([error_answer(answer) if isinstance(answer, RowError) else answer for answer in answers])
        if len(body) > MAX_REPLY_BYTES:
            return _error_reply(
                "reply_too_large",
                f"the answers take {len(body)} bytes; expected at most {MAX_REPLY_BYTES}: send fewer rows at once",
                413,
            )
        return Reply(body)
    answer = answers[0]
    if isinstance(answer, RowError):
        return Reply(_dump(error_answer(answer)), answer.status)
    return Reply(_dump(answer))


def _error_reply(code: str, message: str, status: int) -> Reply:
    return Reply(_dump({"error": {"code": code, "message": message, "status": status}}), status)


def _dump(content: object) -> str:
    # ASCII: a message may quote a lone surrogate, which UTF-8 cannot carry. A score of NaN is a failure, and not JSON.
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
