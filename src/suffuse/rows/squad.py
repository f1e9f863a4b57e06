"""Questions on contexts in one JSON file, as SQuAD 1.1 and 2.0 are published (https://rajpurkar.github.io/SQuAD-explorer).

Such a file is one value, so it is held in memory as a whole.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from suffuse.errors import LONGEST_SHOWN, RowError

Row = Mapping[str, Any]

_LEVELS = ("data", "paragraphs", "qas")


def read_squad(name: str, lines: Iterable[str]) -> Iterator[tuple[str, Row | RowError]]:
    """Read each question as ``id``, ``title`` (of the article), ``question``, ``context`` and ``answers``.

    ``answers`` is ``{"text": [...], "answer_start": [...]}``, with empty lists where SQuAD 2.0 says ``is_impossible``.
    A list of objects is read too, each of them a row as it is.

    Args:
        name: of the file, for error messages.
        lines: of the file.

    Returns:
        Pairs of place, as ``data[3].paragraphs[2].qas[1]``, and row; what is not built as in SQuAD comes as the error
        that says so.

    Raises:
        RowError: the file is not JSON, or neither SQuAD's object nor a list.
    """
    text = "".join(lines)
    if not text.strip():
        return
    value = _parsed(name, text)
    whole = _Part("", value)
    if isinstance(value, list):
        for entry in whole.entries():
            yield entry.path, _flat(entry)
        return
    if not isinstance(value, dict) or "data" not in value:
        raise RowError(
            f"{_brief(value)}; expected SQuAD's object, which has 'data', or a list of rows",
            code="invalid_squad",
            where=name,
        )
    for found in _questions((whole,), _LEVELS):
        if isinstance(found, RowError):
            yield found.where, found
            continue
        try:
            yield found[-1].path, _row(*found[1:])
        except RowError as error:
            yield error.where, error


@dataclass(frozen=True)
class _Part:
    """A JSON value and the path to it, which is the place of an error."""

    path: str
    value: Any

    def as_object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self._error(_brief(self.value), "an object")
        return self.value

    def entries(self) -> list["_Part"]:
        if not isinstance(self.value, list):
            raise self._error(_brief(self.value), "a list")
        return [_Part(f"{self.path}[{index}]", value) for index, value in enumerate(self.value)]

    def member(self, key: str) -> "_Part":
        held = self.as_object()
        if key not in held:
            raise self._error(f"no {key!r} in {_brief(held)}", "it")
        return _Part(f"{self.path}.{key}".removeprefix("."), held[key])

    def _error(self, got: str, expected: str) -> RowError:
        return RowError(f"{got}; expected {expected} here, as in SQuAD", code="invalid_squad", where=self.path)


def _questions(parts: tuple[_Part, ...], levels: tuple[str, ...]) -> Iterator[tuple[_Part, ...] | RowError]:
    """All that stands `levels` below the last of `parts`, each behind what it stands in."""
    if not levels:
        yield parts
        return
    try:
        entries = parts[-1].member(levels[0]).entries()
    except RowError as error:
        yield error
        return
    for entry in entries:
        yield from _questions((*parts, entry), levels[1:])


def _row(article: _Part, paragraph: _Part, question: _Part) -> Row:
    asked = question.as_object()
    row = {str(name): asked[name] for name in ("id", "question") if name in asked}
    row["context"] = paragraph.member("context").value
    if "title" in article.value:
        row["title"] = article.value["title"]
    if asked.get("is_impossible") is True:
        row["answers"] = {"text": [], "answer_start": []}
    elif "answers" in asked:  # a file of questions alone has none
        given = question.member("answers").entries()
        row["answers"] = {name: [answer.member(name).value for answer in given] for name in ("text", "answer_start")}
    return row


def _flat(entry: _Part) -> Row | RowError:
    if isinstance(entry.value, dict):
        return entry.value
    return RowError(f"{_brief(entry.value)}; expected an object, one for each row", code="invalid_squad")


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message, where = f"{error.msg} at column {error.colno}", f"{name}:{error.lineno}"
    except (ValueError, RecursionError) as error:  # nested too deep; a number of thousands of digits
        message, where = str(error), name
    raise RowError(f"not JSON: {message}; expected SQuAD's object, or a list of rows", code="invalid_json", where=where)


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
