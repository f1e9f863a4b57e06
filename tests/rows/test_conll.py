"""CoNLL columns: sentences with the line that each begins at, and files that are none."""

from pathlib import Path

import pytest

from suffuse.errors import RowError
from suffuse.rows import read_rows

SAMPLE = """-DOCSTART- -X- O O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

-DOCSTART- -X- O O


Bonn NNP B-NP B-LOC
"""


def written(folder: Path, content: str, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8"))
    return path


def test_sentences_are_tokens_and_tags_and_the_line_of_their_first_word(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path, SAMPLE)))

    assert rows == [
        (
            "train.txt:3",
            {
                "tokens": ["EU", "rejects"],
                "column_2": ["NNP", "VBZ"],
                "column_3": ["B-NP", "B-VP"],
                "tags": ["B-ORG", "O"],
            },
        ),
        ("train.txt:9", {"tokens": ["Bonn"], "column_2": ["NNP"], "column_3": ["B-NP"], "tags": ["B-LOC"]}),
    ]


def test_another_column_can_be_the_tags(tmp_path: Path) -> None:
    assert next(read_rows(written(tmp_path, SAMPLE), {"tags": "column_3"})).row["tags"] == ["B-NP", "B-VP"]


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("Bonn\tB-LOC\r\n\r\nin\tO\r\n", ["Bonn"]),
        ("New York\tB-LOC\nis\tO\n", ["New York", "is"]),
        ("\ufeffBonn   B-LOC\nis O", ["Bonn", "is"]),
        ("a\u00a0b O\n \nis O", ["a\u00a0b"]),
        ("a\u2028b O\n", ["a\u2028b"]),
    ],
)
def test_columns_are_parted_by_tabs_or_by_spaces(tmp_path: Path, content: str, tokens: list[str]) -> None:
    assert next(read_rows(written(tmp_path, content, "train.conll"))).row["tokens"] == tokens


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "Hello\n\nworld\n",
            (
                "train.txt:1: one column, 'Hello'; expected CoNLL columns: a word and its tag on a line, "
                "parted by a space or a tab, and a blank line between sentences"
            ),
        ),
        (
            "\nOnce upon a time,\nin a land far, far away\n",
            (
                "train.txt:3: 6 columns, 'in a land far, far away'; expected 4 as in line 2: CoNLL columns are a "
                "word, its tag last, parted by spaces or tabs, with a blank line between sentences"
            ),
        ),
        (
            "Bonn B-LOC\n\nis\n",
            (
                "train.txt:3: one column, 'is'; expected 2 as in line 1: CoNLL columns are a word, its tag last, "
                "parted by spaces or tabs, with a blank line between sentences"
            ),
        ),
    ],
)
def test_a_file_that_is_not_in_columns_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(RowError) as caught:
        list(read_rows(written(tmp_path, content)))

    assert (caught.value.code, str(caught.value)) == ("wrong_columns", message)


def test_a_bad_line_takes_its_sentence_and_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(b"a O\n\nb O\nc\n\xff O\nd O\n\ne O\n")
    errors: list[RowError] = []

    rows = list(read_rows(path, on_bad=errors.append))

    assert [(where, row["tokens"]) for where, row in rows] == [("train.txt:1", ["a"]), ("train.txt:8", ["e"])]
    assert [error.where for error in errors] == ["train.txt:4"]
