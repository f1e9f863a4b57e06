"""Rows at addresses that fsspec opens, here those of its file system in memory."""

import gzip
import io
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from suffuse.errors import DataError
from suffuse.rows import read_rows, remote_files

ROWS = [{"text": "fine", "label": "good"}, {"text": "café", "label": "bad"}]


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", "text,label\nfine,good\ncafé,bad\n".encode(), (2, 3)),
        (
            "a.jsonl.gz",
            gzip.compress('{"text": "fine", "label": "good"}\n{"text": "café", "label": "bad"}\n'.encode()),
            (1, 2),
        ),
        ("a.parquet", parquet_bytes(), (1, 2)),
    ],
)
def test_remote_file_is_read_as_one_here(name: str, content: bytes, lines: tuple[int, int], memory: Any) -> None:  # noqa: ANN401 - fsspec's
    memory.pipe(f"/folder/{name}", content)

    placed = list(read_rows(f"memory://folder/{name}"))

    assert placed == [(f"{name}:{line}", row) for line, row in zip(lines, ROWS, strict=True)]


def test_missing_remote_file_is_named(memory: Any) -> None:  # noqa: ANN401
    with pytest.raises(DataError) as caught:
        list(read_rows("memory://folder/a.csv"))

    assert str(caught.value) == "memory://folder/a.csv: no such file; expected the address of an existing one"


def test_address_that_nothing_opens_is_named() -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows("nowhere://folder/a.csv"))

    assert str(caught.value) == (
        "nowhere://folder/a.csv: cannot be opened: Protocol not known: nowhere; expected a file that can be read"
    )


def test_question_of_an_address_is_not_part_of_the_name() -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows("nowhere://folder/a.xml?key=a.csv"))

    assert str(caught.value).startswith("a.xml: unknown format; expected one of .csv, ")


def test_remote_files_that_fit_a_pattern_are_given_in_the_order_of_their_names(memory: Any) -> None:  # noqa: ANN401
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        memory.pipe(f"/folder/{name}", b"{}\n")

    assert remote_files("memory://folder/*.jsonl") == ["memory:///folder/a.jsonl", "memory:///folder/b.jsonl"]


def test_pattern_at_an_address_that_nothing_opens_is_named() -> None:
    with pytest.raises(DataError) as caught:
        remote_files("nowhere://folder/*.csv")

    assert str(caught.value) == (
        "nowhere://folder/*.csv: cannot be opened: Protocol not known: nowhere; expected a file that can be read"
    )
