"""A file of rows is answered line for line, and its output is there whole or not at all."""

import json
import re
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from suffuse.errors import DataError, RowError
from suffuse.rows import read_rows
from suffuse.runtime import Predictor, load
from suffuse.runtime import predictor as predictor_module
from suffuse.runtime.files import evaluate_file, predict_file
from suffuse.tasks import Answer, Classification

SUMMARY = re.compile(r"(\d+) rows \((\d+) bad\) in \d+\.\d\d s, \d+ rows/s")


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return load(tiny_bundle, threads=1)


@pytest.fixture
def rows_csv(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nsuperb,good\n,bad\ndull é,bad\n", "utf-8")
    return path


def lines_of(path: Path) -> list[Answer]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_row_has_its_line_and_a_bad_one_its_error_and_place(
    predictor: Predictor, rows_csv: Path, tmp_path: Path
) -> None:
    summary = predict_file(predictor, str(rows_csv), tmp_path / "answers.jsonl")

    first, bad, last = lines_of(tmp_path / "answers.jsonl")
    assert [first, last] == predictor(["superb", "dull é"])
    assert bad == {
        "error": {
            "code": "empty_text",
            "message": "rows.csv:3: field 'text' is empty; expected the text to classify",
            "status": 422,
        }
    }
    match = SUMMARY.fullmatch(summary)
    assert match is not None
    assert match.groups() == ("3", "1")


def test_places_are_right_beyond_the_rows_that_are_answered_at_once(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "STREAM_ROWS", 4)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f'{{"text": "{"" if line % 3 == 0 else "film"}"}}\n' for line in range(1, 31)))

    predict_file(predictor, str(source), tmp_path / "answers.jsonl")

    answers = lines_of(tmp_path / "answers.jsonl")
    places = [answer["error"]["message"].split(": ")[0] for answer in answers if "error" in answer]
    assert len(answers) == 30
    assert places == [f"rows.jsonl:{line}" for line in range(3, 31, 3)]


def test_without_an_output_answers_go_to_stdout(
    predictor: Predictor, rows_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict_file(predictor, str(rows_csv), None)

    written = capsys.readouterr()
    assert [set(json.loads(line)) for line in written.out.splitlines()] == [
        {"label", "score", "scores"},
        {"error"},
        {"label", "score", "scores"},
    ]
    assert written.err == ""


def test_labels_are_written_as_they_are(tmp_path: Path, rows_csv: Path) -> None:
    def stream(rows: Iterable[object]) -> Iterator[Answer]:
        for _ in rows:
            yield {"label": "schön"}

    predict_file(cast("Predictor", SimpleNamespace(stream=stream)), str(rows_csv), tmp_path / "a.jsonl")

    assert (tmp_path / "a.jsonl").read_text("utf-8") == '{"label": "schön"}\n' * 3


def test_a_line_that_is_no_row_stops_with_its_place_and_leaves_the_old_output(
    predictor: Predictor, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    output = tmp_path / "answers.jsonl"
    output.write_text("old")

    with pytest.raises(RowError) as caught:
        predict_file(predictor, str(source), output)

    assert str(caught.value) == (
        "rows.jsonl:2: byte 0xff at column 11 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)"
    )
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "rows.jsonl"]


def test_the_output_is_not_there_before_it_is_whole(tmp_path: Path, rows_csv: Path) -> None:
    output = tmp_path / "new" / "answers.jsonl"
    seen: list[bool] = []

    def stream(rows: Iterable[object]) -> Iterator[Answer]:
        for _ in rows:
            seen.append(output.exists())
            yield {}

    predict_file(cast("Predictor", SimpleNamespace(stream=stream)), str(rows_csv), output)

    assert seen == [False] * 3
    assert [path.name for path in output.parent.iterdir()] == ["answers.jsonl"]


def test_what_is_no_file_is_not_replaced(predictor: Predictor, rows_csv: Path, tmp_path: Path) -> None:
    message = f"{tmp_path}: not a regular file; expected a file to write, or none for stdout"

    with pytest.raises(DataError, match="^" + re.escape(message) + "$"):
        predict_file(predictor, str(rows_csv), tmp_path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    class Echo(Predictor):
        task = Classification(("a",))

        def __init__(self) -> None:
            """Without a bundle."""

        def answers(self, rows: Any) -> list[Answer | RowError]:  # noqa: ANN401
            return [{"label": "a"} for _ in rows]

    def peak(count: int) -> int:
        source = tmp_path / "rows.jsonl"
        source.write_text(f'{{"text": "{"film " * 20}"}}\n' * count)
        tracemalloc.start()
        predict_file(Echo(), str(source), tmp_path / "answers.jsonl")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(8000) < 1.2 * peak(1000)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_sees_how_many_rows_are_done(
    predictor: Predictor,
    rows_csv: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", "xterm")

    predict_file(predictor, str(rows_csv), tmp_path / "answers.jsonl")

    written = capsys.readouterr()
    assert ("3 rows" in written.err) is is_terminal
    assert written.out == ""


def test_a_file_is_measured_like_its_rows(predictor: Predictor, reviews_csv: Path) -> None:
    measured = evaluate_file(predictor, str(reviews_csv), {})

    assert measured == predictor.evaluate(row for _, row in read_rows(reviews_csv))
    assert measured["rows"] == 60


def test_columns_are_named_for_measuring(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    label = predictor("a warm and funny film")["label"]
    path.write_text(f"review,verdict\na warm and funny film,{label}\n")

    assert evaluate_file(predictor, str(path), {"text": "review", "label": "verdict"})["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",good", "rows.csv:3: field 'text' is empty; expected the text to classify"),
        ("fine,god", "rows.csv:3: field 'label' is 'god'; expected one of bad, good (learned in training)"),
        (
            "fine",
            "rows.csv:3: 1 columns; expected 2 as in the header (text, label); quote cells that hold the separator",
        ),
    ],
)
def test_a_row_that_cannot_be_measured_is_named(predictor: Predictor, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\nfine,good\n{line}\n")

    with pytest.raises(RowError, match="^" + re.escape(message) + "$"):
        evaluate_file(predictor, str(path), {})
