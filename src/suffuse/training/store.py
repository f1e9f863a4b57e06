"""Rows and windows in Arrow files that are mapped into memory, so that a data set may be larger than it.

The files are Arrow IPC streams, which `datasets.Dataset.from_file` opens too. A row is stored as JSON beside its place;
a window as its arrays. What stays in memory is one length a window.
"""

import json
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from suffuse.batching import chunked
from suffuse.machine import available_cores
from suffuse.tasks import Row, Task, Tokens, Window
from suffuse.training.sources import Placed

Item = TypeVar("Item")

CHUNK_ROWS = 1024
"""Rows that are written at once."""
ENCODED_ROWS = 256
"""Rows that are encoded at once: few, so that a small file too has a chunk for every core."""
WRITTEN_CHUNKS = 64
"""Chunks of windows that are written as one: whoever maps a file holds some kilobytes for each."""
_ROW_SCHEMA = pa.schema([("source", pa.int32()), ("where", pa.string()), ("row", pa.large_string())])
_INPUT = "input."
_PARALLELISM = "TOKENIZERS_PARALLELISM"


class RowWriter:
    """Writes rows to an Arrow file.

    Args:
        path: of the file.
        columns: names that are kept of each row, where it has them.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, _ROW_SCHEMA)
        self._columns = columns
        self._waiting: list[Placed] = []

    def write(self, placed: Placed) -> None:
        """Add a row."""
        self._waiting.append(placed)
        if len(self._waiting) == CHUNK_ROWS:
            self._flush()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.close()
        finally:
            self._file.close()

    def _flush(self) -> None:
        kept = [{name: row[name] for name in self._columns if name in row} for _, _, row in self._waiting]
        arrays = [
            pa.array([source for source, _, _ in self._waiting], pa.int32()),
            # A file's name need not be Unicode.
            pa.array([where.encode(errors="backslashreplace").decode() for _, where, _ in self._waiting], pa.string()),
            # Parquet holds dates and others that JSON does not know.
            pa.array([json.dumps(row, separators=(",", ":"), default=str) for row in kept], pa.large_string()),
        ]
        self._writer.write_batch(pa.record_batch(arrays, schema=_ROW_SCHEMA))
        self._waiting = []


class StoredRows(Sequence[Placed]):
    """Rows of a file that a `RowWriter` wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = _mapped(path)
        self._batches = [tuple(batch.columns) for batch in self._table.to_batches()]
        self._starts = [0, *np.cumsum([len(sources) for sources, _, _ in self._batches]).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Placed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Placed]: ...
    def __getitem__(self, index: int | slice) -> Placed | list[Placed]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            if chosen.step != 1:
                return [self[number] for number in chosen]
            part = self._table.slice(chosen.start, len(chosen))  # many at once take a quarter of the time
            columns = (part.column(name).to_pylist() for name in _ROW_SCHEMA.names)
            return [Placed(source, where, json.loads(row)) for source, where, row in zip(*columns, strict=True)]
        index = range(len(self))[index]
        number = bisect_right(self._starts, index) - 1
        source, where, row = (column[index - self._starts[number]].as_py() for column in self._batches[number])
        return Placed(source, where, json.loads(row))

    def bare(self, start: int, end: int) -> list[Row]:
        """The rows from one index up to another, without their places."""
        texts = self._table.column("row").slice(start, end - start).to_pylist()
        rows: list[Row] = json.loads(f"[{','.join(texts)}]")  # in one call, half the time
        return rows

    def __iter__(self) -> Iterator[Placed]:
        for start in range(0, len(self), CHUNK_ROWS):
            yield from self[start : start + CHUNK_ROWS]

    def sources(self) -> NDArray[np.int32]:
        """Index of the source of every row, (R,)."""
        sources: NDArray[np.int32] = self._table.column("source").to_numpy()
        return sources

    def __reduce__(self) -> tuple[Callable[..., "StoredRows"], tuple[Path]]:
        return StoredRows, (self._path,)


def write_windows(path: Path, rows: StoredRows, task: Task, tokens: Tokens, advance: Callable[[int], None]) -> None:
    """Encode rows and write their windows and targets to an Arrow file.

    Each core has a chunk in the work, from text to arrays, in a thread of its own: a tokenizer that shares one chunk
    out among the cores leaves them idle while Python, on one of them, makes arrays of it.

    Args:
        path: of the file.
        rows: one at least; checked, with targets that `task` knows.
        task: encodes them.
        tokens: its tokenizer.
        advance: is told how many rows were written since the last call.
    """

    def encode(start: int) -> _Chunk:
        part = rows.bare(start, start + ENCODED_ROWS)
        windows = task.encode(part, tokens)
        return _Chunk.of(windows, task.targets(windows, part), start)

    cores = available_cores()
    with _tokenizers_on_one_core(), pa.OSFile(str(path), "wb") as file, ThreadPoolExecutor(cores) as pool:
        chunks = _ahead(pool, cores, encode, range(0, len(rows), ENCODED_ROWS))
        batches = ((_batch_of(group), ENCODED_ROWS * len(group)) for group in chunked(chunks, WRITTEN_CHUNKS))
        first = next(batches)
        with pa.ipc.new_stream(file, first[0].schema) as writer:
            for batch, count in chain([first], batches):
                writer.write_batch(batch)
                advance(count)


