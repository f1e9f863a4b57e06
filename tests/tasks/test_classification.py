"""Classification: labels are learned, encoded as targets, and come back as answers and measures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suffuse.errors import DataError, InputError, RowError
from suffuse.tasks import Classification, Level, Loss, Row, Tokens, Window
from suffuse.tasks.classification import _pooled

SINGLE = Classification(("bad", "good"))
MULTI = Classification(("comedy", "crime", "war"), multi_label=True)


@pytest.fixture
def tokens(tiny_model: Path) -> Tokens:
    return Tokens((tiny_model / "tokenizer.json").read_text("utf-8"), max_tokens=8)


def windows_of(count: int) -> list[Window]:
    return [Window(row, {"input_ids": np.array([2, 3])}) for row in range(count)]


def outputs_of(logits: list[list[float]]) -> list[dict[str, np.ndarray]]:
    return [{"logits": np.array(row, dtype=np.float32)} for row in logits]


def test_labels_are_learned_in_order_and_trimmed() -> None:
    rows: list[Row] = [{"label": "good"}, {"label": " bad "}, {"label": "good"}]

    assert Classification().learn(rows).labels == ("bad", "good")


def test_labels_may_be_numbers_or_truths_in_json() -> None:
    assert Classification().learn([{"label": 1}, {"label": 0}, {"label": True}]).labels == ("0", "1", "True")


def test_several_labels_a_row_are_learned_from_lists_and_from_commas() -> None:
    rows: list[Row] = [{"labels": ["war", "crime"]}, {"labels": "comedy, war"}, {"labels": []}, {"labels": ""}]

    assert Classification(multi_label=True).learn(rows).labels == ("comedy", "crime", "war")


def test_labels_that_were_given_stay() -> None:
    assert SINGLE.learn([{"label": "superb"}]) is SINGLE


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        (
            Classification(),
            [{"label": "good"}, {"label": "good"}],
            "the training rows have 1 different labels in the field 'label' (good); expected at least 2",
        ),
        (
            Classification(multi_label=True),
            [{"labels": ""}],
            "the training rows have 0 different labels in the field 'labels'; expected at least 1",
        ),
    ],
)
def test_rows_with_nothing_to_tell_apart_are_refused(task: Classification, rows: list[Row], message: str) -> None:
    with pytest.raises(DataError) as caught:
        task.learn(rows)

    assert str(caught.value) == message


def test_the_head_has_an_output_a_label_and_the_loss_of_the_kind() -> None:
    assert (SINGLE.head.size, SINGLE.head.level, SINGLE.head.loss) == (2, Level.ROW, Loss.SOFTMAX)
    assert (MULTI.head.size, MULTI.head.level, MULTI.head.loss) == (3, Level.ROW, Loss.SIGMOID)


def test_a_row_has_as_many_windows_as_its_text_fills(tokens: Tokens) -> None:
    windows = SINGLE.encode([{"text": "a film"}, {"text": "a film " * 9}, {"text": "a film"}], tokens)

    lengths = [(window.row, len(window), window.truncated) for window in windows]
    assert lengths == [(0, 4, False), (1, 8, False), (1, 8, False), (1, 8, False), (2, 4, False)]


@given(st.lists(st.text(alphabet="af ilm.é", max_size=80), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_windows_of_a_text_are_those_of_the_tokenizer_cut_without_overlap(tokens: Tokens, texts: list[str]) -> None:
    windows = Classification(max_windows=99).encode([{"text": text} for text in texts], tokens)

    expected = [(row, part.ids) for row, parts in enumerate(tokens.windows(texts)) for part in parts]
    assert [(window.row, window.inputs["input_ids"].tolist()) for window in windows] == expected


def test_a_text_beyond_the_most_windows_is_cut_and_all_of_its_windows_say_so(tokens: Tokens) -> None:
    task = Classification(("bad", "good"), max_windows=2)

    windows = task.encode([{"text": "a film " * 6}, {"text": "a film " * 9}], tokens)

    assert [(window.row, window.truncated) for window in windows] == [(0, False), (0, False), (1, True), (1, True)]


def test_a_row_needs_a_window() -> None:
    with pytest.raises(InputError) as caught:
        Classification(max_windows=0)

    assert str(caught.value) == "max_windows is 0; expected at least 1"


def test_a_pair_stays_one_window_that_says_where_it_was_cut(tokens: Tokens) -> None:
    rows = [{"text": "a film", "text_pair": "funny"}, {"text": "a film", "text_pair": "funny " * 9}]

    windows = Classification(pair=True).encode(rows, tokens)

    assert [(window.row, len(window), window.truncated) for window in windows] == [(0, 6, False), (1, 8, True)]


def test_a_pair_is_encoded_as_two_segments(tokens: Tokens) -> None:
    (window,) = Classification(pair=True).encode([{"text": "a film", "text_pair": "funny"}], tokens)

    assert window.inputs["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]


def test_a_target_is_the_index_of_the_label() -> None:
    targets = SINGLE.targets(windows_of(2), [{"label": "good"}, {"label": "bad"}])

    assert [target.item() for target in targets] == [1, 0]
    assert {(str(target.dtype), target.shape) for target in targets} == {("int64", ())}


def test_all_windows_of_a_row_learn_its_label(tokens: Tokens) -> None:
    rows = [{"text": "a film " * 6, "label": "good"}, {"text": "a film", "label": "bad"}]

    targets = SINGLE.targets(SINGLE.encode(rows, tokens), rows)

    assert [target.item() for target in targets] == [1, 1, 0]


def test_labels_that_are_equal_in_python_are_not_taken_for_the_same() -> None:
    task = Classification(("1", "True"))
    rows: list[Row] = [{"label": 1}, {"label": True}, {"label": "1"}, {"label": " 1 "}, {"label": "1"}]

    assert [int(target) for target in task.targets(windows_of(5), rows)] == [0, 1, 0, 0, 0]


def test_a_label_that_is_unknown_is_refused_behind_known_ones() -> None:
    rows: list[Row] = [{"label": "good"}, {"label": "good"}, {"label": "superb"}]

    with pytest.raises(RowError, match=r"^field 'label' is 'superb'; "):
        SINGLE.targets(windows_of(3), rows)


def test_several_labels_are_a_target_of_zeros_and_ones() -> None:
    targets = MULTI.targets(windows_of(2), [{"labels": "war,comedy"}, {"labels": []}])

    assert [target.dtype for target in targets] == [np.float32, np.float32]
    assert [target.tolist() for target in targets] == [[1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("task", "row", "code", "message"),
    [
        (
            SINGLE,
            {"label": "god"},
            "unknown_label",
            "field 'label' is 'god'; expected one of bad, good (learned in training)",
        ),
        (
            SINGLE,
            {"label": "x" * 99},
            "unknown_label",
            f"field 'label' is '{'x' * 40}…'; expected one of bad, good (learned in training)",
        ),
        (
            MULTI,
            {"labels": "war, romance"},
            "unknown_label",
            "field 'labels' is 'romance'; expected some of comedy, crime, war (learned in training)",
        ),
        (
            Classification(tuple("abcdefghijklmno")),
            {"label": "z"},
            "unknown_label",
            f"field 'label' is 'z'; expected one of {', '.join('abcdefghijkl')} and 3 more (learned in training)",
        ),
        (SINGLE, {"label": " "}, "empty_text", "field 'label' is empty; expected the label of the row"),
        (SINGLE, {"label": None}, "invalid_type", "field 'label' holds null; expected the label of the row"),
        (SINGLE, {"label": 0.5}, "invalid_type", "field 'label' holds 0.5; expected the label of the row"),
        (SINGLE, {"label": ["good"]}, "invalid_type", "field 'label' holds a list; expected the label of the row"),
        (
            MULTI,
            {"labels": 3},
            "invalid_type",
            "field 'labels' is 3; expected a list of labels, or a string that separates them by commas",
        ),
        (
            MULTI,
            {"labels": ["war", None]},
            "invalid_type",
            "field 'labels' holds null; expected a list of labels, or a string that separates them by commas",
        ),
        (
            SINGLE,
            {"lable": "good"},
            "missing_field",
            "field 'label' is missing: got 'lable'; expected the label of the row; did you mean 'label' by 'lable'?",
        ),
    ],
)
def test_a_bad_target_is_named_with_what_was_expected(task: Classification, row: Row, code: str, message: str) -> None:
    with pytest.raises(RowError) as caught:
        task.target(row)

    assert (caught.value.code, str(caught.value)) == (code, message)


def test_an_answer_has_the_likeliest_label_and_all_scores() -> None:
    logits = [[0.3, -1.2], [-800.0, 900.0]]

    first, second = SINGLE.decode([], windows_of(2), outputs_of(logits))

    bad, good = torch.tensor(logits[0]).double().softmax(0).tolist()
    assert first == {"label": "bad", "score": round(bad, 6), "scores": {"bad": round(bad, 6), "good": round(good, 6)}}
    assert second == {"label": "good", "score": 1.0, "scores": {"bad": 0.0, "good": 1.0}}


def test_many_classes_are_scored_each() -> None:
    task = Classification(tuple(f"l{number}" for number in range(500)))
    logits = np.random.default_rng(0).normal(size=500).tolist()

    (answer,) = task.decode([], windows_of(1), outputs_of([logits]))

    assert answer["label"] == f"l{int(np.argmax(logits))}"
    assert list(answer["scores"].values()) == pytest.approx(torch.tensor(logits).softmax(0).tolist(), abs=1e-6)


def test_several_labels_are_all_those_from_the_threshold_on() -> None:
    logits = [[4.0, -0.1, 0.0], [-800.0, -5.0, -5.0]]

    first, second = MULTI.decode([], windows_of(2), outputs_of(logits))

    assert first["labels"] == ["comedy", "war"]
    assert list(first["scores"].values()) == pytest.approx(torch.tensor(logits[0]).sigmoid().tolist(), abs=1e-6)
    assert (second["labels"], second["scores"]["comedy"]) == ([], 0.0)


def test_a_higher_threshold_gives_fewer_labels() -> None:
    strict = Classification(MULTI.labels, multi_label=True, threshold=0.9)

    assert strict.decode([], windows_of(1), outputs_of([[4.0, 1.0, 0.0]]))[0]["labels"] == ["comedy"]


@pytest.mark.parametrize("task", [SINGLE, MULTI])
def test_an_answer_says_that_its_text_was_cut(task: Classification) -> None:
    cut = Window(1, {"input_ids": np.array([2])}, truncated=True)

    answers = task.decode([], [*windows_of(1), cut], outputs_of([[0.0] * len(task.labels)] * 2))

    assert [answer.get("truncated") for answer in answers] == [None, True]


@given(
    st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 2**32 - 1)
)
@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("task", [SINGLE, MULTI])
def test_a_row_is_answered_by_the_mean_of_its_windows_weighted_by_their_tokens(
    task: Classification, lengths: list[list[int]], seed: int
) -> None:
    windows = [
        Window(row, {"input_ids": np.zeros(length, dtype=np.int64)}, truncated=len(parts) == 4)
        for row, parts in enumerate(lengths)
        for length in parts
    ]
    logits = np.random.default_rng(seed).normal(scale=3, size=(len(windows), len(task.labels))).astype(np.float32)

    answers = task.decode([], windows, outputs_of(logits.tolist()))

    assert len(answers) == len(lengths)
    for row, (answer, parts) in enumerate(zip(answers, lengths, strict=True)):
        own = [index for index, window in enumerate(windows) if window.row == row]
        mean = torch.tensor(np.average(logits[own].astype(np.float64), axis=0, weights=parts))
        expected = mean.sigmoid() if task.multi_label else mean.softmax(0)
        assert list(answer["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert answer.get("truncated", False) == (len(parts) == 4)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_pooling_leaves_the_logits_of_single_windows_as_they_are(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=9, size=(7, 2)).astype(np.float32)
    windows = [Window(row, {"input_ids": np.zeros(random.integers(1, 999), dtype=np.int64)}) for row in range(7)]

    firsts, pooled = _pooled(windows, [{"logits": row} for row in logits])

    assert firsts == list(range(7))
    assert pooled.tolist() == logits.astype(np.float64).tolist()


def test_nothing_is_decoded_from_nothing() -> None:
    assert SINGLE.decode([], [], []) == []


def test_single_labels_are_measured_by_accuracy_and_f1() -> None:
    answers = [{"label": label} for label in ("good", "good", "bad", "bad")]
    rows = [{"label": label} for label in ("good", "bad", "bad", "bad")]

    measured = SINGLE.metrics(answers, [SINGLE.target(row) for row in rows])

    assert measured == {
        "accuracy": 0.75,
        "f1_macro": pytest.approx((2 / 3 + 4 / 5) / 2),
        "f1_micro": pytest.approx(0.75),
    }
    assert SINGLE.metric in measured


def test_several_labels_are_measured_by_exact_match_and_f1() -> None:
    answers = [{"labels": ["war"]}, {"labels": ["comedy", "war"]}]
    rows: list[Row] = [{"labels": "war"}, {"labels": ["war", "crime"]}]

    assert MULTI.metrics(answers, [MULTI.target(row) for row in rows]) == {
        "exact_match": 0.5,
        "f1_macro": pytest.approx(1 / 3),
        "f1_micro": pytest.approx(2 / 3),
    }
