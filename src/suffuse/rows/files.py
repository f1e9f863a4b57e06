"""Files of rows: which format a name stands for, and the formats of one row a line.

A row is a dictionary. CSV and TSV (a header line first) and JSON lines are read, also as .gz, .bz2 and .xz;
``pkg://package/path`` is a file inside an installed package, found without importing the package.
"""

import bz2
import csv
import gzip
import hashlib
import importlib.util
import json
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from suffuse.errors import DataError, RowError

Row = Mapping[str, Any]

PACKAGE_SCHEME = "pkg://"
LONGEST_FIELD = 16 * 1024 * 1024
"""Characters in one CSV field; the csv module's own limit of 131,072 is short for a document."""

_DECOMPRESSORS: dict[str, Callable[[Path], AbstractContextManager[Iterable[bytes]]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


class PlacedRow(NamedTuple):
    """A row and where it stands, as ``file:line``."""

    where: str
    row: Row


def locate(source: str | Path) -> Path:
    """The path that `source` names.

    Args:
        source: a path, or ``pkg://package/path`` for a file or folder inside an installed package.

    Raises:
        DataError: the package or the path does not exist.
    """
    text = str(source)
    if not text.startswith(PACKAGE_SCHEME):
        path = Path(text)
        if not path.exists():
            raise DataError(f"{text}: no such file or folder; expected an existing one, relative to the current folder")
        return path
    package, _, inside = text.removeprefix(PACKAGE_SCHEME).partition("/")
    # A dotted name is refused: to look inside a package would import it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{text}: no package {package!r} is installed; expected pkg://PACKAGE/PATH of an installed package"
        )
    path = Path(spec.submodule_search_locations[0], inside)
    if not path.exists():
        raise DataError(f"{text}: package {package!r} holds no {inside!r}")
    return path


def digest(source: str | Path) -> str:
    """SHA-256, in hexadecimal, of the file that `source` names, so that a model can say what it was trained on.

    Raises:
        DataError: as `locate`.
    """
    with locate(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(source: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[PlacedRow]:
    """Stream the rows of a file.

    Args:
        source: a path or ``pkg://`` address; its ending names the format.
        columns: field name -> column name, for files whose columns are named otherwise; other columns stay.

    Raises:
        DataError: the file is missing, empty, damaged, of an unknown format, names a column twice, or lacks one that
            `columns` names.
        RowError: a line is not UTF-8, not JSON, or has another number of columns than the header.
    """
    path = locate(source)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise DataError(f"{source}: not a file that can be read; expected a file of rows")
    suffixes = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    decompress = _DECOMPRESSORS.get(suffixes[-1])
    reader = _READERS.get(suffixes[-2] if decompress else suffixes[-1])
    if reader is None:
        raise DataError(
            f"{path.name}: unknown format; expected one of {', '.join(_READERS)} (also with .gz, .bz2, .xz)"
        )
    columns = columns or {}
    empty = True
    with decompress(path) if decompress else path.open("rb") as file:
        for place, row in reader(path.name, _decoded(path.name, file)):
            if empty:
                _check_columns(path.name, row, columns)
                empty = False
            yield PlacedRow(f"{path.name}:{place}", _renamed(row, columns))
    if empty:
        raise DataError(f"{path.name}: the file holds no rows; expected at least one")


def _decompressed(name: str, file: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{name}: the file is damaged: {error}; fetch or compress it again") from None


def _decoded(name: str, file: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(_decompressed(name, file), 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RowError(
                f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8; "
                "expected UTF-8 (convert with: iconv -f latin1 -t utf-8)",
                code="not_utf8",
                where=f"{name}:{number}",
            ) from None


def _read_separated(
    separator: str, quoting: Literal[0, 3]
) -> Callable[[str, Iterable[str]], Iterator[tuple[int | str, Row]]]:
    def read(name: str, lines: Iterable[str]) -> Iterator[tuple[int | str, Row]]:
        csv.field_size_limit(LONGEST_FIELD)
        reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
        header: list[str] = []
        first_line = 1
        try:
            for cells in reader:
                if not header:
                    header = _checked_header(name, cells)
                elif cells:
                    yield first_line, _keyed(header, cells, f"{name}:{first_line}")
                first_line = reader.line_num + 1
        except csv.Error as error:
            raise RowError(f"not a valid row: {error}", code="invalid_csv", where=f"{name}:{first_line}") from None

    return read


def _checked_header(name: str, header: list[str]) -> list[str]:
    twice = [column for column, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"{name}: the header names the column {twice[0]!r} twice; expected each name once")
    return header


def _keyed(header: list[str], cells: list[str], where: str) -> Row:
    if len(cells) != len(header):
        raise RowError(
            f"{len(cells)} columns; expected {len(header)} as in the header ({', '.join(header)}); "
            "quote cells that hold the separator",
            code="wrong_columns",
            where=where,
        )
    return dict(zip(header, cells, strict=True))


def _read_json_lines(name: str, lines: Iterable[str]) -> Iterator[tuple[int | str, Row]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # nested too deep; a number of thousands of digits
            place = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise RowError(f"not JSON: {place}; expected one object a line", code="invalid_json", where=where) from None
        if not isinstance(row, dict):
            raise RowError(
                f"not an object: {line.strip():.40}; expected one JSON object a line", code="invalid_json", where=where
            )
        yield number, row


Reader = Callable[[str, Iterable[str]], Iterator[tuple[int | str, Row]]]
"""``reader(name, lines) -> (place, row)``: the place is a line, or a path inside the file where lines say nothing."""

_READERS: dict[str, Reader] = {
    ".csv": _read_separated(",", csv.QUOTE_MINIMAL),
    ".tsv": _read_separated("\t", csv.QUOTE_NONE),  # published TSV files hold bare quotes
    ".jsonl": _read_json_lines,
}


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    # A column that is called like a field, but is not the one named for it, gives way.
    taken = {*columns, *columns.values()}
    others = {name: value for name, value in row.items() if name not in taken}
    return others | {field: row[column] for field, column in columns.items() if column in row}


def _check_columns(name: str, row: Row, columns: Mapping[str, str]) -> None:
    for field, column in columns.items():
        if column not in row:
            raise DataError(
                f"{name}: no column {column!r} for the field {field!r}; got {', '.join(row)}; "
                f"name the right one in columns: {{{field}: COLUMN}}"
            )
