"""Question answering: answers are word for word of the context, whatever the text, the tokenizer and the windows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from suffuse.errors import DataError
from suffuse.tasks import QuestionAnswering, Row, Tokens, Window, task_from_dict, task_to_dict

TASK = QuestionAnswering()
CONTEXT = "the cast is superb and the story moves"
ROW: Row = {
    "question": "what is superb",
    "context": CONTEXT,
    "answers": {"text": ["the cast"], "answer_start": [0]},
}
EMPTY: dict[str, list[Any]] = {"text": [], "answer_start": []}

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60).filter(
    str.strip
)


def byte_tokenizer() -> str:
    """A token a byte, so that characters have several; spaces before a word are part of its offsets, as in GPT-2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), False, False)
    return str(tokenizer.to_str())


def word_tokenizer() -> str:
    """Words with the space before them as one token, and any other character alone, as in sentencepiece."""
    words = ["▁the", "▁cast", "▁is", "▁superb", "▁and", "▁story", "▁moves", "▁what"]
    vocabulary = [
        ("<unk>", 0.0),
        *((word, -1.0) for word in words),
        ("▁", -2.0),
        *((letter, -3.0) for letter in "aeio"),
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return str(tokenizer.to_str())


@pytest.fixture(scope="module")
def pieces(tiny_model: Path) -> str:
    return (tiny_model / "tokenizer.json").read_text("utf-8")


@pytest.fixture(scope="module")
def tokens(pieces: str) -> Tokens:
    return Tokens(pieces, max_tokens=64)


@pytest.fixture(scope="module", params=["pieces", "bytes", "words"])
def json_text(request: pytest.FixtureRequest, pieces: str) -> str:
    return {"pieces": pieces, "bytes": byte_tokenizer(), "words": word_tokenizer()}[request.param]


def by_token(windows: Sequence[Window], seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Logits that depend on the token alone, so that a span scores alike in all windows that hold it."""
    logits_v2 = np.random.default_rng(seed).normal(size=(1000, 2)).astype(np.float32)
    return [{"logits": logits_v2[window.inputs["input_ids"] % 1000]} for window in windows]


def spans_of(window: Window) -> NDArray[np.int64]:
    assert window.spans is not None
    return window.spans


def pointing(windows: Sequence[Window], targets: Sequence[NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Logits of a network that has learned the targets."""
    outputs = []
    for window, (start, end) in zip(windows, targets, strict=True):
        logits_n2 = np.zeros((len(window), 2), dtype=np.float32)
        logits_n2[start, 0] = logits_n2[end, 1] = 9.0
        outputs.append({"logits": logits_n2})
    return outputs


# Windows


def test_a_window_is_the_question_and_then_the_context_with_its_places(tokens: Tokens) -> None:
    (window,) = TASK.encode([ROW], tokens)

    is_context = spans_of(window)[:, 0] >= 0
    shown = [CONTEXT[start:end] for start, end in spans_of(window)[is_context]]
    assert "".join(shown) == CONTEXT.replace(" ", "")
    assert is_context.tolist() == [*(window.inputs["token_type_ids"] == 1)[:-1].tolist(), False]
    assert not window.truncated


@pytest.mark.parametrize(("overlap", "shared"), [(0, 0), (4, 4), (128, 11)])
def test_windows_of_a_long_context_share_as_many_tokens_as_was_asked_and_there_is_room_for(
    pieces: str, overlap: int, shared: int
) -> None:
    tokens = Tokens(pieces, max_tokens=51)  # room for 48, of which the longest question leaves 24

    first, second, *_ = QuestionAnswering(overlap, max_windows=10_000).encode(
        [{**ROW, "context": "film " * 90}], tokens
    )

    starts = [{int(start) for start in spans_of(window)[:, 0]} - {-1} for window in (first, second)]
    assert (len(first), len(starts[0] & starts[1])) == (51, shared)


@settings(deadline=None, max_examples=60)
@given(TEXTS, TEXTS, st.integers(12, 40), st.integers(0, 50))
@example("\u00ad", "\u00ad", 12, 0)
def test_all_of_a_context_is_in_some_window_and_none_is_too_long(
    json_text: str, question: str, context: str, limit: int, overlap: int
) -> None:
    windows = QuestionAnswering(overlap, max_windows=10_000).encode(
        [{"question": question, "context": context}], Tokens(json_text, max_tokens=limit)
    )

    seen = {place for window in windows for start, end in spans_of(window) for place in range(start, end)}
    assert max(map(len, windows)) <= limit
    if "ByteLevel" in json_text:  # other tokenizers drop what they do not know
        assert seen >= {place for place, letter in enumerate(context) if not letter.isspace()}
    assert seen <= {*range(-1, len(context))}


def test_a_question_that_fills_more_than_half_of_the_model_is_cut_and_the_answer_says_so(tokens: Tokens) -> None:
    rows = [{**ROW, "question": "film " * 200}, ROW]

    windows = TASK.encode(rows, tokens)
    answers = TASK.decode(rows, windows, by_token(windows))

    questions = [int((window.inputs["token_type_ids"] == 0).sum()) - 2 for window in windows]
    assert max(questions) == (64 - 3) // 2
    assert [answer.get("truncated") for answer in answers] == [True, None]


def test_a_context_of_too_many_windows_is_cut_and_the_answer_says_so(tokens: Tokens) -> None:
    task = QuestionAnswering(max_windows=2)
    rows = [{**ROW, "context": "film " * 500}, ROW]

    windows = task.encode(rows, tokens)
    answers = task.decode(rows, windows, by_token(windows))

    assert [window.row for window in windows[:3]] == [0, 0, 1]
    assert [answer.get("truncated") for answer in answers] == [True, None]


def test_a_question_whose_cut_changes_its_tokens_is_cut_until_it_fits() -> None:
    windows = TASK.encode([{**ROW, "question": "😀" * 30}], Tokens(byte_tokenizer(), max_tokens=16))

    assert {len(window) for window in windows[:-1]} == {16}
    assert windows[0].truncated


def test_a_context_without_a_token_is_one_window_and_has_no_answer(tokens: Tokens) -> None:
    row = {**ROW, "context": "\u00ad"}

    windows = TASK.encode([row], tokens)

    assert TASK.decode([row], windows, by_token(windows)) == [{"answer": "", "start": 0, "end": 0, "score": 1.0}]


def test_nothing_is_made_of_no_rows(tokens: Tokens) -> None:
    assert (TASK.encode([], tokens), TASK.decode([], [], [])) == ([], [])


# Targets


def test_a_target_is_the_first_and_the_last_token_of_the_answer(tokens: Tokens) -> None:
    windows = TASK.encode([ROW], tokens)

    (target,) = TASK.targets(windows, [ROW])

    spans_n2 = spans_of(windows[0])
    assert (str(target.dtype), target.shape) == ("int64", (2,))
    assert [spans_n2[target[0], 0], spans_n2[target[1], 1]] == [0, len("the cast")]


def test_a_part_of_a_token_is_answered_by_the_whole_token(tokens: Tokens) -> None:
    row = {**ROW, "answers": {"text": ["e cas"], "answer_start": [2]}}
    windows = TASK.encode([row], tokens)

    (answer,) = TASK.decode([row], windows, pointing(windows, TASK.targets(windows, [row])))

    assert answer["answer"] == "the cast"


def test_an_answer_may_begin_and_end_with_characters_that_the_tokenizer_drops(tokens: Tokens) -> None:
    row = {**ROW, "context": "\u00adthe cast\u00ad", "answers": {"text": ["\u00adthe cast\u00ad"], "answer_start": [0]}}
    windows = TASK.encode([row], tokens)

    (answer,) = TASK.decode([row], windows, pointing(windows, TASK.targets(windows, [row])))

    assert answer["answer"] == "the cast"


def test_a_window_without_the_whole_answer_points_at_its_first_position(pieces: str) -> None:
    context = "film " * 60 + CONTEXT + " film" * 60
    row = {**ROW, "context": context, "answers": {"text": ["the cast"], "answer_start": [300]}}
    windows = TASK.encode([row], Tokens(pieces, max_tokens=40))

    targets = TASK.targets(windows, [row])

    for window, target in zip(windows, targets, strict=True):
        starts, ends = (set(places.tolist()) for places in spans_of(window).T)
        is_whole = {300, 304} <= starts and max(ends) >= 308
        assert (target.sum() > 0) == is_whole
    assert len(windows) > 3
    assert any(target.sum() for target in targets)


def test_of_several_answers_the_first_that_is_in_the_window_counts(pieces: str) -> None:
    context = f"{CONTEXT} {'film ' * 60}the cast"
    answers = {"text": ["the cast", "the cast"], "answer_start": [len(context) - 8, 0]}
    row = {**ROW, "context": context, "answers": answers}
    windows = TASK.encode([row], Tokens(pieces, max_tokens=40))

    targets = TASK.targets(windows, [row])

    places = [int(spans_of(window)[target[0], 0]) for window, target in zip(windows, targets, strict=True)]
    assert (places[0], places[-1], {*places[1:-1]}) == (0, len(context) - 8, {-1})


def test_answers_are_taken_as_a_list_of_objects_too(tokens: Tokens) -> None:
    row = {**ROW, "answers": [{"text": "superb", "answer_start": 12}]}

    assert TASK.target(row) == ("superb",)


def test_a_row_without_answers_has_the_target_of_none(tokens: Tokens) -> None:
    row = {**ROW, "answers": EMPTY}

    assert [target.tolist() for target in TASK.targets(TASK.encode([row], tokens), [row])] == [[0, 0]]
    assert TASK.target(row) == ()


@settings(deadline=None, max_examples=60)
@given(st.data(), TEXTS, st.integers(24, 200))
def test_an_answer_comes_back_from_its_targets(data: st.DataObject, context: str, limit: int) -> None:
    task = QuestionAnswering(max_answer_tokens=1000)
    start = data.draw(st.integers(0, len(context) - 1))
    text = context[start : data.draw(st.integers(start + 1, min(start + 2, len(context))))]
    if not text.strip():
        return
    row = {"question": "?", "context": context, "answers": {"text": [text], "answer_start": [start]}}
    windows = task.encode([row], Tokens(byte_tokenizer(), max_tokens=limit))

    targets = task.targets(windows, [row])
    (answer,) = task.decode([row], windows, pointing(windows, targets))

    if any(target.sum() for target in targets):
        assert answer["answer"] == text.strip()
    else:  # a border goes through it: it has more tokens than windows share
        assert len(text.encode()) > (limit - 4 - (limit - 4) // 2 - 1) // 2


# Answers


@settings(deadline=None, max_examples=100)
@given(TEXTS, TEXTS, st.integers(12, 60), st.integers(1, 5), st.integers(0, 9))
def test_answers_are_word_for_word_of_the_context_sorted_and_distinct(
    json_text: str, question: str, context: str, limit: int, n_best: int, seed: int
) -> None:
    task = QuestionAnswering(n_best=n_best)
    row = {"question": question, "context": context}
    windows = task.encode([row], Tokens(json_text, max_tokens=limit))

    (answer,) = task.decode([row], windows, by_token(windows, seed))

    listed = [answer, *answer.get("alternatives", [])]
    places = [(one["start"], one["end"]) for one in listed]
    scores = [one["score"] for one in listed]
    assert [one["answer"] for one in listed] == [context[start:end] for start, end in places]
    assert [one["answer"].strip() for one in listed] == [one["answer"] for one in listed]
    assert places == [(0, 0)] or all(0 <= start < end <= len(context) for start, end in places)
    assert len({*places}) == len(places) <= n_best
    assert scores == sorted(scores, reverse=True)
    assert 0 <= sum(scores) <= 1 + 1e-5
    assert json.loads(json.dumps(answer)) == answer


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(CONTEXT.split()), min_size=1, max_size=60).map(" ".join),
    st.integers(16, 64),
    st.integers(3, 64),
    st.integers(0, 9),
)
def test_a_short_answer_is_the_same_however_a_long_context_is_cut(
    pieces: str, context: str, limit: int, overlap: int, seed: int
) -> None:
    task = QuestionAnswering(overlap, max_answer_tokens=4)  # no longer than what windows share, and one more
    row = {"question": "what is superb", "context": context}

    def answers(tokens: Tokens) -> dict[str, Any]:
        windows = task.encode([row], tokens)
        (answer,) = task.decode([row], windows, by_token(windows, seed))
        return answer

    in_windows, in_one = answers(Tokens(pieces, limit)), answers(Tokens(pieces, 2000))

    assert [in_windows[name] for name in ("start", "end")] == [in_one[name] for name in ("start", "end")]


# What is learned and measured


@pytest.mark.parametrize(
    ("answers", "no_answer"), [([ROW["answers"]], False), ([ROW["answers"], EMPTY], True), ([[], ROW["answers"]], True)]
)
def test_no_answer_is_learned_from_rows_that_have_none(answers: list[object], no_answer: bool) -> None:
    assert TASK.learn([{**ROW, "answers": one} for one in answers]) == QuestionAnswering(no_answer=no_answer)


def test_rows_that_all_have_no_answer_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        TASK.learn([{**ROW, "answers": EMPTY}])

    assert str(caught.value) == "no training row has an answer in the field 'answers'; expected some"


def test_answers_are_measured_by_exact_match_and_f1() -> None:
    answers = [{"answer": text} for text in ("The cast", "a superb cast", "", "story")]

    measured = TASK.metrics(answers, [("cast", "story"), ("the cast",), (), ()])

    assert measured == {"exact_match": 0.5, "f1": pytest.approx((1 + 2 / 3 + 1 + 0) / 4)}
    assert TASK.metric in measured


def test_the_task_is_its_json_again() -> None:
    task = QuestionAnswering(64, 10, 3, no_answer=True, no_answer_threshold=-1.25)

    assert task_from_dict(json.loads(json.dumps(task_to_dict(task)))) == task
