"""Explanations for those who ask a server: what one may cost, and how much of a worker's time all of them may take.

A worker computes one thing at a time, so whoever comes while it explains waits. One explanation is therefore bounded by
the tokens it computes gradients of, and all of them by a share of the time; where predictions came in the same batch,
whose replies are sent together, it is put off. Of the workers that share a bundle's folder one explains at a time, and
the others go on predicting. Who comes when there is no time is told when to come again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from suffuse.bundle import MANIFEST
from suffuse.errors import BundleError, InputError, RequestError, RowError, brief, nearest
from suffuse.explain.choice import default_method
from suffuse.explain.explanation import Explainer, Explanation
from suffuse.explain.saliency import METHODS, Method, make_method
from suffuse.explain.time_share import TimeShare
from suffuse.explain.turn import Turn
from suffuse.runtime import Predictor, Reply
from suffuse.runtime.bodies import MAX_REPLY_BYTES, busy_reply, dump, error_reply, read_body

SAVED_UP_S = 0.1
"""Seconds that explanations may take without a pause once there have been none for a while: who comes meanwhile waits
for all of them."""

NEXT_TURN_S = 0.2
"""Seconds after which those who came beside predictions, or while another worker explained, may try again: most
explanations take less."""

_NO_OPTIONS: tuple[object, ...] = (None, "", b"", "{}", b"{}", {})
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExplanationLimits:
    """What explanations may cost; ``explanations`` in an archive's model-config.yaml.

    Args:
        share: of a worker's time that they take at most, above 0 and at most 1.
        tokens: that one computes gradients of at most: steps x tokens of the text x things explained.

    Raises:
        InputError: one is out of range.
    """

    share: float = 0.2
    tokens: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"explanations: share is {self.share:g}; expected above 0 and at most 1, such as 0.2")
        if self.tokens < 1:
            raise InputError(f"explanations: tokens is {self.tokens}; expected 1 or more, such as 4096")


@dataclass(frozen=True)
class _Asked:
    row: object
    target: str = ""
    method: str = ""
    steps: int | None = None


class ServedExplanations:
    """Replies to those who ask one worker for explanations.

    Args:
        predictor: answers; its bundle must hold explain.onnx.
        limits: of one explanation, and of all together.
        clock: seconds that go by.
    """

    def __init__(
        self, predictor: Predictor, limits: ExplanationLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._predictor = predictor
        self._limits = limits
        self._time = TimeShare(limits.share, SAVED_UP_S, clock)
        self._turn = Turn(predictor.bundle.path / MANIFEST)

    @classmethod
    def open(cls, predictor: Predictor, settings: Mapping[str, Any]) -> "ServedExplanations":
        """Explain once, so that the first who asks keeps nobody waiting for a graph to be opened.

        Args:
            predictor: as above.
            settings: those of `ExplanationLimits`.

        Raises:
            InputError: there is no such setting, or one is out of range.
        """
        known = [field.name for field in fields(ExplanationLimits)]
        for name in settings:
            if name not in known:
                raise InputError(f"explanations: {name} is unknown; expected one of {', '.join(known)}")
        predictor.explain({field.name: "warm up" for field in predictor.task.fields})
        return cls(predictor, ExplanationLimits(**settings))

    def reply(self, body: object, options: object = None, waiting: int = 0) -> Reply:
        """The reply to one request. Never raises.

        Args:
            body: raw JSON or parsed: a row, or ``{"row": ..., "target": ..., "method": ..., "steps": ...}``, of which
                only the row is needed.
            options: the same without a row, for those who have them beside the body.
            waiting: predictions that would be sent with the explanation, and no sooner; with any it is put off.
        """
        try:
            asked = _read(body, options)
            if waiting:
                return _busy("predictions came at the same time", NEXT_TURN_S)
            if wait_s := self._time.wait_s():
                return _busy(f"explanations have had their {self._limits.share:.0%} of the worker's time", wait_s)
            with self._turn.taken() as is_ours:
                if not is_ours:
                    return _busy("another worker is explaining", NEXT_TURN_S)
                with self._time.spent():
                    return _in_bounds(dump(self._explanation(asked).to_dict()))
        except (RowError, RequestError) as error:
            return error_reply(error.code, str(error), error.status)
        except Exception:
            _log.exception("an explanation could not be computed")
            return error_reply("internal", "the model could not explain this row; the server's log says why", 500)

    def _explanation(self, asked: _Asked) -> Explanation:
        predictor = self._predictor
        row = predictor.task.check(asked.row)
        method = _method(asked.method or default_method(predictor.bundle.manifest), asked.steps)
        tokens = sum(map(len, predictor.task.encode([row], predictor.tokens)))
        passes = self._passes(tokens, method, asked.steps)
        method = method.within(passes)
        try:
            explainer = Explainer(predictor, method)
        except BundleError:
            raise RequestError(
                f"this model was exported without the graph that method {method.name!r} computes with; "
                "expected one that has it: suffuse export RUN --to BUNDLE --explain, and archive that bundle",
                code="no_explanations",
                status=501,
            ) from None
        return explainer(row, asked.target, most=max(1, self._limits.tokens // (tokens * method.passes)))

    def _passes(self, tokens: int, method: Method, steps: int | None) -> int:
        """Passes through the network that a text of so many tokens may be given."""
        most = self._limits.tokens // max(1, tokens)
        if most < 1:
            raise RequestError(
                f"the row has {tokens:,} tokens; expected at most {self._limits.tokens:,} to explain: "
                "send a shorter text",
                code="too_long",
                status=413,
            )
        if steps is not None and method.passes > most:
            raise RequestError(
                f"{steps:,} steps on a row of {tokens:,} tokens; expected at most {self._limits.tokens:,} tokens in "
                f"all: ask for at most {max(1, most - method.passes + steps):,} steps, or send a shorter text",
                code="too_many_steps",
                status=422,
            )
        return most


def _read(body: object, options: object) -> _Asked:
    content = read_body(body)
    if isinstance(content, list):
        raise RequestError(
            f"the body is a list of {len(content)}; expected one row: each is explained by a request of its own",
            code="several_rows",
        )
    asked: dict[str, Any] = dict(content) if isinstance(content, dict) and "row" in content else {"row": content}
    if options not in _NO_OPTIONS:
        beside = read_body(options)
        if not isinstance(beside, dict):
            raise RequestError(f"the options are {brief(str(beside))}; expected a JSON object", code="invalid_option")
        asked |= beside
    for name, value in asked.items():
        _check_option(name, value)
    return _Asked(**asked)


def _check_option(name: str, value: object) -> None:
    kinds: dict[str, tuple[type, str]] = {
        "row": (object, "a row"),
        "target": (str, "a string: what of the answer to explain"),
        "method": (str, f"one of {', '.join(METHODS)}"),
        "steps": (int, "a whole number, such as 16"),
    }
    if name not in kinds:
        raise RequestError(
            f"option {brief(name)} is unknown; expected one of {', '.join(kinds)}{nearest(name, kinds)}",
            code="unknown_option",
            status=422,
        )
    kind, expected = kinds[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RequestError(
            f"option {name!r} is {brief(str(value))}; expected {expected}", code="invalid_option", status=422
        )


def _method(name: str, steps: int | None) -> Method:
    if name not in METHODS:
        raise RequestError(
            f"method {brief(name)} is unknown; expected one of {', '.join(METHODS)}{nearest(name, METHODS)}",
            code="unknown_method",
            status=422,
        )
    try:
        return make_method(name, {} if steps is None else {"steps": steps})
    except InputError as error:
        raise RequestError(str(error), code="invalid_option", status=422) from None


def _busy(reason: str, wait_s: float) -> Reply:
    message = f"{reason}; expected a pause: ask again in {wait_s:.1f} s"
    return busy_reply("explanations_busy", message, wait_s)


def _in_bounds(body: str) -> Reply:
    if len(body) > MAX_REPLY_BYTES:
        return error_reply(
            "reply_too_large",
            f"the explanation takes {len(body)} bytes; expected at most {MAX_REPLY_BYTES}: send a shorter text",
            413,
        )
    return Reply(body)
