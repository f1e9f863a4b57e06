"""Parquet files: rows as pyarrow wrote them, by their number, and damaged files refused."""

import gzip
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from suffuse.errors import DataError, RowError
from suffuse.rows import parquet as reading
from suffuse.rows import read_rows


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:  # noqa: ANN401 - of pyarrow
    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_rows_hold_numbers_and_nested_lists_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "label": 3, "tokens": ["a", "b"], "entities": [{"start": 0, "label": "x"}], "score": 0.5},
        {"text": "zwei é", "label": None, "tokens": [], "entities": [], "score": 1.0},
    ]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)

    assert list(read_rows(path)) == [("a.parquet:1", rows[0]), ("a.parquet:2", rows[1])]


def test_place_is_the_number_of_the_row_across_row_groups_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 3)
    path = write(tmp_path / "a.parquet", {"text": [str(number) for number in range(1, 18)]}, row_group_size=5)

    assert list(read_rows(path)) == [(f"a.parquet:{number}", {"text": str(number)}) for number in range(1, 18)]


def test_columns_are_renamed_to_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"sentence": ["fine"], "day": [date(2024, 2, 29)]})

    assert list(read_rows(path, {"text": "sentence"})) == [
        ("a.parquet:1", {"text": "fine", "day": date(2024, 2, 29)}),
    ]


def test_compressed_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(write(tmp_path / "a.parquet", {"text": ["fine"]}).read_bytes()))

    assert list(read_rows(path)) == [("a.parquet.gz:1", {"text": "fine"})]


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (slice(0), "not a whole Parquet file: Parquet file size is 0 bytes; fetch it again"),
        (
            slice(-9),
            "not a whole Parquet file: Parquet magic bytes not found in footer; fetch it again",
        ),
    ],
)
def test_truncated_file_is_refused(kept: slice, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["fine"] * 50})
    path.write_bytes(path.read_bytes()[kept])

    with pytest.raises(DataError) as caught:
        list(read_rows(path))

    assert str(caught.value) == f"a.parquet: {reason}"


def test_file_that_is_damaged_within_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["fine"] * 50})
    content = bytearray(path.read_bytes())
    content[4:24] = bytes(20)
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        list(read_rows(path))

    assert str(caught.value) == (
        "a.parquet: the file is damaged: Couldn't deserialize thrift: TProtocolException: Invalid data "
        "Deserializing page header failed; fetch or compress it again"
    )


def test_column_named_twice_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")

    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / "a.parquet"))

    assert str(caught.value) == "a.parquet: the header names the column 'text' twice; expected each name once"


def test_text_that_is_not_utf8_costs_the_other_rows_nothing(tmp_path: Path) -> None:
    data = pa.array([b"one", b"caf\xe9", b"two"])
    path = write(tmp_path / "a.parquet", {"text": pa.Array.from_buffers(pa.string(), 3, data.buffers())})
    errors: list[RowError] = []

    rows = [row for _, row in read_rows(path, on_bad=errors.append)]

    assert rows == [{"text": "one"}, {"text": "two"}]
    assert [(error.code, str(error)) for error in errors] == [
        ("not_utf8", "a.parquet:2: byte 0xe9 of a text is not UTF-8; expected UTF-8")
    ]


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})

    with pytest.raises(DataError) as caught:
        list(read_rows(path))

    assert str(caught.value) == "a.parquet: the file holds no rows; expected at least one"
