"""Token classification: words get tags and give entities, however a tokenizer cuts them and however long the text."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score  # type: ignore[import-untyped]
from seqeval.scheme import IOB2, IOBES  # type: ignore[import-untyped]
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from suffuse.tasks import Arrays, Level, Loss, Row, TokenClassification, Tokens, Window
from suffuse.tasks.tags import complete, entities

BIO = TokenClassification(complete(["B-LOC", "B-PER"]), max_windows=100_000)
BIOES = TokenClassification(complete(["S-LOC", "S-PER"]), max_windows=100_000)
UNLABELLED = -100

# What tokenizers and Python count apart, beside arbitrary text.
HARD = [
    "Ann",
    "Bonn,",
    "U.N.",
    "naïve",
    "cafe\u0301",
    "東京",
    "👩‍👩‍👧",
    "مرحبا",
    "\u200b",
    "\x01",
    "x" * 30,
    "[SEP]",
    "ﬁ",
    "İ",
    "ที่นี่",
    "...",
]
TEXT = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
    | st.lists(st.sampled_from(HARD), min_size=1, max_size=20).map(" ".join)
    | st.lists(st.sampled_from(HARD), min_size=1, max_size=8).map("".join)
).filter(lambda text: bool(text.strip()))


@pytest.fixture(scope="module")
def wordpiece() -> str:
    """A tokenizer as BERT's, which drops accents and control characters; ``[UNK]`` is all that it makes of CJK."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [*"abcdefghijklmnopqrstuvwxyz(),."]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, initial_alphabet=letters, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(["Ann in Bonn (New York)", " ".join(letters)] * 9, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str())


@pytest.fixture(scope="module")
def byte_level() -> str:
    """A tokenizer as GPT-2's: tokens begin with the space before a word, and may hold several characters of CJK."""
    return byte_level_json(trims_offsets=False)


@pytest.fixture(scope="module", params=["wordpiece", "byte_level", "byte_level_trimmed"])
def tokenizer(request: pytest.FixtureRequest, wordpiece: str, byte_level: str) -> str:
    if request.param == "byte_level_trimmed":
        return byte_level_json(trims_offsets=True)
    return wordpiece if request.param == "wordpiece" else byte_level


def byte_level_json(*, trims_offsets: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["Ann and Bob in Bonn, in 東京 and 東京 in 東京"] * 9, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trims_offsets)
    return str(tokenizer.to_str())


@dataclass(frozen=True)
class FakeNetwork:
    """Logits that depend on the token alone, so that where a window begins changes nothing."""

    size: int
    seed: int = 0

    def __call__(self, window: Window) -> Arrays:
        ids = window.inputs["input_ids"]
        random_c = [np.random.default_rng((self.seed, int(token))).normal(size=self.size) for token in ids]
        return {"logits": np.array(random_c, dtype=np.float32).reshape(len(ids), self.size)}


def answered(task: TokenClassification, rows: list[Row], tokens: Tokens, seed: int = 0) -> list[Any]:
    windows = task.encode(rows, tokens)
    network = FakeNetwork(len(task.tags), seed)
    return [answer["entities"] for answer in task.decode(rows, windows, [network(window) for window in windows])]


def perfect(task: TokenClassification, windows: list[Window], targets: list[NDArray[Any]]) -> list[Arrays]:
    """Outputs of a network that has learned `targets`, and guesses tags where it has none."""
    outputs: list[Arrays] = []
    for window, target in zip(windows, targets, strict=True):
        logits_nc = np.random.default_rng(len(window)).normal(size=(len(window), len(task.tags)))
        logits_nc[target != UNLABELLED] = 20 * np.eye(len(task.tags))[target[target != UNLABELLED]]
        outputs.append({"logits": logits_nc.astype(np.float32)})
    return outputs


def test_the_head_has_an_output_a_tag_for_each_token() -> None:
    assert (BIO.head.size, BIO.head.level, BIO.head.loss) == (5, Level.TOKEN, Loss.SOFTMAX)
    assert BIO.head.names == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")


def test_columns_are_all_that_a_row_may_hold() -> None:
    assert BIO.columns == ("text", "tokens", "tags", "entities")


def test_a_window_says_where_its_tokens_stand(wordpiece: str) -> None:
    (window,) = BIO.encode([{"text": "In Bonn"}], Tokens(wordpiece, 16))

    assert window.spans is not None
    assert window.spans.tolist() == [[-1, -1], [0, 2], [3, 7], [-1, -1]]


