"""Formats of one row a line: what is wrong with one line costs the others nothing."""

from pathlib import Path

import pytest

from suffuse.errors import RowError
from suffuse.rows import read_rows

NOT_UTF8 = "byte 0xe9 at column 4 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)"
NOT_JSON = "not JSON: Expecting value at column 1; expected one object a line"
COLUMNS = "3 columns; expected 2 as in the header (text, label); quote cells that hold the separator"


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("a.csv", b"text,label\none,a\ncaf\xe9,b\ntwo,b\n", ("not_utf8", 3, NOT_UTF8)),
        ("a.tsv", b"text\tlabel\none\ta\ncaf\xe9\tb\ntwo\tb\n", ("not_utf8", 3, NOT_UTF8)),
        ("a.csv", b"text,label\none,a\n1,2,3\ntwo,b\n", ("wrong_columns", 3, COLUMNS)),
        ("a.tsv", b"text\tlabel\none\ta\n1\t2\t3\ntwo\tb\n", ("wrong_columns", 3, COLUMNS)),
        (
            "a.csv",
            b'text,label\none,a\n"x"y,b\ntwo,b\n',
            ("invalid_csv", 3, "not a valid row: ',' expected after '\"'"),
        ),
        (
            "a.jsonl",
            b'{"text":"one","label":"a"}\nnonsense\n{"text":"two","label":"b"}\n',
            ("invalid_json", 2, NOT_JSON),
        ),
        (
            "a.jsonl",
            b'{"text":"one","label":"a"}\n[1]\n{"text":"two","label":"b"}\n',
            ("invalid_json", 2, "not an object: [1]; expected one JSON object a line"),
        ),
        (
            "a.jsonl",
            b'{"text":"one","label":"a"}\ncaf\xe9\n{"text":"two","label":"b"}\n',
            ("not_utf8", 2, NOT_UTF8),
        ),
    ],
)
def test_bad_line_is_reported_and_those_around_it_are_read(
    name: str, content: bytes, bad: tuple[str, int, str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    errors: list[RowError] = []

    rows = [row for _, row in read_rows(path, on_bad=errors.append)]

    code, line, message = bad
    assert rows == [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]
    assert [(error.code, error.where, error.message) for error in errors] == [(code, f"{name}:{line}", message)]


def test_bad_header_stops_the_reading_even_where_bad_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"caf\xe9,label\none,a\ntwo,b\n")

    with pytest.raises(RowError) as caught:
        list(read_rows(path, on_bad=lambda _: None))

    assert str(caught.value) == f"a.csv:1: {NOT_UTF8}"


def test_line_after_a_broken_cell_of_several_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\n"one\ncaf\xe9",a\ntwo,b\n')
    errors: list[RowError] = []

    rows = [row for _, row in read_rows(path, on_bad=errors.append)]

    assert rows == [{"text": "two", "label": "b"}]
    assert [error.where for error in errors] == ["a.csv:3"]
