"""Where rows come from: one file or many, mixed by weight, each row checked as it is read."""

import glob
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Required, TypedDict

from suffuse.errors import DataError, RowError
from suffuse.rows import PACKAGE_SCHEME, PlacedRow, Row, digest, is_remote, locate, read_rows, remote_files
from suffuse.tasks import Task

OnBadRow = Literal["stop", "skip"]
REMOTE = "remote"
"""Stands for the digest of a file that lies elsewhere."""


@dataclass(frozen=True)
class Source:
    """Rows of one kind, in one file or in several of like form.

    Args:
        path: a file, a folder, ``pkg://package/path``, an address that fsspec opens (``s3://``, ``https://``), or a
            pattern such as ``reviews/*.jsonl`` or ``s3://bucket/*.jsonl``, whose files are read in the order of names.
        columns: field -> column, where the file names them otherwise.
        where: column -> values, numbers as JSON writes them; other rows are left out.
        weight: how often each row is given in an epoch. 0.5 gives half of the rows, others each epoch; 2 gives each
            twice.
        format: of the file, where its ending does not tell.
    """

    path: str
    columns: dict[str, str] | None = None
    where: dict[str, list[str]] | None = None
    weight: float = 1.0
    format: str | None = None

    def files(self) -> list[str]:
        """The files that `path` stands for.

        Raises:
            DataError: there is no such file, none fits the pattern, or the weight is not above 0.
        """
        if not 0 < self.weight < math.inf:
            raise DataError(f"{self.path}: weight is {self.weight:g}; expected a number above 0")
        if is_remote(self.path):
            # What else is special in patterns is usual in addresses: reviews.csv?version=2.
            found = remote_files(self.path) if "*" in self.path else [self.path]
        elif self.path.startswith(PACKAGE_SCHEME) or not glob.has_magic(self.path) or Path(self.path).exists():
            locate(self.path)
            return [self.path]
        else:
            found = sorted(glob.glob(self.path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        if not found:
            raise DataError(f"{self.path}: no file fits this pattern; expected one at least")
        return found


class SourceOptions(TypedDict, total=False):
    """A `Source` as it stands in a recipe."""

    path: Required[str]
    columns: dict[str, str]
    where: dict[str, list[str]]
    weight: float
    format: str


Sources = str | SourceOptions | list[str | SourceOptions]


@dataclass(frozen=True)
class Checks:
    """How rows of a side are read.

    Args:
        unique: columns; a row with the same values in them as one before is left out.
        on_bad_row: ``stop``, or ``skip`` to leave it out and report it.
    """

    unique: tuple[str, ...] = ()
    on_bad_row: OnBadRow = "stop"


class Placed(NamedTuple):
    """A row, where it stands, and the index of its source."""

    source: int
    where: str
    row: Row


Reject = Callable[[RowError], None]
"""Is told of a row that is left out; or raises, to stop."""


@dataclass(frozen=True)
class Reader:
    """Checked rows of one side, in the order of their sources; each call of `read` starts anew.

    Args:
        sources: where from.
        task: checks them.
        checks: what to do about bad and repeated rows.
    """

    sources: tuple[Source, ...]
    task: Task
    checks: Checks = field(default_factory=Checks)

    def files(self) -> list[list[str]]:
        """The files of each source; no row is read.

        Raises:
            DataError: as `Source.files`.
        """
        return [source.files() for source in self.sources]

    def read(self, reject: Reject) -> Iterator[Placed]:
        """Yield the rows of all files, as they stand.

        Args:
            reject: is told of each bad row, unless it stops the reading.

        Raises:
            DataError: a file cannot be read, or no row is left of it.
            RowError: a row is bad, unless such rows are skipped.
        """
        seen: set[bytes] = set()
        for index, files in enumerate(self.files()):
            for file in files:
                yield from self.read_file(index, file, reject, seen)

    def read_file(self, index: int, file: str, reject: Reject, seen: set[bytes]) -> Iterator[Placed]:
        """Yield the rows of one file.

        Args:
            index: of its source.
            file: one of those of the source.
            reject: is told of each bad row, unless it stops the reading.
            seen: what the rows read so far have in their `Checks.unique` columns; it grows.

        Raises:
            DataError, RowError: as `read`.
        """
        source = self.sources[index]
        where = {column: set(values) for column, values in (source.where or {}).items()}
        on_bad = reject if self.checks.on_bad_row == "skip" else None
        kept = False
        for placed in read_rows(file, source.columns, source.format, on_bad):
            if any(_as_text(placed.row.get(column)) not in values for column, values in where.items()):
                continue
            kept = True
            checked = self._checked(placed, reject)
            if checked is not None and not self._is_repeated(checked, seen):
                yield Placed(index, *checked)
        if not kept and where:
            shown = ", ".join(f"{column} in ({', '.join(sorted(values))})" for column, values in where.items())
            raise DataError(f"{file}: no row is left by where: {shown}")

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by its name; not by its folder, which is the machine's. Remote files have none.

        Of files of one name the second is called ``NAME (2)``.
        """
        names: dict[str, str] = {}
        for files in self.files():
            for file in files:
                name = shown_name = file if "://" in file else Path(file).name
                number = 1
                while shown_name in names:
                    number += 1
                    shown_name = f"{name} ({number})"
                names[shown_name] = REMOTE if is_remote(file) else digest(file)
        return names

    def _checked(self, placed: PlacedRow, reject: Reject) -> PlacedRow | None:
        try:
            return PlacedRow(placed.where, self.task.check(placed.row))
        except RowError as error:
            if self.checks.on_bad_row == "stop":
                raise error.at(placed.where) from None
            reject(error.at(placed.where))
            return None

    def _is_repeated(self, placed: PlacedRow, seen: set[bytes]) -> bool:
        if not self.checks.unique:
            return False
        values = json.dumps([placed.row.get(column) for column in self.checks.unique], sort_keys=True, default=str)
        key = hashlib.blake2b(values.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if key in seen:
            return True
        seen.add(key)
        return False


def as_sources(
    given: Sources | None, columns: dict[str, str] | None, where: dict[str, list[str]] | None
) -> tuple[Source, ...]:
    """Sources as a tuple, with `columns` and `where` for those that have none of their own."""
    listed = [] if given is None else given if isinstance(given, list) else [given]
    named = [Source(one) if isinstance(one, str) else Source(**one) for one in listed]
    return tuple(
        replace(
            source,
            columns=source.columns if source.columns is not None else columns,
            where=source.where if source.where is not None else where,
        )
        for source in named
    )


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shown(sources: Sequence[Source]) -> str:
    """Paths of sources, for error messages."""
    return ", ".join(source.path for source in sources)
