"""The corpus: what is learned from which rows, what becomes of bad ones, and what is stored for later runs."""

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from suffuse.errors import DataError, InputError, RowError
from suffuse.tasks import Classification, Task, TokenClassification, Tokens
from suffuse.training import corpus as corpora
from suffuse.training.corpus import Corpus, Split
from suffuse.training.models import load_tokens
from suffuse.training.sources import Checks, Source
from suffuse.training.store import StoredRows

SKIP = Checks(on_bad_row="skip")
WHOLE = Split(0, 0)


@pytest.fixture(scope="module")
def tokens(tiny_model: Path) -> Tokens:
    return load_tokens(str(tiny_model))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write lines to a file and return its path."""

    def to_file(name: str, *lines: str | bytes) -> str:
        (tmp_path / name).write_bytes(b"".join((x.encode() if isinstance(x, str) else x) + b"\n" for x in lines))
        return str(tmp_path / name)

    return to_file


def corpus(
    *train: str | Source,
    validation: str | None = None,
    task: Task | None = None,
    split: Split = WHOLE,
    checks: Checks = SKIP,
    is_streamed: bool = False,
) -> Corpus:
    sources = {
        "train": tuple(source if isinstance(source, Source) else Source(source) for source in train),
        "validation": (Source(validation),) if validation else (),
        "test": (),
    }
    return Corpus(sources, task or Classification(), split, checks, is_streamed=is_streamed)


def texts(rows: StoredRows) -> list[str]:
    return [placed.row["text"] for placed in rows]


def rejects(data: Corpus) -> list[tuple[str, str, str]]:
    """Where, code and message of each row that was left out."""
    if not data.rejects.is_file():
        return []
    lines = [json.loads(line) for line in data.rejects.read_text("utf-8").splitlines()]
    return [(line["where"], line["code"], line["message"]) for line in lines]


NOT_UTF8 = "byte 0xe9 at column 4 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)"
COLUMNS = "3 columns; expected 2 as in the header (text, label); quote cells that hold the separator"
EMPTY = "field 'text' is empty; expected the text to classify"
UNKNOWN = "field 'label' is 'god'; expected one of bad, good (learned in training)"

SEPARATED = [
    ("not_utf8", b"caf\xe9,good", NOT_UTF8),
    ("wrong_columns", b"one,two,good", COLUMNS),
    ("empty_text", b" ,good", EMPTY),
    ("unknown_label", b"fine,god", UNKNOWN),
]
JSON = [
    ("not_utf8", b"caf\xe9", NOT_UTF8),
    ("invalid_json", b"nonsense", "not JSON: Expecting value at column 1; expected one object a line"),
    (
        "missing_field",
        b'{"txt": "fine", "label": "good"}',
        "field 'text' is missing: got 'txt', 'label'; expected the text to classify; did you mean 'text' by 'txt'?",
    ),
    (
        "missing_field",
        b'{"text": "fine"}',
        "field 'label' is missing: got 'text'; expected the label of the row",
    ),
    ("empty_text", b'{"text": "", "label": "good"}', EMPTY),
    ("unknown_label", b'{"text": "fine", "label": "god"}', UNKNOWN),
]
FORMATS: dict[str, tuple[list[str], str, list[tuple[str, bytes, str]]]] = {
    "a.csv": (["text,label"], "{},{}", SEPARATED),
    "a.tsv": (["text\tlabel"], "{}\t{}", [(c, line.replace(b",", b"\t"), m) for c, line, m in SEPARATED]),
    "a.jsonl": ([], '{{"text": "{}", "label": "{}"}}', JSON),
}
BAD = [(name, *case) for name, (_, _, cases) in FORMATS.items() for case in cases]


def with_bad_line(name: str, bad: bytes) -> tuple[list[str | bytes], str]:
    """Lines of a file with good rows one, two and three, a bad line before the last, and the place of it."""
    header, form, _ = FORMATS[name]
    good = [form.format(text, label) for text, label in (("one", "good"), ("two", "bad"), ("three", "good"))]
    lines: list[str | bytes] = [*header, *good[:2], bad, good[2]]
    return lines, f"{name}:{len(lines) - 1}"


@pytest.mark.parametrize(("name", "code", "bad", "message"), BAD)
def test_bad_row_is_left_out_and_listed_where_bad_rows_are_skipped(
    name: str, code: str, bad: bytes, message: str, write: Callable[..., str]
) -> None:
    lines, where = with_bad_line(name, bad)

    data = corpus(write(name, *lines), task=Classification(("bad", "good")))

    assert texts(data.rows("train")) == ["one", "two", "three"]
    assert rejects(data) == [(where, code, message)]


@pytest.mark.parametrize(("name", "code", "bad", "message"), BAD)
def test_bad_row_stops_the_run_and_is_named_where_they_are_not(
    name: str, code: str, bad: bytes, message: str, write: Callable[..., str]
) -> None:
    lines, where = with_bad_line(name, bad)
    data = corpus(write(name, *lines), task=Classification(("bad", "good")), checks=Checks())

    with pytest.raises(RowError) as caught:
        data.rows("train")

    assert (caught.value.code, str(caught.value)) == (code, f"{where}: {message}")


def test_all_bad_rows_of_a_file_are_listed_once_though_it_is_read_for_two_sides(write: Callable[..., str]) -> None:
    path = write("a.csv", "text,label", "a,good", "b", " ,bad", "c,bad", "d,")

    data = corpus(path, validation=path)

    assert texts(data.rows("train")) == texts(data.rows("validation")) == ["a", "c"]
    assert sorted(where for where, _, _ in rejects(data)) == ["a.csv:3", "a.csv:4", "a.csv:6"]


def test_later_run_finds_the_same_rejects(write: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.csv", "text,label", "a,good", "b", "c,bad")
    first = rejects(corpus(path))

    monkeypatch.setattr(Corpus, "_fill", lambda *_: pytest.fail("read again"))

    assert rejects(corpus(path)) == first != []


def test_row_without_the_column_to_group_by_is_left_out_too(write: Callable[..., str]) -> None:
    path = write("a.jsonl", *(json.dumps({"text": x, "label": x, "film": x}) for x in "ab"), '{"text":"c","label":"a"}')

    data = corpus(path, split=Split(0, 0, group_by="film"))

    assert texts(data.rows("train")) == ["a", "b"]
    assert rejects(data) == [("a.jsonl:3", "missing_field", "no column 'film' to group by; got text, label")]


def test_labels_are_learned_also_from_rows_that_are_held_back(write: Callable[..., str]) -> None:
    split = Split(0.5, 0)
    rows = [{"text": str(number), "label": "common"} for number in range(20)]
    held_back = next(
        row
        for row in ({"text": f"rare {number}", "label": "rare"} for number in range(99))
        if split.side("", row) == "validation"
    )
    data = corpus(write("a.jsonl", *map(json.dumps, [*rows, held_back])), split=split)

    assert isinstance(data.task, Classification)
    assert data.task.labels == ("common", "rare")
    assert {placed.row["label"] for placed in data.rows("train")} == {"common"}


def test_unknown_label_of_a_validation_file_is_named(write: Callable[..., str]) -> None:
    train = write("a.csv", "text,label", "a,good", "b,bad")
    validation = write("b.csv", "text,label", "a,good", "b,god")
    data = corpus(train, validation=validation, checks=Checks())

    with pytest.raises(RowError, match=f"^{re.escape(f'b.csv:3: {UNKNOWN}')}$"):
        data.rows("validation")


def test_repeated_rows_are_left_out_before_the_split(write: Callable[..., str]) -> None:
    lines = [f"{number % 10},{'good' if number % 2 else 'bad'},{number}" for number in range(40)]
    path = write("a.csv", "text,label,id", *lines)

    data = corpus(path, split=Split(0.3, 0.3), checks=Checks(unique=("text", "label")))

    assert sorted(text for side in corpora.SIDES for text in texts(data.rows(side))) == list("0123456789")


def test_rows_with_dates_are_split_and_stored(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"], "day": [date(2024, 1, 1), date(2024, 1, 2)]})
    parquet.write_table(table, tmp_path / "a.parquet")

    assert texts(corpus(str(tmp_path / "a.parquet")).rows("train")) == ["a", "b"]


def test_numbers_are_labels_of_parquet_rows(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b"], "label": [1, 0]}), tmp_path / "a.parquet")

    data = corpus(str(tmp_path / "a.parquet"))

    assert [data.task.target(placed.row) for placed in data.rows("train")] == [(1,), (0,)]


def test_skipped_row_costs_the_others_no_field(write: Callable[..., str]) -> None:
    rows: list[dict[str, Any]] = [
        {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]},
        {"tokens": ["Ann", "ran"], "tags": ["B-GOD", "O"]},
        {"text": "Ann ran", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
    ]
    path = write("a.jsonl", *map(json.dumps, rows))

    data = corpus(path, task=TokenClassification(("O", "B-PER", "I-PER")))

    assert [placed.row for placed in data.rows("train")] == [rows[0], rows[2]]
    assert [where for where, _, _ in rejects(data)] == ["a.jsonl:2"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("text,text", "a,b"), "a.csv: the header names the column 'text' twice; expected each name once"),
        ((), "a.csv: the file holds no rows; expected at least one"),
    ],
)
def test_file_that_cannot_be_read_is_named_once(
    lines: tuple[str, ...], message: str, write: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        corpus(write("a.csv", *lines)).rows("train")


def test_rows_that_make_no_task_are_named_by_their_file(write: Callable[..., str]) -> None:
    path = write("a.csv", "text,label", "a,good")
    message = f"{path}: the training rows have 1 different labels in the field 'label' (good); expected at least 2"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        corpus(path).rows("train")


@pytest.mark.parametrize(
    "change",
    [
        {"split": Split(0.1, 0)},
        {"checks": Checks()},
        {"checks": Checks(("text",), "skip")},
        {"task": Classification(("bad", "good"))},
    ],
)
def test_other_settings_prepare_other_rows(change: dict[str, Any], write: Callable[..., str]) -> None:
    path = write("a.csv", "text,label", *(f"{number},{('bad', 'good')[number % 2]}" for number in range(40)))

    assert corpus(path, **change).rejects.parent != corpus(path).rejects.parent


def test_changed_file_is_read_again(write: Callable[..., str]) -> None:
    corpus(write("a.csv", "text,label", "a,good", "b,bad")).rows("train")

    data = corpus(write("a.csv", "text,label", "c,good", "d,bad"))

    assert texts(data.rows("train")) == ["c", "d"]


def test_changed_first_of_two_files_of_one_name_is_read_again(tmp_path: Path, write: Callable[..., str]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    second = write("y/a.csv", "text,label", "b,bad")
    corpus(write("x/a.csv", "text,label", "a,good"), second).rows("train")

    data = corpus(write("x/a.csv", "text,label", "c,good"), second)

    assert texts(data.rows("train")) == ["c", "b"]


def test_remote_file_is_read_by_each_run() -> None:
    system = fsspec.filesystem("memory")
    for text in ("one", "two"):
        system.pipe("/corpus/a.csv", f"text,label\n{text},good\nother,bad\n".encode())

        assert texts(corpus("memory://corpus/a.csv").rows("train")) == [text, "other"]


def test_other_weights_need_no_other_encoding(
    write: Callable[..., str], tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.csv", "text,label", "a,good", "b,bad")
    corpus(Source(path)).encoded("train", tokens)

    monkeypatch.setattr(corpora, "write_windows", lambda *_: pytest.fail("encoded again"))

    data = corpus(Source(path, weight=0.5))
    assert len(data.encoded("train", tokens)) == 2
    assert data.weights == [0.5]


def test_other_tokenizer_or_length_encodes_anew(write: Callable[..., str], tokens: Tokens) -> None:
    path = write("a.csv", "text,label", "a dull film about nothing,good", "b,bad")
    lowered = json.loads(tokens.json)
    lowered["normalizer"] = None
    shorter = Tokens(tokens.json, 4)
    other = Tokens(json.dumps(lowered), tokens.max_tokens)

    data = corpus(path)
    folders = {data.encoded("train", each).windows.__reduce__()[1][0] for each in (tokens, shorter, other)}

    assert len(folders) == 3
    assert max(data.encoded("train", shorter).lengths) == 4


def test_side_without_rows_is_named(write: Callable[..., str], tokens: Tokens) -> None:
    path = write("a.csv", "text,label", "a,good", "b,bad")
    message = (
        f"{path}: no validation rows are left; expected some: "
        "change the shares that data.split holds back, or name a file of its own"
    )

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        corpus(path).encoded("validation", tokens)


def test_streamed_rows_are_not_split() -> None:
    with pytest.raises(DataError) as caught:
        corpus("a.csv", is_streamed=True)

    assert str(caught.value) == "a.csv: streamed rows are not split; expected a file for data.validation"


def test_streamed_rows_are_not_read_before_the_training_where_nothing_is_learned(
    write: Callable[..., str], tokens: Tokens
) -> None:
    train = write("a.jsonl", "nonsense that would stop the reading")
    validation = write("b.csv", "text,label", "a,good")

    data = corpus(train, validation=validation, task=Classification(("bad", "good")), checks=Checks(), is_streamed=True)

    assert len(data.encoded("validation", tokens)) == 1
    assert not data.rows("train")


def test_missing_streamed_file_is_named_before_the_training(write: Callable[..., str], tokens: Tokens) -> None:
    validation = write("b.csv", "text,label", "a,good")
    data = corpus("none.csv", validation=validation, task=Classification(("bad", "good")), is_streamed=True)
    message = "none.csv: no such file or folder; expected an existing one, relative to the current folder"

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        data.encoded("validation", tokens)


def test_labels_of_streamed_rows_are_learned_and_the_rows_not_stored(write: Callable[..., str]) -> None:
    data = corpus(
        write("a.csv", "text,label", "a,good", "b", "c,bad"),
        validation=write("b.csv", "text,label", "a,good"),
        is_streamed=True,
    )

    assert data.task == Classification(("bad", "good"))
    assert not data.rows("train")
    assert [where for where, _, _ in rejects(data)] == ["a.csv:3"]
