"""A folder of texts for each label: in order, whatever their encoding, and refused where it is none."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from suffuse.errors import DataError, RowError
from suffuse.rows import digest, read_rows


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews"
    for label, name, text in [
        ("good", "2.txt", "superb"),
        ("good", "1.txt", "funny\nand warm"),
        ("bad", "1.txt", "dull"),
    ]:
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / name).write_text(text, "utf-8")
    return folder


def refusal(folder: Path, format_name: str | None = None) -> str:
    with pytest.raises((DataError, RowError)) as caught:
        list(read_rows(folder, format=format_name))
    return str(caught.value)


@pytest.mark.parametrize("format_name", [None, "folders"])
def test_each_file_is_a_row_labelled_with_its_folder_in_order_of_names(reviews: Path, format_name: str | None) -> None:
    assert list(read_rows(reviews, format=format_name)) == [
        ("bad/1.txt", {"text": "dull", "label": "bad"}),
        ("good/1.txt", {"text": "funny\nand warm", "label": "good"}),
        ("good/2.txt", {"text": "superb", "label": "good"}),
    ]


def test_columns_are_renamed(reviews: Path) -> None:
    assert next(read_rows(reviews, {"section": "label"})).row == {"text": "dull", "section": "bad"}


def test_hidden_folders_and_other_files_are_left_out(reviews: Path) -> None:
    (reviews / ".cache").mkdir()
    (reviews / "README.txt").write_text("about them", "utf-8")
    (reviews / "bad" / "notes.md").write_text("about these", "utf-8")

    assert [where for where, _ in read_rows(reviews)] == ["bad/1.txt", "good/1.txt", "good/2.txt"]


def test_a_text_that_is_not_utf8_is_read_as_windows_1252(reviews: Path) -> None:
    (reviews / "bad" / "1.txt").write_bytes("\u201ca £15m film\u201d".encode("cp1252"))

    assert next(read_rows(reviews)).row["text"] == "\u201ca £15m film\u201d"


def test_bytes_that_are_no_text_are_refused(reviews: Path) -> None:
    (reviews / "bad" / "1.txt").write_bytes(b"\x8f\x9d")

    with pytest.raises(RowError) as caught:
        list(read_rows(reviews))

    assert caught.value.code == "not_utf8"
    assert str(caught.value) == (
        "bad/1.txt: byte 0x8f at position 0 is neither UTF-8 nor Windows-1252; expected UTF-8 text"
    )


def test_a_folder_without_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()

    assert refusal(tmp_path / "texts") == (
        "texts: the folder holds no folders; expected one for each label, with .txt files in it"
    )


def test_a_label_without_texts_is_refused(reviews: Path) -> None:
    (reviews / "fair").mkdir()

    assert refusal(reviews) == "reviews/fair: no .txt files; expected the texts with the label 'fair'"


def test_a_folder_has_no_other_format(reviews: Path) -> None:
    assert refusal(reviews, "csv") == (
        "reviews: a folder, but the format is 'csv'; expected a file, or format: folders"
    )


def test_a_file_is_no_folder(reviews: Path) -> None:
    assert refusal(reviews / "bad" / "1.txt", "folders") == (
        "1.txt: a file, but the format is 'folders'; expected a folder with a folder for each label"
    )


def test_its_digest_is_that_of_the_sums_of_its_files(reviews: Path) -> None:
    names = ["bad/1.txt", "good/1.txt", "good/2.txt"]

    printed = subprocess.run(["sha256sum", *names], cwd=reviews, check=True, capture_output=True).stdout

    assert digest(reviews) == hashlib.sha256(printed).hexdigest()


def test_its_digest_knows_names_and_contents_but_not_where_it_lies(reviews: Path, tmp_path: Path) -> None:
    before = digest(reviews)
    moved = shutil.copytree(reviews, tmp_path / "elsewhere")
    renamed = shutil.copytree(reviews, tmp_path / "renamed")
    (renamed / "bad").rename(renamed / "worse")
    (reviews / "bad" / "1.txt").write_text("duller", "utf-8")

    assert digest(moved) == before
    assert len({before, digest(renamed), digest(reviews)}) == 3
