"""Answers are those of each row alone, in the order asked, however they were batched."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import DataError, InputError, RowError
from suffuse.runtime import Predictor, load
from suffuse.runtime import predictor as predictor_module
from suffuse.tasks import Answer, Row

WORDS = st.sampled_from(["funny", "film", "dull", "superb", "the", "cast", "tired", "9", "?", "電影"])
TEXTS = st.lists(WORDS, min_size=1, max_size=80).map(" ".join)
EMPTY = "field 'text' is empty; expected the text to classify"


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return load(tiny_bundle, threads=1)


@pytest.fixture
def batches(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the batches that the session is asked to compute."""
    shapes: list[tuple[int, ...]] = []
    run = predictor._session.run

    def spy(graph: str, inputs: Any) -> Any:  # noqa: ANN401
        shapes.append(inputs["input_ids"].shape)
        return run(graph, inputs)

    monkeypatch.setattr(predictor._session, "run", spy)
    return shapes


def assert_alike(answers: Sequence[Answer], expected: Sequence[Answer]) -> None:
    assert len(answers) == len(expected)
    for one, other in zip(answers, expected, strict=True):
        assert one.get("truncated") == other.get("truncated")
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
        assert one["score"] == one["scores"][one["label"]] == max(one["scores"].values())


def test_it_tells_the_labels_it_has_learned_apart(predictor: Predictor) -> None:
    answers = predictor(["a warm and funny film about friends 3", "a dull and tired film about nothing 3"])

    assert [answer["label"] for answer in answers] == ["good", "bad"]


@given(st.lists(TEXTS, min_size=1, max_size=24))
@settings(deadline=None, max_examples=25)
def test_many_rows_are_answered_as_each_alone(predictor: Predictor, texts: list[str]) -> None:
    assert_alike(predictor(texts), [predictor(text) for text in texts])


@given(st.lists(TEXTS, min_size=2, max_size=24), st.permutations(range(24)))
@settings(deadline=None, max_examples=15)
def test_the_order_of_rows_changes_only_the_order_of_answers(
    predictor: Predictor, texts: list[str], shuffled: list[int]
) -> None:
    order = [index for index in shuffled if index < len(texts)]

    answers = predictor([texts[index] for index in order])

    straight = predictor(texts)
    assert_alike(answers, [straight[index] for index in order])


def test_micro_batches_keep_their_budget_and_hold_every_row(
    predictor: Predictor, batches: list[tuple[int, ...]]
) -> None:
    predictor(["funny " * (1 + number % 60) for number in range(200)])

    assert len(batches) > 1
    assert max(rows * longest for rows, longest in batches) <= predictor_module.MICRO_BATCH_TOKENS
    assert sum(rows for rows, _ in batches) == 200


def test_a_short_row_is_not_padded_to_the_longest(predictor: Predictor, batches: list[tuple[int, ...]]) -> None:
    predictor(["film"] * 20 + ["film " * 60] * 8)

    assert sum(rows * longest for rows, longest in batches) == 20 * 3 + 8 * 62


def test_only_a_text_beyond_the_limit_is_said_to_be_cut(predictor: Predictor) -> None:
    whole, cut = predictor(["film " * 62 * 16, "film " * (62 * 16 + 1)])

    assert "truncated" not in whole
    assert cut["truncated"] is True


def test_no_rows_get_no_answers(predictor: Predictor, batches: list[tuple[int, ...]]) -> None:
    assert predictor([]) == []
    assert batches == []


def test_a_single_row_is_a_text_or_an_object(predictor: Predictor) -> None:
    assert predictor("a funny film") == predictor({"text": "a funny film"})
    assert set(predictor("a funny film")) == {"label", "score", "scores"}


def test_a_single_bad_row_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(RowError, match="^" + re.escape(EMPTY) + "$"):
        predictor(" ")


def test_bad_row_leaves_its_neighbours_answered(predictor: Predictor) -> None:
    rows: list[str | Row] = ["", "funny", {"txt": "x"}, "dull"]

    answers = predictor(rows)

    assert answers[0] == {"error": {"code": "empty_text", "message": EMPTY, "status": 422}}
    assert answers[2]["error"]["code"] == "missing_field"
    assert_alike([answers[1], answers[3]], predictor(["funny", "dull"]))


def test_bad_rows_alone_compute_nothing(predictor: Predictor, batches: list[tuple[int, ...]]) -> None:
    assert [isinstance(answer, RowError) for answer in predictor.answers(["", None])] == [True, True]
    assert batches == []


def test_a_stream_reads_no_more_rows_than_it_answers_at_once(predictor: Predictor) -> None:
    taken = 0

    def rows() -> Iterator[str]:
        nonlocal taken
        for taken in range(1, 5001):
            yield "film" if taken % 1000 else ""

    stream = predictor.stream(rows())
    assert taken == 0
    next(stream)
    assert taken == predictor_module.STREAM_ROWS

    answers = [*stream]
    assert (taken, len(answers)) == (5000, 4999)
    assert [index + 2 for index, answer in enumerate(answers) if isinstance(answer, RowError)] == [
        1000, 2000, 3000, 4000, 5000,
    ]  # fmt: skip


def test_measures_are_those_of_its_answers(predictor: Predictor) -> None:
    texts = ["a warm and funny film", "tired, clumsy and boring", "wooden cast", "superb cast"] * 200
    rows = [{"text": text, "label": ("good", "bad")[index % 3 > 0]} for index, text in enumerate(texts)]

    measured = predictor.evaluate(iter(rows))

    right = np.mean([answer["label"] == row["label"] for answer, row in zip(predictor(texts), rows, strict=True)])
    assert measured["rows"] == 800
    assert measured["accuracy"] == pytest.approx(right)
    assert set(measured) == {"accuracy", "f1_macro", "f1_micro", "rows"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "", "label": "good"}, EMPTY),
        ({"text": "x", "label": "god"}, "field 'label' is 'god'; expected one of bad, good (learned in training)"),
        ({"text": "x"}, "field 'label' is missing: got 'text'; expected the label of the row"),
    ],
)
def test_a_row_that_cannot_be_measured_is_an_error(predictor: Predictor, row: Row, message: str) -> None:
    with pytest.raises(RowError, match="^" + re.escape(message) + "$"):
        predictor.evaluate([{"text": "x", "label": "good"}, row])


def test_nothing_is_measured_on_no_rows(predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"^no rows to measure; expected at least one$"):
        predictor.evaluate([])


@pytest.mark.parametrize(("set_before", "expected"), [(None, "3"), ("1", "1")])
def test_the_tokenizer_takes_no_more_threads_unless_told(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, set_before: str | None, expected: str
) -> None:
    monkeypatch.setenv("RAYON_NUM_THREADS", "0")  # so that it is restored
    monkeypatch.delenv("RAYON_NUM_THREADS")
    if set_before:
        monkeypatch.setenv("RAYON_NUM_THREADS", set_before)

    load(tiny_bundle, threads=3)

    assert os.environ["RAYON_NUM_THREADS"] == expected


def test_a_predictor_says_why(explainable_bundle: Path) -> None:
    model = load(explainable_bundle)

    explanation = model.explain("a warm and funny film", target="bad", method="integrated", steps=8)

    assert explanation.answer == model("a warm and funny film")
    assert explanation.method == "integrated"
    assert [part.target for part in explanation.explained] == ["bad"]


def test_steps_are_for_methods_that_take_some(explainable_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"^method gradient has no setting 'steps'; expected none$"):
        load(explainable_bundle).explain("a film", method="gradient", steps=3)
