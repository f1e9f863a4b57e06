"""Stored rows and windows: what is read equals what was written, whatever the chunks, here and in other programs."""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from datasets import Dataset  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from suffuse.tasks import Classification, Row, Tokens, Window
from suffuse.training import store
from suffuse.training.sources import Placed
from suffuse.training.store import RowWriter, StoredRows, StoredWindows, write_windows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.builds(Placed, st.integers(0, 9), TEXT, st.dictionaries(TEXT, JSON, max_size=4)), max_size=12)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Few rows make many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_ROWS", 3)
        patch.setattr(store, "ENCODED_ROWS", 3)
        patch.setattr(store, "WRITTEN_CHUNKS", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a fresh folder."""
    return lambda: tmp_path_factory.mktemp("store")


def written(path: Path, placed: Sequence[Placed]) -> StoredRows:
    with RowWriter(path, sorted({name for row in placed for name in row.row})) as writer:
        for row in placed:
            writer.write(row)
    return StoredRows(path)


@given(placed=ROWS)
@settings(deadline=None, max_examples=60)
def test_rows_that_are_read_are_those_written(placed: list[Placed], folder: Callable[[], Path]) -> None:
    rows = written(folder() / "rows.arrow", placed)

    assert list(rows) == placed
    assert rows[:] == placed
    assert [rows[number] for number in range(-len(placed), 0)] == placed
    assert rows.sources().tolist() == [row.source for row in placed]


@pytest.mark.parametrize(
    "part", [slice(2, 7), slice(None, None, -1), slice(-3, None), slice(1, 9, 3), slice(5, 2), slice(20, 30)]
)
def test_slices_are_as_those_of_a_list(part: slice, tmp_path: Path) -> None:
    placed = [Placed(0, str(number), {"text": str(number)}) for number in range(10)]

    assert written(tmp_path / "rows.arrow", placed)[part] == placed[part]


@pytest.mark.parametrize("index", [3, -4])
def test_row_beyond_the_end_is_an_index_error(index: int, tmp_path: Path) -> None:
    rows = written(tmp_path / "rows.arrow", [Placed(0, "", {})] * 3)

    with pytest.raises(IndexError):
        rows[index]


def test_only_the_columns_asked_for_are_kept(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows.arrow", ("text", "tags")) as writer:
        writer.write(Placed(0, "a:1", {"text": "x", "other": 1}))

    assert StoredRows(tmp_path / "rows.arrow")[0].row == {"text": "x"}


def test_place_that_is_no_unicode_is_written_with_escapes(tmp_path: Path) -> None:
    assert written(tmp_path / "rows.arrow", [Placed(0, "good/\udce9.txt", {})])[0].where == "good/\\udce9.txt"


class Given(Classification):
    """A task whose windows and targets are given, chunk after chunk."""

    def __init__(self, windows: list[Window], targets: list[NDArray[Any]]) -> None:
        object.__setattr__(self, "given", (windows, targets))

    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:  # noqa: ARG002 - they are given
        first = rows[0]["number"]
        chosen = range(first, first + len(rows))
        return [
            Window(window.row - first, window.inputs, window.truncated, window.spans)
            for window in self.given[0]  # type: ignore[attr-defined]
            if window.row in chosen
        ]

    def targets(self, _: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        first = rows[0]["number"]
        chosen = range(first, first + len(rows))
        return [
            target
            for window, target in zip(*self.given, strict=True)  # type: ignore[attr-defined]
            if window.row in chosen
        ]


@st.composite
def encoded(draw: st.DrawFn) -> tuple[int, list[Window], list[NDArray[Any]]]:
    """Rows of one to three windows each, with or without spans, and targets of one of three forms."""
    with_spans = draw(st.booleans())
    form = draw(st.sampled_from(["scalar", "vector", "ragged"]))
    count = draw(st.integers(1, 8))
    windows: list[Window] = []
    targets: list[NDArray[Any]] = []
    ids = st.integers(0, 2**31 - 1)
    for row in range(count):
        for _ in range(draw(st.integers(1, 3))):
            size = draw(st.integers(1, 6))
            inputs = {
                name: np.array(draw(st.lists(ids, min_size=size, max_size=size)), dtype=np.int64)
                for name in ("input_ids", "token_type_ids")
            }
            spans = np.array(draw(st.lists(st.integers(-1, 99), min_size=2 * size, max_size=2 * size)), dtype=np.int64)
            windows.append(Window(row, inputs, draw(st.booleans()), spans.reshape(-1, 2) if with_spans else None))
            forms: dict[str, NDArray[Any]] = {
                "scalar": np.array(row, dtype=np.int64),
                "vector": np.array([row, 0.5, 1], dtype=np.float32),
                "ragged": np.arange(size, dtype=np.int64) - 100,
            }
            targets.append(forms[form])
    return count, windows, targets


def same(first: NDArray[Any] | None, second: NDArray[Any] | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and first.shape == second.shape and bool((first == second).all())


def stored(folder: Path, count: int, windows: list[Window], targets: list[NDArray[Any]]) -> StoredWindows:
    rows = written(folder / "rows.arrow", [Placed(0, "", {"number": number}) for number in range(count)])
    advanced: list[int] = []
    no_tokens = cast("Tokens", None)
    write_windows(folder / "windows.arrow", rows, Given(windows, targets), no_tokens, advanced.append)
    assert sum(advanced) >= count
    return StoredWindows(folder / "windows.arrow")


@given(case=encoded())
@settings(deadline=None, max_examples=60)
def test_windows_and_targets_that_are_read_are_those_written(
    case: tuple[int, list[Window], list[NDArray[Any]]], folder: Callable[[], Path]
) -> None:
    count, windows, targets = case

    read = stored(folder(), count, windows, targets)

    assert len(read) == len(windows)
    assert read.lengths.tolist() == [len(window) for window in windows]
    assert read.rows().tolist() == [window.row for window in windows]
    for index, (window, target) in enumerate(zip(windows, targets, strict=True)):
        again = read[index]
        assert (again.row, again.truncated) == (window.row, window.truncated)
        assert again.inputs.keys() == window.inputs.keys()
        assert all(same(again.inputs[name], window.inputs[name]) for name in window.inputs)
        assert same(again.spans, window.spans)
        assert same(read.target(index), target)
    values, rows = map(np.concatenate, zip(*read.targets(), strict=True))
    assert np.array_equal(values, np.concatenate([target.ravel() for target in targets]))
    assert np.array_equal(rows, np.repeat(read.rows(), [target.size for target in targets]))


def some_windows(folder: Path) -> StoredWindows:
    windows = [Window(row, {"input_ids": np.arange(row + 1)}) for row in range(7)]
    return stored(folder, 7, windows, [np.array(row) for row in range(7)])


def test_windows_are_chosen_as_from_a_list(tmp_path: Path) -> None:
    windows = some_windows(tmp_path)

    assert [len(window) for window in windows[1:7:2]] == [2, 4, 6]
    assert len(windows[-1]) == 7
    assert int(windows.target(-1)) == 6


def test_window_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        some_windows(tmp_path)[7]


def test_loader_workers_are_sent_a_path_not_the_content(tmp_path: Path) -> None:
    windows, rows = some_windows(tmp_path), StoredRows(tmp_path / "rows.arrow")

    sent = pickle.dumps((rows, windows))
    again_rows, again_windows = pickle.loads(sent)  # noqa: S301 - our own

    assert len(sent) < 500
    assert list(again_rows) == list(rows)
    assert [window.inputs["input_ids"].tolist() for window in again_windows] == [list(range(n + 1)) for n in range(7)]


def test_datasets_opens_both_files(tmp_path: Path) -> None:
    windows = some_windows(tmp_path)

    assert len(Dataset.from_file(str(tmp_path / "rows.arrow"))) == 7
    opened = Dataset.from_file(str(tmp_path / "windows.arrow"))
    assert list(opened["input.input_ids"]) == [window.inputs["input_ids"].tolist() for window in windows]


def test_error_while_rows_are_written_is_the_one_that_is_seen(tmp_path: Path) -> None:
    def write() -> None:
        with RowWriter(tmp_path / "rows.arrow", ("text",)) as writer:
            writer.write(Placed(0, "", {"text": {(1, 2): "no JSON"}}))
            raise OSError("disk full")

    with pytest.raises(OSError, match=r"^disk full$"):
        write()


@pytest.mark.parametrize("before", [None, "true"])
def test_each_tokenizer_keeps_to_its_core_and_others_do_as_before(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.setenv(name, "")  # so that it is restored
    if before is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, before)
    seen: list[str | None] = []

    class Looking(Given):
        def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
            seen.append(os.environ.get(name))
            return super().encode(rows, tokens)

    rows = written(tmp_path / "rows.arrow", [Placed(0, "", {"number": number}) for number in range(4)])
    windows = [Window(row, {"input_ids": np.arange(2)}) for row in range(4)]
    task = Looking(windows, [np.array(row) for row in range(4)])
    write_windows(tmp_path / "windows.arrow", rows, task, cast("Tokens", None), lambda _: None)

    assert (seen, os.environ.get(name)) == (["false", "false"], before)


def test_single_rows_and_windows_are_read_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_ROWS", 1024)
    rows = written(tmp_path / "rows.arrow", [Placed(0, "a:1", {"text": "a dull film " * 9})] * 4000)
    indices = np.random.default_rng(0).integers(0, 4000, 2000).tolist()

    seconds = []
    for _ in range(3):
        start_s = time.process_time()
        for index in indices:
            rows[index]
        seconds.append(time.process_time() - start_s)

    assert min(seconds) / 2000 < 100e-6  # 5 us where it was measured; whole chunks would take a thousand times as long