def test_the_first_token_of_a_word_bears_its_tag_and_the_others_none(wordpiece: str) -> None:
    row = {"tokens": ["Yonnrk", "in", "Bonn"], "tags": ["B-PER", "O", "B-LOC"]}
    windows = BIO.encode([row], Tokens(wordpiece, 16))

    (target,) = BIO.targets(windows, [row])

    assert target.dtype == np.int64
    continued = len(windows[0]) - 5
    assert continued > 0
    assert target.tolist() == [-100, 2, *[-100] * continued, 0, 1, -100]


def test_a_word_bears_its_tag_in_every_window_that_shows_its_first_token(wordpiece: str) -> None:
    row = {"tokens": ["in"] * 5 + ["Bonn"] + ["in"] * 5, "tags": ["O"] * 5 + ["B-LOC"] + ["O"] * 5}
    windows = BIO.encode([row], Tokens(wordpiece, 8))

    targets = BIO.targets(windows, [row])

    assert [target.tolist() for target in targets[:2]] == [
        [-100, 0, 0, 0, 0, 0, 1, -100],
        [-100, 0, 1, 0, 0, 0, 0, -100],
    ]


def test_words_in_one_token_are_one(byte_level: str) -> None:
    row = {"text": "in 東京", "entities": [{"start": 3, "end": 5, "label": "LOC"}]}
    windows = BIOES.encode([row], Tokens(byte_level, 16))
    targets = BIOES.targets(windows, [row])

    (answer,) = BIOES.decode([row], windows, perfect(BIOES, windows, targets))

    assert [BIOES.tags[index] for index in targets[0] if index != UNLABELLED] == ["O", "S-LOC"]
    assert [(entity["text"], entity["start"]) for entity in answer["entities"]] == [("東京", 3)]


def test_a_window_without_a_word_has_a_loss_all_the_same(wordpiece: str) -> None:
    row: Row = {"text": "\u200d\x01", "entities": []}

    (target,) = BIO.targets(BIO.encode([row], Tokens(wordpiece, 8)), [row])

    assert target.tolist() == [0, -100]


def test_an_answer_names_the_entity_its_place_and_the_mean_probability(wordpiece: str) -> None:
    row: Row = {"text": "(New York)"}
    windows = BIO.encode([row], Tokens(wordpiece, 16))
    logits_nc = np.zeros((6, 5), dtype=np.float32)
    logits_nc[[1, 4], 0] = 9  # brackets are outside
    logits_nc[2, 1], logits_nc[3, 3] = 3, 1

    (answer,) = BIO.decode([row], windows, [{"logits": logits_nc}])

    probabilities = [np.exp(value) / (np.exp(value) + 4) for value in (3, 1)]
    assert answer == {
        "entities": [
            {"text": "New York", "label": "LOC", "start": 1, "end": 9, "score": round(float(np.mean(probabilities)), 6)}
        ]
    }


def test_padded_outputs_are_read_as_far_as_the_window_goes(wordpiece: str) -> None:
    row: Row = {"text": "Bonn"}
    windows = BIO.encode([row], Tokens(wordpiece, 16))
    logits_nc = np.zeros((9, 5), dtype=np.float32)
    logits_nc[1, 1] = 5
    logits_nc[3:, 2] = 50

    (answer,) = BIO.decode([row], windows, [{"logits": logits_nc}])

    assert [entity["label"] for entity in answer["entities"]] == ["LOC"]


def test_an_illegal_order_of_likeliest_tags_gives_the_best_legal_one(wordpiece: str) -> None:
    row: Row = {"text": "Ann Bonn"}
    windows = BIO.encode([row], Tokens(wordpiece, 16))
    logits_nc = np.full((4, 5), -9, dtype=np.float32)
    logits_nc[1, [0, 1]] = 2, 1  # O, then B-LOC
    logits_nc[2, [3, 0]] = 5, 1  # I-LOC, then O

    (answer,) = BIO.decode([row], windows, [{"logits": logits_nc}])

    assert [(entity["text"], entity["label"]) for entity in answer["entities"]] == [("Ann Bonn", "LOC")]


def test_nothing_is_decoded_from_nothing() -> None:
    assert BIO.decode([], [], []) == []


@given(text=TEXT, limit=st.sampled_from([6, 64]), task=st.sampled_from([BIO, BIOES]), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=100)
def test_an_entity_is_the_text_between_its_start_and_end(
    tokenizer: str, text: str, limit: int, task: TokenClassification, seed: int
) -> None:
    (found,) = answered(task, [{"text": text}], Tokens(tokenizer, limit), seed)

    assert [entity["text"] for entity in found] == [text[entity["start"] : entity["end"]] for entity in found]
    assert all(entity["text"] == entity["text"].strip() for entity in found)
    assert all(before["end"] <= after["start"] for before, after in pairwise(found))


