"""Examples are rows of the form that the models read."""

import re
from pathlib import Path
from typing import Any

import pytest

from suffuse.errors import InputError
from suffuse.playground.examples import EXAMPLES, fitting, read_examples
from suffuse.playground.models import known_fields


def test_there_are_examples_for_every_form_of_row() -> None:
    for fields in known_fields():
        assert fitting(EXAMPLES, fields), fields


def test_rows_of_a_file_keep_what_a_model_reads(tmp_path: Path, scripted: Any) -> None:  # noqa: ANN401
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a film", "label": "good"}\n{"label": "bad"}\n', "utf-8")
    model = scripted()

    examples = read_examples(str(path), [model])

    assert examples == ({"text": "a film"},)
    assert fitting(examples, model.fields) == [("a film", 0)]


def test_long_examples_are_cut_in_the_list(scripted: Any) -> None:  # noqa: ANN401
    shown, _ = fitting([{"text": "word\n" * 40}], scripted().fields)[0]

    assert len(shown) == 80
    assert shown.endswith("…")


def test_a_file_without_a_field_of_a_model_is_refused(tmp_path: Path, scripted: Any) -> None:  # noqa: ANN401
    path = tmp_path / "rows.jsonl"
    path.write_text('{"label": "bad"}\n', "utf-8")

    with pytest.raises(InputError, match=re.escape(f"{path}: no row has a field that a model reads; expected text")):
        read_examples(str(path), [scripted()])
