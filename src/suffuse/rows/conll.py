"""CoNLL columns, as tagged text is published: a word and its tag a line, a blank line after a sentence."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from suffuse.errors import RowError, brief
from suffuse.rows.lines import Lines, numbered

TOKENS, TAGS = "tokens", "tags"
DOCUMENT = "-DOCSTART-"

_Placed = tuple[int, Mapping[str, Any] | RowError]


def read_conll(_: str, lines: Lines) -> Iterator[_Placed]:
    """Read sentences: ``tokens`` from the first column, ``tags`` from the last, others as ``column_2`` and so on.

    Columns are parted by tabs where the first word's line has one, by spaces otherwise. Lines that begin with
    ``-DOCSTART-`` only part sentences.

    Returns:
        Pairs of the line of a sentence's first word and row; in place of a sentence with a bad line, the number of that
        line and the error that says why.
    """
    columns = _Columns()
    words: list[list[str]] = []
    first = 0
    bad: tuple[int, RowError] | None = None
    for number, line in numbered(lines, lines):
        if isinstance(line, str) and (not line.strip() or line.startswith(DOCUMENT)):
            yield from _sentence(columns, first, words, bad)
            words, bad = [], None
            continue
        cells = line if isinstance(line, RowError) else columns.cut(number, line)
        if isinstance(cells, RowError):
            bad = bad or (number, cells)
            continue
        first = first if words else number
        words.append(cells)
    yield from _sentence(columns, first, words, bad)


class _Columns:
    """How the first word's line is cut, which the others have to follow."""

    def __init__(self) -> None:
        self._first: tuple[int, str, int] | None = None

    @property
    def names(self) -> list[str]:
        count = self._first[2] if self._first else 0
        return [TOKENS, *(f"column_{place}" for place in range(2, count)), TAGS]

    def cut(self, number: int, line: str) -> list[str] | RowError:
        _, separator, _ = self._first or (0, "\t" if "\t" in line else " +", 0)
        cells = re.split(separator, line.strip(" \r\n") if separator != "\t" else line.rstrip("\r\n"))
        if self._first is None:
            if len(cells) < 2:
                return RowError(
                    f"one column, {brief(line.strip())}; expected CoNLL columns: a word and its tag on a line, "
                    "parted by a space or a tab, and a blank line between sentences",
                    code="wrong_columns",
                )
            self._first = (number, separator, len(cells))
        first, _, count = self._first
        if len(cells) != count:
            got = "one column" if len(cells) == 1 else f"{len(cells)} columns"
            return RowError(
                f"{got}, {brief(line.strip())}; expected {count} as in line {first}: CoNLL columns are a word, its "
                "tag last, parted by spaces or tabs, with a blank line between sentences",
                code="wrong_columns",
            )
        return cells


def _sentence(
    columns: _Columns, first: int, words: list[list[str]], bad: tuple[int, RowError] | None
) -> Iterator[_Placed]:
    if bad:
        yield bad
    elif words:
        yield first, dict(zip(columns.names, map(list, zip(*words, strict=True)), strict=True))
