"""Formats of one row a line: CSV, TSV, JSON lines."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from suffuse.errors import DataError, RowError

Row = Mapping[str, Any]
Item = TypeVar("Item")

LONGEST_FIELD = 16 * 1024 * 1024
"""Characters in one CSV field; the csv module's own limit of 131,072 is short for a document."""


class Lines(Iterator[str]):
    """Lines of a file as text; one that is not UTF-8 raises, and the next one can be read after it.

    Args:
        name: of the file, for error messages.
        lines: its bytes.

    Attributes:
        number: of the line that was read last, from 1.
    """

    def __init__(self, name: str, lines: Iterable[bytes]) -> None:
        self._name = name
        self._lines = iter(lines)
        self.number = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RowError(
                f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8; "
                "expected UTF-8 (convert with: iconv -f latin1 -t utf-8)",
                code="not_utf8",
                where=f"{self._name}:{self.number}",
            ) from None


def read_csv(name: str, lines: Lines) -> Iterator[tuple[int, Row | RowError]]:
    """Rows of comma-separated values with a header line, quoted where they hold commas or line ends."""
    return _read_separated(name, lines, ",", csv.QUOTE_MINIMAL)


def read_tsv(name: str, lines: Lines) -> Iterator[tuple[int, Row | RowError]]:
    """Rows of tab-separated values with a header line; quotes mean nothing, as in published files."""
    return _read_separated(name, lines, "\t", csv.QUOTE_NONE)


def read_json_lines(_: str, lines: Lines) -> Iterator[tuple[int, Row | RowError]]:
    """Rows of one JSON object a line; blank lines are passed over."""
    for number, line in numbered(lines, lines):
        if isinstance(line, RowError):
            yield number, line
        elif line.strip():
            yield number, _json_row(line)


def numbered(items: Iterator[Item], lines: Lines) -> Iterator[tuple[int, Item | RowError]]:
    """What is made of lines, each with the number of its first line; after a bad one the reading goes on.

    Args:
        items: the lines themselves, or what reads them.
        lines: that they are made of.

    Returns:
        Pairs of line and item; in place of one that cannot be read, the error that says why.
    """
    while True:
        first_line = lines.number + 1
        try:
            yield first_line, next(items)
        except StopIteration:
            return
        except csv.Error as error:
            yield first_line, RowError(f"not a valid row: {error}", code="invalid_csv")
        except RowError as error:
            yield lines.number, error


def checked_header(name: str, header: list[str]) -> list[str]:
    """The names of columns, each there once.

    Raises:
        DataError: one is there twice.
    """
    twice = [column for column, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"{name}: the header names the column {twice[0]!r} twice; expected each name once")
    return header


def _json_row(line: str) -> Row | RowError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # nested too deep; a number of thousands of digits
        place = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return RowError(f"not JSON: {place}; expected one object a line", code="invalid_json")
    if not isinstance(row, dict):
        return RowError(f"not an object: {line.strip():.40}; expected one JSON object a line", code="invalid_json")
    return row


def _read_separated(
    name: str, lines: Lines, separator: str, quoting: Literal[0, 3]
) -> Iterator[tuple[int, Row | RowError]]:
    csv.field_size_limit(LONGEST_FIELD)
    header: list[str] = []
    for line, cells in numbered(csv.reader(lines, delimiter=separator, quoting=quoting, strict=True), lines):
        if isinstance(cells, RowError):
            if not header:  # the next line must not be taken for it
                raise cells.at(f"{name}:{line}")
            yield line, cells
        elif not header:
            header = checked_header(name, cells)
        elif cells:
            yield line, _keyed(header, cells)


def _keyed(header: list[str], cells: list[str]) -> Row | RowError:
    if len(cells) != len(header):
        return RowError(
            f"{len(cells)} columns; expected {len(header)} as in the header ({', '.join(header)}); "
            "quote cells that hold the separator",
            code="wrong_columns",
        )
    return dict(zip(header, cells, strict=True))
