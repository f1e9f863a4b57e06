"""Tags: legal orders, the entities that they spell, and the best legal sequence, against trying all of them."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.scheme import IOB1, IOB2, IOBES, Entities  # type: ignore[import-untyped]

from suffuse.tasks.tags import Entity, best_sequences, complete, entities, fault, is_iob1, is_tag, spell

BIO = complete(["B-LOC", "B-PER"])
BIOES = complete(["S-LOC", "S-PER"])
# The schemes as grammars, one letter a tag.
GRAMMAR = {
    BIO: re.compile(r"(O |B-LOC (I-LOC )*|B-PER (I-PER )*)*"),
    BIOES: re.compile(r"(O |S-LOC |S-PER |B-LOC (I-LOC )*E-LOC |B-PER (I-PER )*E-PER )*"),
}
SCHEMES = st.sampled_from([BIO, BIOES])
SEQUENCES = SCHEMES.flatmap(lambda tags: st.tuples(st.just(tags), st.lists(st.sampled_from(tags), max_size=6)))


LEGAL = SCHEMES.flatmap(
    lambda tags: st.tuples(st.just(tags), st.from_regex(GRAMMAR[tags], fullmatch=True).map(str.split))
)


def is_legal(tags: tuple[str, ...], sequence: list[str]) -> bool:
    return GRAMMAR[tags].fullmatch("".join(f"{tag} " for tag in sequence)) is not None


@given(SEQUENCES)
@settings(deadline=None, max_examples=300)
def test_a_fault_is_found_where_the_grammar_does_not_hold(drawn: tuple[tuple[str, ...], list[str]]) -> None:
    tags, sequence = drawn

    assert (fault(sequence, ends_marked=tags is BIOES) is None) == is_legal(tags, sequence)


@pytest.mark.parametrize(
    ("sequence", "ends_marked", "place"),
    [
        (["O", "I-LOC"], False, 1),
        (["B-PER", "I-LOC"], False, 1),
        (["B-PER", "B-PER", "I-PER"], False, None),
        (["B-PER", "O"], True, 1),
        (["S-PER", "B-PER", "I-PER"], True, 3),
        (["E-PER"], True, 0),
    ],
)
def test_a_fault_is_the_first_tag_that_may_not_stand_there(
    sequence: list[str], ends_marked: bool, place: int | None
) -> None:
    assert fault(sequence, ends_marked=ends_marked) == place


@given(LEGAL)
@settings(deadline=None, max_examples=200)
def test_entities_are_those_of_seqeval(drawn: tuple[tuple[str, ...], list[str]]) -> None:
    tags, sequence = drawn

    (expected,) = Entities([sequence], IOB2 if tags is BIO else IOBES).entities

    assert entities(sequence) == [Entity(entity.start, entity.end, entity.tag) for entity in expected]


def as_iob1(sequence: list[str]) -> list[str]:
    """The same with B- only where an entity follows one of its own label."""
    tags: list[str] = []
    for tag in sequence:
        follows = bool(tags) and tags[-1][2:] == tag[2:]
        tags.append(f"I-{tag[2:]}" if tag.startswith("B-") and not follows else tag)
    return tags


@given(st.lists(st.sampled_from(BIO), max_size=7).map(as_iob1))
@settings(deadline=None, max_examples=100)
def test_iob1_is_read_as_seqeval_reads_it(sequence: list[str]) -> None:
    (expected,) = Entities([sequence], IOB1).entities

    assert is_iob1(sequence)
    assert entities(sequence) == [Entity(entity.start, entity.end, entity.tag) for entity in expected]


@given(LEGAL)
@settings(deadline=None, max_examples=100)
def test_entities_are_spelt_as_the_tags_they_came_from(drawn: tuple[tuple[str, ...], list[str]]) -> None:
    tags, sequence = drawn
    starts = list(range(len(sequence)))

    assert spell(entities(sequence), starts, ends_marked=tags is BIOES) == sequence


@given(
    SCHEMES.flatmap(
        lambda tags: st.tuples(
            st.just(tags), st.lists(st.integers(0, 4), max_size=4), st.randoms(use_true_random=False), st.booleans()
        )
    )
)
@settings(deadline=None, max_examples=40)
def test_the_best_legal_sequence_is_the_best_of_all_legal_ones(drawn: tuple) -> None:  # type: ignore[type-arg]
    tags, lengths, random, is_extreme = drawn
    scale = 1e300 if is_extreme else 3.0
    scores_uc = np.array([[-abs(random.gauss(0, scale)) for _ in tags] for _ in range(sum(lengths))])
    scores_uc = np.maximum(scores_uc.reshape(-1, len(tags)), -1e6)

    path_u = best_sequences(scores_uc, lengths, tags)

    place = 0
    for length in lengths:
        row_uc, path = scores_uc[place : place + length], path_u[place : place + length].tolist()
        assert is_legal(tags, [tags[index] for index in path])
        best = max(
            sum(row_uc[word, index] for word, index in enumerate(choice))
            for choice in product(range(len(tags)), repeat=length)
            if is_legal(tags, [tags[index] for index in choice])
        )
        assert sum(row_uc[word, index] for word, index in enumerate(path)) == pytest.approx(best)
        place += length


def test_tags_are_completed_for_each_label_with_outside_first() -> None:
    assert complete({"I-PER", "O", "B-LOC"}) == ("O", "B-LOC", "B-PER", "I-LOC", "I-PER")
    assert complete({"S-PER"}) == ("O", "B-PER", "E-PER", "I-PER", "S-PER")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("O", True), ("B-PER", True), ("S-a b", True), ("PER", False), ("B-", False), ("U-PER", False), ("", False)],
)
def test_a_tag_is_outside_or_a_prefix_and_a_label(text: str, expected: bool) -> None:
    assert is_tag(text) is expected
