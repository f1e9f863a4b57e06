"""A file of rows through a predictor: answered or measured in memory that does not grow with the file."""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from suffuse.errors import DataError, RowError
from suffuse.rows import Row, read_rows
from suffuse.runtime.predictor import Predictor, error_answer
from suffuse.tasks import Answer

Item = TypeVar("Item")


def predict_file(predictor: Predictor, source: str, output: Path | None) -> str:
    """Answer the rows of a file, one JSON line a row, in order; a bad row has its error, with its place, in its line.

    Args:
        predictor: answers.
        source: file of rows, as `suffuse.rows.read_rows` takes it.
        output: file to write, which is there only when it is whole; None for stdout.

    Returns:
        One line that says how many rows, how many bad ones, how long and how fast.

    Raises:
        DataError: the file cannot be read, or `output` is something that a file cannot replace.
        RowError: a line cannot be read as a row at all; it is named.
    """
    start = time.perf_counter()
    rows = bad_rows = 0
    with _writer(output) as write:
        # Where the answers themselves scroll by on the terminal, a counter would only break their lines.
        show = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
        for answer in _counted(_placed_answers(predictor, source), show=show):
            write(json.dumps(answer, ensure_ascii=False) + "\n")
            rows += 1
            bad_rows += "error" in answer
    seconds = time.perf_counter() - start
    return f"{rows} rows ({bad_rows} bad) in {seconds:.2f} s, {rows / seconds:.0f} rows/s"


def evaluate_file(predictor: Predictor, source: str, columns: Mapping[str, str]) -> dict[str, float]:
    """Measure a predictor on a file of rows with targets.

    Args:
        predictor: answers.
        source: file of rows, as `suffuse.rows.read_rows` takes it.
        columns: field name -> column name, where the file names them otherwise.

    Returns:
        The task's metrics, and the number of rows as ``rows``.

    Raises:
        DataError: the file cannot be read.
        RowError: a row is bad or has no known target; file and line are named.
    """
    rows = _checked_rows(predictor, source, columns)
    return predictor.evaluate(_counted(rows, show=sys.stderr.isatty()))


def _placed_answers(predictor: Predictor, source: str) -> Iterator[Answer]:
    places: deque[str] = deque()  # of the rows that were read and not yet answered

    def rows() -> Iterator[Row]:
        for where, row in read_rows(source):
            places.append(where)
            yield row

    for answer in predictor.stream(rows()):
        where = places.popleft()
        yield error_answer(answer.at(where)) if isinstance(answer, RowError) else answer


def _checked_rows(predictor: Predictor, source: str, columns: Mapping[str, str]) -> Iterator[Row]:
    for where, row in read_rows(source, columns):
        try:
            predictor.task.target(predictor.task.check(row))
        except RowError as error:
            raise error.at(where) from None
        yield row


@contextmanager
def _writer(output: Path | None) -> Iterator[Callable[[str], object]]:
    if output is None:
        yield sys.stdout.write
        return
    if output.exists() and not output.is_file():
        raise DataError(f"{output}: not a regular file; expected a file to write, or none for stdout")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            yield file.write
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _counted(items: Iterable[Item], *, show: bool) -> Iterator[Item]:
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not show) as progress:
        yield from progress.track(items)
