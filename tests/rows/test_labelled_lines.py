"""Lines of a label and a text: what they become, in which files, and which are refused."""

import gzip
from pathlib import Path

import pytest

from suffuse.errors import DataError, RowError
from suffuse.rows import read_rows


def test_a_line_is_a_label_and_a_text(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("NUM:date When was it ?\n\nHUM Who  are you ?\n", "utf-8")

    assert list(read_rows(path, format="lines")) == [
        ("questions.txt:1", {"label": "NUM:date", "coarse": "NUM", "text": "When was it ?"}),
        ("questions.txt:3", {"label": "HUM", "coarse": "HUM", "text": "Who  are you ?"}),
    ]


def test_the_coarse_label_can_be_the_one_to_learn(tmp_path: Path) -> None:
    path = tmp_path / "questions"
    path.write_text("NUM:date When was it ?\n", "utf-8")

    assert next(read_rows(path, {"label": "coarse"}, "lines")).row == {"label": "NUM", "text": "When was it ?"}


def test_compressed_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt.gz"
    path.write_bytes(gzip.compress(b"HUM Who are you ?"))

    assert next(read_rows(path, format="lines")).row["label"] == "HUM"


def test_a_label_without_a_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("HUM Who are you ?\nHUM \n", "utf-8")

    with pytest.raises(RowError) as caught:
        list(read_rows(path, format="lines"))

    assert caught.value.code == "invalid_line"
    assert str(caught.value) == ("questions.txt:2: the label 'HUM' stands alone; expected a label, a space and a text")


def test_bad_lines_can_be_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes(b"HUM Who \xe9 ?\nHUM\nHUM Who are you ?\n")
    passed_over: list[RowError] = []

    rows = list(read_rows(path, None, "lines", passed_over.append))

    assert [where for where, _ in rows] == ["questions.txt:3"]
    assert [(error.where, error.code) for error in passed_over] == [
        ("questions.txt:1", "not_utf8"),
        ("questions.txt:2", "invalid_line"),
    ]


def test_a_format_goes_before_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("text,label\nfine,good\n", "utf-8")

    assert next(read_rows(path, format="csv")).row == {"text": "fine", "label": "good"}


def test_an_unknown_format_names_those_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("text,label\nfine,good\n", "utf-8")

    with pytest.raises(DataError, match=r"^rows\.txt: unknown format 'xml'; expected one of csv, .*lines, folders$"):
        next(read_rows(path, format="xml"))
