"""Ask a server of suffuse models for answers: the same over REST and gRPC, with typed errors and retries in a limit."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from suffuse.errors import (
    AnswerError,
    ConnectError,
    DeadlineError,
    OverloadError,
    RequestError,
)
from suffuse.serving.keys import Key
from suffuse.serving.replies import RetryLaterError, handler_error
from suffuse.serving.transports import Deadline, Transport, transport_for

Row = Mapping[str, Any]
Answer = dict[str, Any]
_T = TypeVar("_T")

# Random, so that clients that were refused together do not come back together.
_BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)


class Client:
    """A connection to a server; a context manager, safe to share among threads.

        with suffuse.Client("http://127.0.0.1:8080", key_file=".suffuse/serve-8080/key_file.json") as client:
            client.predict("sentiment", "a warm, funny film")

    Proxies and certificates come from the environment, as httpx and gRPC each read it; to a loopback address requests
    go straight, whatever the environment says.

    Args:
        url: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, host and port.
        token: the inference key.
        key_file: the server's key_file.json, instead of `token`; it is read again when a key is refused.
        ca_file: PEM file of the authority that signed the server's certificate, for one that the system does not know.
        timeout_s: time limit of one call, its retries included, in seconds.
        retries: how often a call is tried again after a broken connection or a refusal for lack of room.
        transport: stands in for the one that `url` names, in tests.

    Raises:
        InputError: `url` is none of these, or `ca_file` holds no certificate.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        key_file: Path | str | None = None,
        ca_file: Path | str | None = None,
        timeout_s: float = 30.0,
        retries: int = 5,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or transport_for(url, None if ca_file is None else Path(ca_file))
        self._key = Key("inference", token=token, key_file=key_file)
        self._timeout_s = timeout_s
        # A prediction changes nothing on the server, so one that may have been computed already can be asked for again.
        self._retrying = Retrying(
            retry=retry_if_exception_type((ConnectError, OverloadError)),
            stop=stop_after_attempt(retries + 1) | stop_before_delay(timeout_s),
            wait=_pause_s,
            reraise=True,
        )

    @overload
    def predict(self, model: str, rows: str | Row, *, version: str | None = None) -> Answer: ...
    @overload
    def predict(self, model: str, rows: list[Any] | tuple[Any, ...], *, version: str | None = None) -> list[Answer]: ...
    def predict(
        self, model: str, rows: str | Row | list[Any] | tuple[Any, ...], *, version: str | None = None
    ) -> Answer | list[Answer]:
        """Answer one row, or a list of rows.

        Args:
            model: the model's name.
            rows: one row, an object with the task's fields or a bare string where there is only one; or a list of them.
            version: the model's default version unless another is named.

        Returns:
            One answer for one row; for a list, one for each in the same order, where ``{"error": {"code", "message"}}``
            stands in the place of a row that cannot be answered.

        Raises:
            RequestError: the rows are no JSON, or more than a server takes at once.
            AnswerError: the one row cannot be answered, or the whole request; `code` and `status` say why.
            ConnectError, DeadlineError, AuthorizationError, UnknownModelError, OverloadError: see suffuse.errors.
        """
        # TorchServe hands a JSON string to the handler without its quotes; one that begins like JSON would be parsed.
        body = _dump([rows] if isinstance(rows, str) else rows)
        reply = self._try(lambda headers, by: self._transport.predict(model, version, body, headers, by))
        answers = _load(reply)
        if isinstance(answers, dict) and isinstance(answers.get("error"), dict):
            raise handler_error(answers["error"])
        if isinstance(rows, Mapping):
            return _checked(answers, dict)
        answers = _checked(answers, list)
        if isinstance(rows, str):
            return _only(answers)
        return answers

    def explain(
        self,
        model: str,
        row: str | Row,
        *,
        target: str = "",
        method: str = "",
        steps: int | None = None,
        version: str | None = None,
    ) -> Answer:
        """Answer one row and say why.

        A server gives explanations a share of its time; who is asked to wait for that is asked again, up to the time
        limit of the client.

        Args:
            model: the model's name.
            row: as for `predict`.
            target: what to explain, such as a label; by default all that was answered.
            method: ``integrated``, ``gradient``, ``smooth`` or ``rollout``; by default the model's own.
            steps: points at which a gradient is taken, for methods that take several.
            version: the model's default version unless another is named.

        Returns:
            ``answer``, which is that of `predict`, and ``explained``: for each label, entity or other thing in it the
            words and what each counted.

        Raises:
            RequestError: the row is no JSON, or larger than a server takes.
            AnswerError: the row cannot be answered, has no such target, or the model was exported without the graph
                that explanations are computed with; `code` and `status` say which.
            ConnectError, DeadlineError, AuthorizationError, UnknownModelError, OverloadError: see suffuse.errors.
        """
        options = {"target": target, "method": method, "steps": steps}
        body = _dump({"row": row, **{name: value for name, value in options.items() if value not in ("", None)}})

        def ask(headers: Mapping[str, str], by: Deadline) -> Answer:
            # Over gRPC a refusal is in an answer: it is looked for here, where it leads to another try.
            explanation = _checked(_load(self._transport.explain(model, version, body, headers, by)), dict)
            if isinstance(explanation.get("error"), dict):
                raise handler_error(explanation["error"])
            return explanation

        return self._try(ask)

    def ready(self) -> bool:
        """Whether the server is there and calls itself healthy. It asks once and does not retry.

        Raises:
            AuthorizationError: the server did not accept the key.
        """
        by = Deadline.after(self._timeout_s)
        try:
            reply = self._key.try_with(lambda headers: self._transport.health(headers, by))
            health = _load(reply)
        except (ConnectError, DeadlineError, OverloadError, AnswerError):
            return False
        return isinstance(health, dict) and health.get("status") == "Healthy"

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, ask: Callable[[Mapping[str, str], Deadline], _T]) -> _T:
        by = Deadline.after(self._timeout_s)
        return self._retrying(lambda: self._key.try_with(lambda headers: ask(headers, by)))


def _pause_s(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asks for, and not less than the back-off."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.after_s if isinstance(error, RetryLaterError) else 0.0
    return max(asked_s, _BACKOFF(state))


def _dump(rows: object) -> bytes:
    try:
        # ASCII: a text may hold a lone surrogate, which UTF-8 cannot carry.
        return json.dumps(rows, allow_nan=False, separators=(",", ":"), default=_plain).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(
            f"the rows cannot be written as JSON: {error}; expected a string, a mapping, or a list of them",
            code="not_json",
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"got a {type(value).__name__}")


def _load(reply: bytes) -> Any:  # noqa: ANN401 - parsed JSON
    try:
        return json.loads(reply)
    except ValueError as error:
        raise _unexpected(f"{reply[:80]!r}") from error


def _checked(answers: Any, kind: type[_T]) -> _T:  # noqa: ANN401 - parsed JSON
    if not isinstance(answers, kind):
        raise _unexpected(f"a {type(answers).__name__} where a {kind.__name__} was expected")
    return answers


def _only(answers: list[Answer]) -> Answer:
    if len(answers) != 1 or not isinstance(answers[0], dict):
        raise _unexpected(f"{len(answers)} answers to one row")
    if isinstance(answers[0].get("error"), dict):
        raise handler_error(answers[0]["error"])
    return answers[0]


def _unexpected(got: str) -> AnswerError:
    return AnswerError(
        f"the server answered with {got}; is this the port of a server of suffuse models?",
        code="unexpected_answer",
        status=200,
    )
