"""Sources of rows: which files they are, what is read of them, and what is said about bad rows."""

import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from suffuse.errors import DataError, RowError
from suffuse.tasks import Classification
from suffuse.training.sources import REMOTE, Checks, Reader, Source, as_sources

TASK = Classification(("bad", "good"))


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def none(error: RowError) -> None:
    pytest.fail(str(error))


def texts(sources: Sequence[Source], checks: Checks | None = None) -> list[str]:
    """Texts of the rows, in order; none may be bad."""
    return [placed.row["text"] for placed in Reader(tuple(sources), TASK, checks or Checks()).read(none)]


def test_files_that_fit_a_pattern_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("10.jsonl", "02.jsonl", "01.jsonl", "00.csv"):
        write(tmp_path / name, {"text": name})

    assert texts([Source(f"{tmp_path}/*.jsonl")]) == ["01.jsonl", "02.jsonl", "10.jsonl"]


def test_pattern_reaches_into_folders(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    write(tmp_path / "a/b/x.jsonl", {"text": "deep"})

    assert texts([Source(f"{tmp_path}/**/*.jsonl")]) == ["deep"]


def test_remote_pattern_is_read_in_the_order_of_names() -> None:
    system = fsspec.filesystem("memory")
    for name in ("b", "a"):
        system.pipe(f"/shards/{name}.jsonl", json.dumps({"text": name}).encode())

    assert texts([Source("memory://shards/*.jsonl")]) == ["a", "b"]


def test_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows[1].jsonl", {"text": "fine"})

    assert texts([Source(path)]) == ["fine"]


@pytest.mark.parametrize("path", ["none/*.jsonl", "memory://none/*.jsonl"])
def test_pattern_that_no_file_fits_is_named(path: str) -> None:
    with pytest.raises(DataError) as caught:
        Source(path).files()

    assert str(caught.value) == f"{path}: no file fits this pattern; expected one at least"


def test_missing_second_file_is_named_before_the_first_is_read(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", {"no": "text"})
    message = "none.jsonl: no such file or folder; expected an existing one, relative to the current folder"

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        texts([Source(bad), Source("none.jsonl")])


@pytest.mark.parametrize(("weight", "shown"), [(0, "0"), (-0.5, "-0.5"), (float("inf"), "inf"), (float("nan"), "nan")])
def test_weight_must_be_a_number_above_0(weight: float, shown: str) -> None:
    with pytest.raises(DataError) as caught:
        Source("a.csv", weight=weight).files()

    assert str(caught.value) == f"a.csv: weight is {shown}; expected a number above 0"


def test_options_stand_for_sources_and_take_what_they_lack_from_all() -> None:
    sources = as_sources(
        ["a.csv", {"path": "b.jsonl", "weight": 0.5, "columns": {}, "where": {"kind": ["x"]}}],
        {"text": "review"},
        {"split": ["train"]},
    )

    assert sources == (
        Source("a.csv", {"text": "review"}, {"split": ["train"]}),
        Source("b.jsonl", {}, {"kind": ["x"]}, 0.5),
    )


def test_no_sources_are_none() -> None:
    assert as_sources(None, None, None) == ()


def test_each_source_has_columns_and_where_of_its_own(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", {"review": "a"}, {"review": "b"})
    two = write(tmp_path / "two.jsonl", {"text": "c", "kind": "x"}, {"text": "d", "kind": "y"})

    assert texts([Source(one, {"text": "review"}), Source(two, where={"kind": ["y"]})]) == ["a", "b", "d"]


def test_rows_say_which_source_they_are_of(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.jsonl", {"text": "a"}), write(tmp_path / "two.jsonl", {"text": "b"})

    placed = list(Reader((Source(one), Source(two)), TASK).read(none))

    assert [(row.source, row.where) for row in placed] == [(0, "one.jsonl:1"), (1, "two.jsonl:1")]


def test_where_compares_values_as_json_writes_them(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": str(value), "kind": value} for value in (1, 2, True, None, [1])]
    path = write(tmp_path / "a.jsonl", *rows)

    assert texts([Source(path, where={"kind": ["1", "true", "[1]"]})]) == ["1", "True", "[1]"]


def test_repeated_rows_are_left_out_across_files(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", {"text": "a", "id": 1}, {"text": "b", "id": 1}, {"text": "a", "id": 1})
    two = write(tmp_path / "two.jsonl", {"text": "a", "id": 1}, {"text": "c", "id": 1})

    assert texts([Source(one), Source(two)], Checks(unique=("text", "id"))) == ["a", "b", "c"]


def test_repeated_rows_are_kept_where_they_need_not_be_unique(tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", {"text": "a"}, {"text": "a"})

    assert texts([Source(path)]) == ["a", "a"]


def test_dates_in_parquet_can_be_unique(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "day": [date(2024, 1, 1), date(2024, 1, 1), date(2024, 1, 2)]})
    parquet.write_table(table, tmp_path / "a.parquet")

    assert texts([Source(f"{tmp_path}/a.parquet")], Checks(unique=("day",))) == ["a", "c"]


def test_bad_row_stops_the_reading_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "fine"}, {"text": " "})

    with pytest.raises(RowError) as caught:
        texts([Source(path)])

    assert str(caught.value) == "a.jsonl:2: field 'text' is empty; expected the text to classify"


def test_digests_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    sources = (
        Source(write(tmp_path / "x/a.jsonl", {"text": "one"})),
        Source(write(tmp_path / "y/a.jsonl", {"text": "two"})),
    )

    before = Reader(sources, TASK).digests()
    write(tmp_path / "x/a.jsonl", {"text": "three"})
    after = Reader(sources, TASK).digests()

    assert list(before) == list(after) == ["a.jsonl", "a.jsonl (2)"]
    assert before["a.jsonl"] != after["a.jsonl"]
    assert before["a.jsonl (2)"] == after["a.jsonl (2)"]


def test_remote_files_have_no_digest() -> None:
    assert Reader((Source("memory://folder/a.csv"),), TASK).digests() == {"memory://folder/a.csv": REMOTE}
