"""Is an answer right? Of a known shape, true to its row, and the same as was expected or answered before."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TOLERANCE = 1e-4
"""Between scores of one row: other rows in a batch change the last digits. Exports are checked to the same bound."""

WRONG = "wrong answer"


class RequestFailedError(Exception):
    """A request that got no right answer; `kind` is what failures are counted by, the message is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Checker:
    """Checks answers.

    Args:
        bodies: of the requests, JSON rows.
        expected: an answer for each; None to compare with what the same body was answered before.
        answers_may_change: compare with nothing.
    """

    def __init__(
        self, bodies: Sequence[str], expected: Sequence[Mapping[str, Any]] | None, *, answers_may_change: bool = False
    ) -> None:
        self._rows: list[dict[str, Any]] = [json.loads(body) for body in bodies]
        self._places = {body: index for index, body in enumerate(bodies)}
        # Equal rows are one row: an answer to any of them is compared with that to the first.
        self._same = [self._places[body] for body in bodies]
        self._known: dict[int, Mapping[str, Any]] = {}
        if expected is not None:
            self._known = {self._same[index]: answer for index, answer in enumerate(expected)}
        self._origin = "expected" if expected is not None else "before"
        self._compare = not answers_may_change

    def check(self, index: int, reply: bytes) -> None:
        """Return when the reply to the body of this index is right.

        Raises:
            RequestFailedError: it is an error (``error CODE``) or a wrong answer.
        """
        try:
            answer = json.loads(reply)
        except ValueError:
            raise RequestFailedError(WRONG, f"not JSON: {reply[:80]!r}") from None
        if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict):
            raise RequestFailedError(f"error {error.get('code')}", str(error.get("message")))
        fault = shape_fault(answer, self._rows[index])
        if fault is None and self._compare:
            known = self._known.setdefault(self._same[index], answer)
            fault = difference(known, answer)
            if fault is not None:
                fault = f"{fault} {self._origin}"
        if fault is not None:
            raise RequestFailedError(WRONG, f"{fault}; the row is {json.dumps(self._rows[index])[:200]}")


def shape_fault(answer: object, row: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer by itself, whatever the right one is; None where nothing is."""
    if not isinstance(answer, dict):
        return f"a {type(answer).__name__} where an object was expected"
    for key, fault in _SHAPES.items():
        if key in answer:
            try:
                return fault(answer, row)
            except (KeyError, TypeError, ValueError) as error:
                return f"{json.dumps(answer)[:120]} is incomplete ({type(error).__name__}: {error})"
    return f"no task answers with {', '.join(answer) or 'nothing'}"


def difference(known: object, answer: object) -> str | None:
    """How two answers to one row differ by more than `TOLERANCE`; None where they do not. It ends in "but NUMBER"."""
    if isinstance(known, Mapping) and isinstance(answer, Mapping):
        return _difference_of_fields(known, answer)
    if isinstance(known, list | tuple) and isinstance(answer, list | tuple):
        if len(known) != len(answer):
            return f"got {len(answer)} but {len(known)}"
        return _first(difference(one, other) for one, other in zip(known, answer, strict=True))
    if isinstance(known, float) and isinstance(answer, float | int):
        return None if abs(known - answer) <= TOLERANCE else f"got {answer:g} but {known:g}"
    return None if known == answer else f"got {answer!r} but {known!r}"


def _difference_of_fields(known: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    if isinstance(scores := known.get("scores"), Mapping):
        # Where two labels' scores are as good as equal, either may be named; that it is one of them, the shape says.
        return difference(sorted(scores.items()), sorted(dict(answer.get("scores", {})).items()))
    if known.keys() != answer.keys():
        return f"got {', '.join(answer)} but {', '.join(known)}"
    return _first(difference(known[name], answer[name]) for name in known)


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


def _scores_fault(answer: Mapping[str, Any], _row: Mapping[str, Any]) -> str | None:
    scores = answer["scores"]
    if not scores or not all(0 <= score <= 1 for score in scores.values()):
        return f"scores are {scores}; expected some from 0 to 1"
    if "labels" in answer:  # several labels, whose scores are independent
        unknown = [label for label in answer["labels"] if label not in scores]
        return f"labels {unknown} have no scores" if unknown else None
    label, score = answer["label"], answer["score"]
    if label not in scores or abs(scores[label] - score) > TOLERANCE:
        return f"label {label!r} with score {score} is not in the scores {scores}"
    if max(scores.values()) - score > TOLERANCE:
        return f"label {label!r} has not the highest of the scores {scores}"
    total = sum(scores.values())
    rounding = 1e-6 * len(scores)  # each has six decimals
    return None if abs(total - 1) <= TOLERANCE + rounding else f"the scores sum to {total:g}; expected 1"


def _entities_fault(answer: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    text = row["text"] if "text" in row else " ".join(row["tokens"])
    for entity in answer["entities"]:
        start, end = entity["start"], entity["end"]
        if not 0 <= start < end <= len(text) or text[start:end] != entity["text"]:
            return f"entity {entity['text']!r} does not stand at {start} to {end}"
        if not entity["label"] or not 0 <= entity["score"] <= 1:
            return f"entity {entity['text']!r} has label {entity['label']!r} and score {entity['score']}"
    return None


def _answer_fault(answer: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    start, end = answer["start"], answer["end"]
    if not 0 <= start <= end or row["context"][start:end] != answer["answer"]:
        return f"the answer {answer['answer']!r} does not stand at {start} to {end}"
    return None if 0 <= answer["score"] <= 1 else f"the score is {answer['score']}; expected 0 to 1"


def _score_fault(answer: Mapping[str, Any], _row: Mapping[str, Any]) -> str | None:
    float(answer["score"])
    return None


def _translation_fault(answer: Mapping[str, Any], _row: Mapping[str, Any]) -> str | None:
    return None if isinstance(answer["translation"], str) else "the translation is no text"


# By the field that only this shape has; in this order, since several have a score.
_SHAPES = {
    "scores": _scores_fault,
    "entities": _entities_fault,
    "answer": _answer_fault,
    "translation": _translation_fault,
    "score": _score_fault,
}