class StoredWindows(Sequence[Window]):
    """Windows of a file that `write_windows` wrote, and their targets.

    Attributes:
        lengths: tokens of each window, (W,).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        table = _mapped(path)
        self._batches = [_Columns(batch) for batch in table.to_batches()]
        self._starts = [0, *np.cumsum([len(batch) for batch in self._batches]).tolist()]
        self.lengths: NDArray[np.int32] = np.concatenate([batch.lengths for batch in self._batches])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        batch, place = self._find(index)
        return batch.window(place)

    def target(self, index: int) -> NDArray[Any]:
        """The target of a window, as the task gave it."""
        batch, place = self._find(index)
        return batch.target(place)

    def targets(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Targets of all windows, many at a time, one behind the other, and the index of the row of each value."""
        for batch in self._batches:
            yield batch.all_targets

    def rows(self) -> NDArray[np.int64]:
        """Index of the row of every window, (W,)."""
        return np.concatenate([batch.rows for batch in self._batches])

    def _find(self, index: int) -> tuple["_Columns", int]:
        index = range(len(self))[index]
        number = bisect_right(self._starts, index) - 1
        return self._batches[number], index - self._starts[number]

    def __reduce__(self) -> tuple[Callable[..., "StoredWindows"], tuple[Path]]:
        return StoredWindows, (self._path,)


class _Columns:
    """Arrays of one record batch, as views into the file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        columns = {name: batch.column(name) for name in batch.schema.names}
        self.rows: NDArray[np.int64] = columns["row"].to_numpy()
        self._truncated = columns["truncated"].to_numpy(zero_copy_only=False)
        self._ragged = {
            name: (column.offsets.to_numpy(), column.values.to_numpy())
            for name, column in columns.items()
            if pa.types.is_list(column.type)
        }
        self._inputs = [name.removeprefix(_INPUT) for name in self._ragged if name.startswith(_INPUT)]
        self._shape = json.loads(batch.schema.metadata[b"target_shape"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int32]:
        lengths: NDArray[np.int32] = np.diff(self._ragged[f"{_INPUT}input_ids"][0])
        return lengths

    @property
    def all_targets(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        offsets, values = self._ragged["target"]
        return values, np.repeat(self.rows, np.diff(offsets))

    def window(self, place: int) -> Window:
        inputs = {name: self._part(_INPUT + name, place).astype(np.int64) for name in self._inputs}
        spans = self._part("spans", place).astype(np.int64).reshape(-1, 2) if "spans" in self._ragged else None
        return Window(int(self.rows[place]), inputs, bool(self._truncated[place]), spans)

    def target(self, place: int) -> NDArray[Any]:
        return self._part("target", place).reshape(self._shape)

    def _part(self, name: str, place: int) -> NDArray[Any]:
        offsets, values = self._ragged[name]
        part: NDArray[Any] = values[offsets[place] : offsets[place + 1]]
        return part


@dataclass(frozen=True)
class _Chunk:
    """Windows and targets of a few rows as arrays, one behind the other, with the size of each."""

    rows: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    ragged: Mapping[str, tuple[NDArray[Any], NDArray[np.int32]]]
    target_ndim: int

    @classmethod
    def of(cls, windows: Sequence[Window], targets: Sequence[NDArray[Any]], first_row: int) -> "_Chunk":
        count = len(windows)
        ragged = {"target": _joined(targets)}
        for name in windows[0].inputs:
            values, sizes = _joined([window.inputs[name] for window in windows])
            ragged[_INPUT + name] = values.astype(np.int32), sizes
        if windows[0].spans is not None:
            values, sizes = _joined([window.spans for window in windows if window.spans is not None])
            ragged["spans"] = values.astype(np.int32), sizes
        return cls(
            np.fromiter((window.row for window in windows), np.int64, count) + first_row,
            np.fromiter((window.truncated for window in windows), np.bool_, count),
            ragged,
            targets[0].ndim,
        )


def _joined(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    if arrays[0].ndim == 0:
        return np.array(arrays), np.ones(len(arrays), np.int32)
    return np.concatenate(arrays, axis=None), np.fromiter((array.size for array in arrays), np.int32, len(arrays))


def _batch_of(chunks: Sequence[_Chunk]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        "row": pa.array(np.concatenate([chunk.rows for chunk in chunks])),
        "truncated": pa.array(np.concatenate([chunk.truncated for chunk in chunks])),
    }
    for name in chunks[0].ragged:
        values = np.concatenate([chunk.ragged[name][0] for chunk in chunks])
        ends = np.concatenate([[0], *(chunk.ragged[name][1] for chunk in chunks)]).cumsum(dtype=np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(values))
    # A single value, or as many as there are: enough for class indices, choices, places and tags.
    shape = [-1] if chunks[0].target_ndim else []
    return pa.RecordBatch.from_pydict(columns, metadata={"target_shape": json.dumps(shape)})


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _ahead(pool: ThreadPoolExecutor, count: int, work: Callable[[int], Item], items: Iterable[int]) -> Iterator[Item]:
    """Results in the order of the items, computed so many ahead."""
    waiting: deque[Future[Item]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


@contextmanager
def _tokenizers_on_one_core() -> Iterator[None]:
    """Have tokenizers encode in the thread that calls them; they look at this variable each time."""
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLELISM]
        else:
            os.environ[_PARALLELISM] = before
