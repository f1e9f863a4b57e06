"""Request bodies in, replies out: what a server's handler needs and no server knows.

All rows of all requests that came together are computed together; each request gets its own status, and a request that
cannot be answered harms no other.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

from suffuse.bundle import Bundle
from suffuse.errors import InputError, RequestError, RowError
from suffuse.machine import available_cores
from suffuse.runtime.bodies import MAX_REPLY_BYTES, Reply, dump, error_reply, read_body
from suffuse.runtime.predictor import Predictor, error_answer
from suffuse.tasks import Answer

THREADS_VARIABLE = "SUFFUSE_THREADS"

Explain = Callable[[object, object, int], Reply]
"""Replies to a body that asks for an explanation, its options, and how many predictions wait for the reply; never
raises."""

_EXPLAIN_GRAPH = "explain"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    rows: list[object]
    is_list: bool


class Service:
    """Replies to request bodies from one predictor.

    Args:
        predictor: answers.
        explain: replies to those who ask for explanations; by default they are told how to make a model that can.
    """

    def __init__(self, predictor: Predictor, explain: Explain | None = None) -> None:
        self._predictor = predictor
        self._explain = explain or _no_explanations
        self._max_rows = predictor.bundle.manifest.limits.max_rows

    @classmethod
    def open(cls, folder: str | Path, settings: Mapping[str, Any] | None = None) -> "Service":
        """Open a bundle for a server's worker and answer once, so that the first request is not slower than others.

        Args:
            folder: of the bundle.
            settings: the archive's model-config.yaml; ``maxWorkers`` says how many workers share the cores, unless the
                environment variable SUFFUSE_THREADS gives the threads of each, and ``explanations`` what those may
                cost (`suffuse.explain.served.ExplanationLimits`).

        Raises:
            BundleError: the folder is no bundle, or a file in it is missing or altered.
            InputError: SUFFUSE_THREADS is not a number, or a limit is none.
        """
        settings = settings or {}
        workers = max(1, int(settings.get("maxWorkers", 1)))
        predictor = Predictor(Bundle.open(folder), _given_threads() or max(1, available_cores() // workers))
        predictor.answers([{field.name: "warm up" for field in predictor.task.fields}])
        if _EXPLAIN_GRAPH not in predictor.bundle.manifest.graphs:
            return cls(predictor)
        from suffuse.explain.served import ServedExplanations  # noqa: PLC0415 - an archive may have none of it

        explanations = ServedExplanations.open(predictor, settings.get("explanations", {}))
        return cls(predictor, explanations.reply)

    def replies(self, bodies: Sequence[object], explained: Mapping[int, object] | None = None) -> list[Reply]:
        """A reply for each body, in order. Never raises.

        Args:
            bodies: raw JSON (bytes, str), or what a server has parsed from it already.
            explained: for each body that asks for an explanation, by its index, the options that came beside it. They
                are asked for when all others have been computed, and are told how many those are: a server sends the
                replies of a batch together.
        """
        explained = explained or {}
        predictions = iter(self._predictions([body for index, body in enumerate(bodies) if index not in explained]))
        replies = {index: next(predictions) for index in range(len(bodies)) if index not in explained}
        for index, options in explained.items():
            replies[index] = self._explain(bodies[index], options, len(bodies) - len(explained))
        return [replies[index] for index in range(len(bodies))]

    def _predictions(self, bodies: Sequence[object]) -> list[Reply]:
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
            return error_reply("internal", "the model could not compute this request; the server's log says why", 500)

    def _read(self, body: object) -> "_Request | Reply":
        try:
            content = read_body(body)
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
            return error_reply(error.code, str(error), error.status)


def _given_threads() -> int:
    text = os.environ.get(THREADS_VARIABLE, "").strip() or "0"
    if not text.isdecimal():
        raise InputError(f"{THREADS_VARIABLE} is {text!r}; expected a number of threads, or nothing for a fair share")
    return int(text)


def _reply(request: _Request, answers: Sequence[Answer | RowError]) -> Reply:
    if request.is_list:
        body = dump([error_answer(answer) if isinstance(answer, RowError) else answer for answer in answers])
        if len(body) > MAX_REPLY_BYTES:
            return error_reply(
                "reply_too_large",
                f"the answers take {len(body)} bytes; expected at most {MAX_REPLY_BYTES}: send fewer rows at once",
                413,
            )
        return Reply(body)
    answer = answers[0]
    if isinstance(answer, RowError):
        return Reply(dump(error_answer(answer)), answer.status)
    return Reply(dump(answer))


def _no_explanations(body: object, options: object, waiting: int) -> Reply:  # noqa: ARG001 - an `Explain`
    message = (
        "this model was exported without explain.onnx, which explanations are computed with; expected one that has it: "
        "suffuse export RUN --to BUNDLE --explain, and archive that bundle"
    )
    return error_reply("no_explanations", message, HTTPStatus.NOT_IMPLEMENTED)
