"""One row asked of one model: the answer, then why, each with the time it took, or what went wrong in words to show."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from suffuse.errors import OverloadError, SuffuseError
from suffuse.playground.models import Model
from suffuse.tasks import Answer, Row

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Asked:
    """What came back so far.

    Args:
        model: as the page calls it.
        texts: what was asked, by field.
        answer: None where there is none.
        answer_ms: milliseconds from asking to the answer, the network's included.
        explanation: as `Explanation.to_dict` has it; None where there is none, or none yet.
        explanation_ms: the same for the explanation, which answers once more.
        problem: why something is missing; empty where nothing is, or is still to come.
        is_pending: whether the explanation is still to come.
    """

    model: str
    texts: Mapping[str, str]
    answer: Answer | None = None
    answer_ms: float = 0.0
    explanation: Mapping[str, Any] | None = None
    explanation_ms: float = 0.0
    problem: str = ""
    is_pending: bool = False


def ask(name: str, model: Model, row: Row, method: str = "") -> Iterator[Asked]:
    """Ask; what came back, once when the answer is there and once more when its explanation is. Never raises.

    Args:
        name: of the model, as the page calls it.
        model: to ask.
        row: texts by field, of which the model is sent its own.
        method: of the explanation; by default the model's own.
    """
    own = {field.name: str(row.get(field.name, "")) for field in model.fields}
    asked = Asked(name, own)
    answer, answer_ms, problem = _tried(lambda: model.answer(own))
    asked = replace(asked, answer=answer, answer_ms=answer_ms, problem=problem, is_pending=answer is not None)
    yield asked
    if asked.is_pending:
        explanation, explanation_ms, problem = _tried(lambda: model.explain(own, method))
        yield replace(asked, explanation=explanation, explanation_ms=explanation_ms, problem=problem, is_pending=False)


def _tried(call: Callable[[], _T]) -> tuple[_T | None, float, str]:
    """A result with the milliseconds it took, or why there is none."""
    start = time.perf_counter()
    try:
        result = call()
    except OverloadError as error:
        return None, 0.0, f"The server is busy; ask again in a moment. ({error})"
    except SuffuseError as error:
        return None, 0.0, str(error)
    except Exception:
        _LOG.exception("a question could not be answered")
        return None, 0.0, "This could not be computed; the terminal in which the playground runs says why."
    return result, (time.perf_counter() - start) * 1000, ""
