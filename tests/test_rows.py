"""Rows come out of files as they stand there, each with its line, and what cannot be read is named."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import DataError, InputError, RowError
from suffuse.rows import locate, read_rows

FORMATS = (
    "expected one of .csv, .tsv, .jsonl, .json, .conll, .txt, .parquet (also with .gz, .bz2, .xz), "
    "or a folder with a folder for each label"
)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path | str, columns: dict[str, str] | None = None) -> InputError:
    with pytest.raises((DataError, RowError)) as caught:
        list(read_rows(path, columns))
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\nfine,good\n"),
        ("a.CSV", "text,label\nfine,good\n"),
        ("a.v2.tsv", "text\tlabel\nfine\tgood\n"),
        ("a.jsonl", '{"text": "fine", "label": "good"}\n'),
        ("a.json", '[{"text": "fine", "label": "good"}]'),
        ("crlf.csv", "text,label\r\nfine,good\r\n"),
        ("crlf.jsonl", '{"text": "fine", "label": "good"}\r\n'),
        ("bom.csv", "\ufefftext,label\nfine,good\n"),
        ("no_last_newline.csv", "text,label\nfine,good"),
    ],
)
def test_every_format_gives_the_same_row(tmp_path: Path, name: str, content: str) -> None:
    assert [row for _, row in read_rows(write(tmp_path, name, content))] == [{"text": "fine", "label": "good"}]


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files_are_read(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, f"a.csv{suffix}", compress(b"text\nfine\n"))

    assert list(read_rows(path)) == [(f"a.csv{suffix}:2", {"text": "fine"})]


def test_a_file_inside_a_package_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "rows_of_somebody"
    package.mkdir()
    write(package, "__init__.py", "raise RuntimeError('imported')")
    write(package, "a.csv", "text\nfine\n")
    monkeypatch.syspath_prepend(tmp_path)

    rows = list(read_rows("pkg://rows_of_somebody/a.csv"))

    assert rows == [("a.csv:2", {"text": "fine"})]
    assert "rows_of_somebody" not in sys.modules


def test_columns_are_renamed_to_fields_and_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "sentence,label,id\nfine,good,1\n")

    assert next(read_rows(path, {"text": "sentence"})).row == {"text": "fine", "label": "good", "id": "1"}


def test_a_renamed_column_wins_over_one_that_is_called_like_the_field(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "sentence,text\nfine,ignored\n")

    assert next(read_rows(path, {"text": "sentence"})).row == {"text": "fine"}


def test_two_columns_can_swap_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,text_pair\none,two\n")

    assert next(read_rows(path, {"text": "text_pair", "text_pair": "text"})).row == {"text": "two", "text_pair": "one"}


def test_lines_are_counted_in_the_file_across_blank_lines_and_cells_of_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text\n"two\nlines"\n\nlast\n')

    assert list(read_rows(path)) == [("a.csv:2", {"text": "two\nlines"}), ("a.csv:5", {"text": "last"})]


def test_blank_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path, "a.csv", "\n\ntext\nfine\n"))) == [("a.csv:4", {"text": "fine"})]


def test_quotes_in_tsv_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\n"Alien" is 1979\'s best\nan 8" disk\n')

    assert [row["text"] for _, row in read_rows(path)] == ['"Alien" is 1979\'s best', 'an 8" disk']


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    assert len(next(read_rows(write(tmp_path, "a.csv", "text\n" + "x" * 200_000))).row["text"]) == 200_000


def test_unicode_line_separators_stay_inside_a_json_row(tmp_path: Path) -> None:
    assert list(read_rows(write(tmp_path, "a.jsonl", '{"text": "a\u2028b"}'))) == [("a.jsonl:1", {"text": "a\u2028b"})]


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.jsonl", '{"text": "fine"}\nbroken\n'))

    assert next(rows).row == {"text": "fine"}


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_csv_gives_back_what_the_csv_module_wrote(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *cells])
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", file.getvalue())

    assert [(row["a"], row["b"]) for _, row in read_rows(path)] == cells


@given(st.lists(st.dictionaries(CELLS, CELLS | st.integers() | st.none(), max_size=3), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_json_lines_give_back_what_json_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    path = write(tmp_path_factory.mktemp("jsonl"), "a.jsonl", "\n".join(map(json.dumps, rows)))

    assert list(read_rows(path)) == [(f"a.jsonl:{line}", row) for line, row in enumerate(rows, 1)]


def test_a_missing_file_is_named() -> None:
    assert str(refusal("none/a.csv")) == (
        "none/a.csv: no such file or folder; expected an existing one, relative to the current folder"
    )


def test_a_folder_is_no_file_of_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path, format="csv"))

    assert str(caught.value) == (
        f"{tmp_path.name}: a folder, but the format is 'csv'; expected a file, or format: folders"
    )


def test_a_file_is_no_folder_of_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(write(tmp_path, "a.csv", "text\nfine\n"), format="folders"))

    assert str(caught.value) == (
        "a.csv: a file, but the format is 'folders'; expected a folder with a folder for each label"
    )


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")

    assert str(refusal(tmp_path / "a.csv")) == f"{tmp_path}/a.csv: not a file that can be read; expected a file of rows"


def test_a_format_can_be_named_where_the_ending_does_not_tell(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.data.gz", gzip.compress(b"text\tlabel\nfine\tgood\n"))

    assert list(read_rows(path, format="tsv")) == [("rows.data.gz:2", {"text": "fine", "label": "good"})]


def test_an_unknown_format_that_is_named_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(write(tmp_path, "a.csv", "text\nfine\n"), format="xml"))

    assert str(caught.value) == (
        "a.csv: unknown format 'xml'; expected one of csv, tsv, jsonl, json, conll, txt, parquet, lines, folders"
    )


@pytest.mark.parametrize("package", ["not_there_at_all", "dotted.name", "", "csv"])
def test_a_missing_package_is_named(package: str) -> None:
    source = f"pkg://{package}/a.csv"
    reason = f"no package {package!r} is installed; expected pkg://PACKAGE/PATH of an installed package"

    with pytest.raises(DataError, match="^" + re.escape(f"{source}: {reason}") + "$"):
        locate(source)


def test_a_file_that_a_package_lacks_is_named() -> None:
    assert str(refusal("pkg://json/a.csv")) == "pkg://json/a.csv: package 'json' holds no 'a.csv'"


@pytest.mark.parametrize("name", ["a.xml", "a", "a.gz", ".csv", "a.xml.gz"])
def test_an_unknown_format_is_refused_with_those_known(tmp_path: Path, name: str) -> None:
    assert str(refusal(write(tmp_path, name, ""))) == f"{name}: unknown format; {FORMATS}"


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("a.csv", "text\n\n"), ("a.tsv", "\n"), ("a.jsonl", "\n")]
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    assert str(refusal(write(tmp_path, name, content))) == f"{name}: the file holds no rows; expected at least one"


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "review,label\nfine,good\n")

    assert str(refusal(path, {"text": "sentence"})) == (
        "a.csv: no column 'sentence' for the field 'text'; got review, label; "
        "name the right one in columns: {text: COLUMN}"
    )


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    assert str(refusal(write(tmp_path, "a.csv", "text,label,text\na,b,c\n"))) == (
        "a.csv: the header names the column 'text' twice; expected each name once"
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    first = '{"text": "é"}' if name == "a.jsonl" else "text"
    path = write(tmp_path, name, first.encode() + b"\nna\xefve\n")

    error = refusal(path)

    assert str(error) == (
        f"{name}:2: byte 0xef at column 3 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)"
    )


def test_a_row_with_too_many_columns_is_named_by_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"a\nb",good\n"c\nd",good,extra\n')

    assert str(refusal(path)) == (
        "a.csv:4: 3 columns; expected 2 as in the header (text, label); quote cells that hold the separator"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text\n"never closed\n', "a.csv:2: not a valid row: unexpected end of data"),
        ('text\n"a"b\n', "a.csv:2: not a valid row: ',' expected after '\"'"),
        ('"never closed\n', "a.csv:1: not a valid row: unexpected end of data"),
    ],
)
def test_broken_quotes_are_named(tmp_path: Path, content: str, message: str) -> None:
    assert str(refusal(write(tmp_path, "a.csv", content))) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{'text': 1}",
            "not JSON: Expecting property name enclosed in double quotes at column 2; expected one object a line",
        ),
        ("[1, 2]", "not an object: [1, 2]; expected one JSON object a line"),
        ('"' + "x" * 90 + '"', f'not an object: "{"x" * 39}; expected one JSON object a line'),
    ],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, line: str, message: str) -> None:
    assert str(refusal(write(tmp_path, "a.jsonl", "{}\n" + line))) == f"a.jsonl:2: {message}"


@pytest.mark.parametrize("line", ["[" * 100_000, '{"n": ' + "1" * 5_000 + "}"])
def test_json_that_python_gives_up_on_is_a_bad_row(tmp_path: Path, line: str) -> None:
    error = refusal(write(tmp_path, "a.jsonl", line))

    assert re.fullmatch(r"a\.jsonl:1: not JSON: .*; expected one object a line", str(error))


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".gz", b"text\nfine\n", "Not a gzipped file (b'te')"),
        (
            ".gz",
            gzip.compress(b"text\nfine\n")[:-9],
            "Compressed file ended before the end-of-stream marker was reached",
        ),
        (".bz2", b"text\nfine\n", "Invalid data stream"),
        (".xz", b"text\nfine\n", "Input format not supported by decoder"),
    ],
)
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, suffix: str, content: bytes, reason: str) -> None:
    assert str(refusal(write(tmp_path, f"a.csv{suffix}", content))) == (
        f"a.csv{suffix}: the file is damaged: {reason}; fetch or compress it again"
    )
