"""SQuAD's JSON: questions become rows, and what is not built as SQuAD is named with the path to it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from suffuse.errors import DataError, RowError
from suffuse.rows import PlacedRow, read_rows

ANSWER = {"text": "Paris", "answer_start": 0}
QUESTION = {"id": "q1", "question": "Where?", "answers": [ANSWER, ANSWER]}
CONTEXT = "Paris is large."
FIRST = "data[0].paragraphs[0].qas[0]"


def squad(*questions: object, **paragraph: object) -> dict[str, Any]:
    """A file with one article and one paragraph."""
    return {
        "version": "1.1",
        "data": [{"title": "France", "paragraphs": [{"context": CONTEXT, "qas": [*questions], **paragraph}]}],
    }


def written(folder: Path, content: object) -> Path:
    path = folder / "squad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_each_question_is_a_row_with_its_context_and_all_its_answers(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path, squad(QUESTION))))

    row = {
        "id": "q1",
        "question": "Where?",
        "context": CONTEXT,
        "title": "France",
        "answers": {"text": ["Paris", "Paris"], "answer_start": [0, 0]},
    }
    assert rows == [PlacedRow("squad.json:data[0].paragraphs[0].qas[0]", row)]


def test_places_count_articles_paragraphs_and_questions(tmp_path: Path) -> None:
    one, two = squad(QUESTION)["data"][0], squad(QUESTION, QUESTION)["data"][0]
    two["paragraphs"] = [*one["paragraphs"], *two["paragraphs"]]

    places = [where for where, _ in read_rows(written(tmp_path, {"data": [one, two]}))]

    assert places == [
        "squad.json:data[0].paragraphs[0].qas[0]",
        "squad.json:data[1].paragraphs[0].qas[0]",
        "squad.json:data[1].paragraphs[1].qas[0]",
        "squad.json:data[1].paragraphs[1].qas[1]",
    ]


@pytest.mark.parametrize("answers", [[], [ANSWER]])
def test_an_impossible_question_has_no_answers(tmp_path: Path, answers: list[object]) -> None:
    question = {**QUESTION, "is_impossible": True, "answers": answers, "plausible_answers": [ANSWER]}

    (placed,) = read_rows(written(tmp_path, squad(question)))

    assert placed.row["answers"] == {"text": [], "answer_start": []}


def test_a_question_that_is_possible_by_squad_2_keeps_its_answers(tmp_path: Path) -> None:
    (placed,) = read_rows(written(tmp_path, squad({**QUESTION, "is_impossible": False})))

    assert placed.row["answers"]["text"] == ["Paris", "Paris"]


def test_questions_without_answers_are_read_to_be_answered(tmp_path: Path) -> None:
    (placed,) = read_rows(written(tmp_path, squad({"question": "Where?"})))

    assert dict(placed.row) == {"question": "Where?", "context": CONTEXT, "title": "France"}


def test_a_list_of_objects_is_rows_as_they_are(tmp_path: Path) -> None:
    rows = [{"question": "Where?", "context": CONTEXT}, {"text": "any other row"}]

    assert list(read_rows(written(tmp_path, rows))) == [
        PlacedRow("squad.json:[0]", rows[0]),
        PlacedRow("squad.json:[1]", rows[1]),
    ]


def test_compressed_and_indented_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "squad.json.gz"
    path.write_bytes(gzip.compress(json.dumps(squad(QUESTION), indent=2).encode("utf-8")))

    assert [placed.where for placed in read_rows(path)] == ["squad.json.gz:data[0].paragraphs[0].qas[0]"]


@pytest.mark.parametrize("content", ["", " \n", {"data": []}, []])
def test_a_file_without_questions_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(written(tmp_path, content)))

    assert str(caught.value) == "squad.json: the file holds no rows; expected at least one"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (
            '{"data": [\n  {"title": }]}',
            "invalid_json",
            "squad.json:2: not JSON: Expecting value at column 13; expected SQuAD's object, or a list of rows",
        ),
        (
            {"version": "1.1"},
            "invalid_squad",
            'squad.json: {"version": "1.1"}; expected SQuAD\'s object, which has \'data\', or a list of rows',
        ),
        ("7", "invalid_squad", "squad.json: 7; expected SQuAD's object, which has 'data', or a list of rows"),
        ({"data": 3}, "invalid_squad", "squad.json:data: 3; expected a list here, as in SQuAD"),
        ({"data": ["x"]}, "invalid_squad", 'squad.json:data[0]: "x"; expected an object here, as in SQuAD'),
        (
            {"data": [{"title": "France"}]},
            "invalid_squad",
            'squad.json:data[0]: no \'paragraphs\' in {"title": "France"}; expected it here, as in SQuAD',
        ),
        (
            squad(qas="x" * 50),
            "invalid_squad",
            f'squad.json:data[0].paragraphs[0].qas: "{"x" * 39}…; expected a list here, as in SQuAD',
        ),
        (
            squad(None),
            "invalid_squad",
            "squad.json:data[0].paragraphs[0].qas[0]: null; expected an object here, as in SQuAD",
        ),
        (
            squad({"question": "Where?", "answers": {"text": []}}),
            "invalid_squad",
            'squad.json:data[0].paragraphs[0].qas[0].answers: {"text": []}; expected a list here, as in SQuAD',
        ),
        (
            squad({"question": "Where?", "answers": [{"text": "Paris"}]}),
            "invalid_squad",
            f'squad.json:{FIRST}.answers[0]: no \'answer_start\' in {{"text": "Paris"}}; expected it here, as in SQuAD',
        ),
        (
            {"data": [{"paragraphs": [{"qas": [{}]}]}]},
            "invalid_squad",
            "squad.json:data[0].paragraphs[0]: no 'context' in {\"qas\": [{}]}; expected it here, as in SQuAD",
        ),
        (["x"], "invalid_squad", 'squad.json:[0]: "x"; expected an object, one for each row'),
    ],
)
def test_what_is_not_built_as_squad_is_named(tmp_path: Path, content: object, code: str, message: str) -> None:
    with pytest.raises(RowError) as caught:
        list(read_rows(written(tmp_path, content)))

    assert (caught.value.code, str(caught.value)) == (code, message)


def test_json_nested_too_deep_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"^squad\.json: not JSON: .*recursion.*; expected SQuAD's object, or a list of"):
        list(read_rows(written(tmp_path, "[" * 200_000)))


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_bytes(b'{"data":\n ["\xff"]}')

    with pytest.raises(RowError) as caught:
        list(read_rows(path))

    assert str(caught.value) == (
        "squad.json:2: byte 0xff at column 4 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)"
    )


def test_a_bad_part_leaves_its_neighbours_readable(tmp_path: Path) -> None:
    content = squad(QUESTION, None, QUESTION)
    content["data"].insert(0, {"title": "nothing"})
    told: list[str] = []

    places = [
        where for where, _ in read_rows(written(tmp_path, content), on_bad=lambda error: told.append(error.where))
    ]

    assert places == [f"squad.json:data[1].paragraphs[0].qas[{index}]" for index in (0, 2)]
    assert told == ["squad.json:data[0]", "squad.json:data[1].paragraphs[0].qas[1]"]
