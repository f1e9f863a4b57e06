"""Files of rows: where a name leads, which format it stands for, and the rows with their places.

CSV and TSV (a header line first), JSON lines, Parquet and others are read, also as .gz, .bz2 and .xz, as is a folder
that holds a folder of texts for each label. ``pkg://package/path`` is a file or folder inside an installed package,
found without importing the package.
"""

import bz2
import gzip
import hashlib
import importlib.util
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar

from suffuse.errors import DataError, RowError
from suffuse.rows.conll import read_conll
from suffuse.rows.folders import folders_digest, read_folders
from suffuse.rows.labelled_lines import read_labelled_lines
from suffuse.rows.lines import Lines, read_csv, read_json_lines, read_tsv
from suffuse.rows.parquet import read_parquet
from suffuse.rows.remote import open_remote
from suffuse.rows.squad import read_squad

Row = Mapping[str, Any]
Item = TypeVar("Item")

PACKAGE_SCHEME = "pkg://"
FOLDERS = "folders"

_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], AbstractContextManager[Any]]] = {
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
    """SHA-256, in hexadecimal, of the file or folder that `source` names: a model says by it what it was trained on.

    Raises:
        DataError: as `locate`; also, a folder is not as `read_rows` takes it.
    """
    path = locate(source)
    if path.is_dir():
        return folders_digest(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_rows(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - what it is called in recipes
    on_bad: Callable[[RowError], None] | None = None,
) -> Iterator[PlacedRow]:
    """Stream the rows of a file, or of a folder that holds a folder of texts for each label.

    Args:
        source: a path, a ``pkg://`` address, or another that fsspec opens, such as ``s3://`` or ``https://``.
        columns: field name -> column name, for files whose columns are named otherwise; other columns stay.
        format: a file's ending without its dot, ``lines`` (a label, a space and a text on each) or ``folders``; by
            default what the name ends with, and ``folders`` for a folder.
        on_bad: is told of each line that is no row; by default the first one raises.

    Raises:
        DataError: the file is missing, empty, damaged, of an unknown format, names a column twice, or lacks one that
            `columns` names.
        RowError: a line is not UTF-8, not JSON, or has another number of columns than the header.
    """
    columns = columns or {}
    empty = True
    name, placed = _opened(source, format)
    for where, row in placed:
        if isinstance(row, RowError):
            if on_bad is None:
                raise row.at(where)
            on_bad(row.at(where))
            continue
        if empty:
            _check_columns(name, row, columns)
            empty = False
        yield PlacedRow(where, _renamed(row, columns))
    if empty:
        raise DataError(f"{name}: the file holds no rows; expected at least one")


def is_remote(source: str | Path) -> bool:
    """Whether `source` is an address that fsspec opens."""
    return "://" in str(source) and not str(source).startswith(PACKAGE_SCHEME)


def _opened(source: str | Path, format_name: str | None) -> tuple[str, Iterator[tuple[str, Row | RowError]]]:
    if is_remote(source):
        name = PurePosixPath(str(source).partition("?")[0]).name
        return name, _from_file(source, Path(name), format_name)
    path = locate(source)
    return path.name, _from_folder(path, format_name) if path.is_dir() else _from_file(source, path, format_name)


def _from_folder(path: Path, format_name: str | None) -> Iterator[tuple[str, Row | RowError]]:
    if format_name not in (None, FOLDERS):
        raise DataError(
            f"{path.name}: a folder, but the format is {format_name!r}; expected a file, or format: {FOLDERS}"
        )
    yield from read_folders(path)


def _from_file(source: str | Path, path: Path, format_name: str | None) -> Iterator[tuple[str, Row | RowError]]:
    if not is_remote(source) and (not path.is_file() or not os.access(path, os.R_OK)):
        raise DataError(f"{source}: not a file that can be read; expected a file of rows")
    suffixes = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    decompress = _DECOMPRESSORS.get(suffixes[-1])
    ending = suffixes[-2] if decompress else suffixes[-1]
    reader = _reader(path.name, ending, format_name)
    with (
        open_remote(str(source)) if is_remote(source) else path.open("rb") as opened,
        decompress(opened) if decompress else nullcontext(opened) as file,
    ):
        for place, placed in _undamaged(path.name, reader(path.name, file)):
            yield f"{path.name}:{place}", placed


def _reader(name: str, ending: str, format_name: str | None) -> "Reader":
    if format_name is None:
        if ending not in _READERS:
            raise DataError(
                f"{name}: unknown format; expected one of {', '.join(_READERS)} (also with .gz, .bz2, .xz), "
                "or a folder with a folder for each label"
            )
        return _READERS[ending]
    if format_name == FOLDERS:
        raise DataError(
            f"{name}: a file, but the format is {FOLDERS!r}; expected a folder with a folder for each label"
        )
    named = {ending.removeprefix("."): reader for ending, reader in _READERS.items()} | _NAMED_READERS
    if format_name not in named:
        raise DataError(f"{name}: unknown format {format_name!r}; expected one of {', '.join([*named, FOLDERS])}")
    return named[format_name]


def _undamaged(name: str, items: Iterator[Item]) -> Iterator[Item]:
    try:
        yield from items
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise DataError(f"{name}: the file is damaged: {reason}; fetch or compress it again") from None


Reader = Callable[[str, IO[bytes]], Iterator[tuple[int | str, Row | RowError]]]
"""``reader(name, file) -> (place, row)``: the place is a line, or a path inside the file where lines say nothing; what
is no row comes as the error that says why, so that the next one can be read."""


def _of_lines(read: Callable[[str, Lines], Iterator[tuple[int | str, Row | RowError]]]) -> Reader:
    return lambda name, file: read(name, Lines(name, file))


_READERS: dict[str, Reader] = {
    ".csv": _of_lines(read_csv),
    ".tsv": _of_lines(read_tsv),
    ".jsonl": _of_lines(read_json_lines),
    ".json": _of_lines(read_squad),
    ".conll": _of_lines(read_conll),
    ".txt": _of_lines(read_conll),
    ".parquet": read_parquet,
}

_NAMED_READERS: dict[str, Reader] = {"lines": _of_lines(read_labelled_lines)}
"""Formats that no ending tells; the others go by their ending without its dot."""


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