@given(texts=st.lists(TEXT, min_size=1, max_size=3), limit=st.integers(5, 20), overlap=st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_a_long_text_is_answered_as_if_it_were_read_at_once(
    tokenizer: str, texts: list[str], limit: int, overlap: int
) -> None:
    rows: list[Row] = [{"text": " ".join([text] * 3)} for text in texts]
    task = TokenClassification(BIO.tags, overlap=overlap, max_windows=100_000)

    assert answered(task, rows, Tokens(tokenizer, limit)) == answered(task, rows, Tokens(tokenizer, 100_000))


def test_a_word_is_judged_by_the_window_that_shows_most_around_it(wordpiece: str) -> None:
    row: Row = {"text": "a b c d e f g h i"}
    windows = BIO.encode([row], Tokens(wordpiece, 8))  # a b c d e f, e f g h i
    first, second = (np.tile(np.eye(5, dtype=np.float32)[tag] * 9, (8, 1)) for tag in (1, 2))

    (answer,) = BIO.decode([row], windows, [{"logits": first}, {"logits": second}])

    assert [entity["label"] for entity in answer["entities"]] == ["LOC"] * 5 + ["PER"] * 4


@given(data=st.data(), task=st.sampled_from([BIO, BIOES]), limit=st.sampled_from([6, 9, 64]))
@settings(deadline=None, max_examples=100)
def test_what_was_learned_whole_is_answered_whole(
    wordpiece: str, data: st.DataObject, task: TokenClassification, limit: int
) -> None:
    tags = data.draw(st.integers(1, 12).flatmap(lambda size: legal_tags(task, size)))
    words = data.draw(
        st.lists(st.sampled_from(["Ann", "naïve", "Bonn", "U.N.", "x" * 30]), min_size=len(tags), max_size=len(tags))
    )
    row = {"tokens": words, "tags": tags}
    windows = task.encode([row], Tokens(wordpiece, limit))

    answers = task.decode([row], windows, perfect(task, windows, task.targets(windows, [row])))

    assert task.metrics(answers, [task.target(row)])["f1"] == (1.0 if entities(tags) else 0.0)


@st.composite
def legal_tags(draw: st.DrawFn, task: TokenClassification, size: int) -> list[str]:
    """Entities and words outside of any, in turn."""
    tags: list[str] = []
    while left := size - len(tags):
        label = draw(st.sampled_from(["LOC", "PER", None]))
        length = draw(st.integers(1, left)) if label else 1
        if label is None:
            tags.append("O")
        elif task is BIO:
            tags += [f"B-{label}", *[f"I-{label}"] * (length - 1)]
        else:
            tags += [f"S-{label}"] if length == 1 else [f"B-{label}", *[f"I-{label}"] * (length - 2), f"E-{label}"]
    return tags


@given(data=st.data(), task=st.sampled_from([BIO, BIOES]), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_metrics_are_the_strict_ones_of_seqeval(
    data: st.DataObject, task: TokenClassification, sizes: list[int]
) -> None:
    expected, given_tags = ([data.draw(legal_tags(task, size)) for size in sizes] for _ in range(2))

    def spans(tags: list[str]) -> tuple[Any, ...]:
        return tuple(task.target({"tokens": ["word"] * len(tags), "tags": tags}))

    answers = [
        {"entities": [{"start": start, "end": end, "label": label} for start, end, label in spans(tags)]}
        for tags in given_tags
    ]
    measured = task.metrics(answers, [spans(tags) for tags in expected])

    options = {"mode": "strict", "scheme": IOB2 if task is BIO else IOBES, "zero_division": 0}
    if any(entities(tags) for tags in expected + given_tags):  # seqeval knows no labels otherwise, and fails
        assert measured["precision"] == pytest.approx(precision_score(expected, given_tags, **options))
        assert measured["recall"] == pytest.approx(recall_score(expected, given_tags, **options))
        assert measured["f1"] == pytest.approx(f1_score(expected, given_tags, **options))
    assert set(measured) == {"precision", "recall", "f1"}


def test_text_of_too_many_windows_is_cut_and_the_answer_says_so(wordpiece: str) -> None:
    task = TokenClassification(("O", "B-PER", "I-PER"), max_windows=2)
    rows = [{"text": "film " * 500}, {"text": "film"}]
    windows = task.encode(rows, Tokens(wordpiece, 32))
    outputs = [{"logits": np.zeros((len(window), 3))} for window in windows]

    long, short = task.decode(rows, windows, outputs)

    assert [window.row for window in windows] == [0, 0, 1]
    assert (long.get("truncated"), short.get("truncated")) == (True, None)
