"""Batches hold every row, keep their budget, and are as many in every epoch and rank."""

import re
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from suffuse.batching import batch_count, chunked, collate, epoch_batches, pad, token_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=120)
BUDGETS = st.integers(1, 200)


def indices(batches: Iterable[list[int]]) -> list[int]:
    return sorted(index for batch in batches for index in batch)


def keeps_budget(batch: list[int], lengths: list[int], max_tokens: int) -> bool:
    return len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= max_tokens


@given(LENGTHS, BUDGETS)
@settings(deadline=None, max_examples=60)
def test_sorted_batches_hold_every_row_once(lengths: list[int], max_tokens: int) -> None:
    assert indices(token_batches(lengths, max_tokens)) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
@settings(deadline=None, max_examples=60)
def test_sorted_batches_keep_the_budget_and_leave_a_longer_row_alone(lengths: list[int], max_tokens: int) -> None:
    assert all(keeps_budget(batch, lengths, max_tokens) for batch in token_batches(lengths, max_tokens))


@given(LENGTHS, BUDGETS)
@settings(deadline=None, max_examples=60)
def test_sorted_batches_come_shortest_first_and_equal_rows_in_order(lengths: list[int], max_tokens: int) -> None:
    order = [index for batch in token_batches(lengths, max_tokens) for index in batch]

    assert order == sorted(range(len(lengths)), key=lambda index: (lengths[index], index))


def test_a_batch_is_filled_up_to_its_budget() -> None:
    assert list(token_batches([4, 4, 4, 4, 9], 12)) == [[0, 1, 2], [3], [4]]


def test_no_rows_make_no_batches() -> None:
    assert list(token_batches([], 8)) == []


@given(LENGTHS, BUDGETS, st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None, max_examples=150)
def test_an_epoch_holds_every_row_keeps_the_budget_and_serves_all_ranks_alike(
    lengths: list[int], max_tokens: int, ranks: int, epoch: int
) -> None:
    assume(len(lengths) >= ranks)
    count = batch_count(lengths, max_tokens, ranks)

    batches = epoch_batches(lengths, max_tokens, count=count, random=np.random.default_rng((7, epoch)))

    assert len(batches) == count
    assert count % ranks == 0
    assert all(keeps_budget(batch, lengths, max_tokens) for batch in batches)
    if count <= len(lengths):
        assert indices(batches) == list(range(len(lengths)))


def test_rows_that_are_all_alone_are_repeated_until_every_rank_has_a_batch() -> None:
    count = batch_count([9, 9, 9, 9, 9], 4, ranks=2)

    batches = epoch_batches([9, 9, 9, 9, 9], 4, count=count, random=np.random.default_rng(0))

    assert count == len(batches) == 6
    assert {index for batch in batches for index in batch} == {0, 1, 2, 3, 4}


def test_rows_beyond_one_pool_still_make_the_same_number_each_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 5000).tolist()
    count = batch_count(lengths, 2048)

    epochs = [epoch_batches(lengths, 2048, count=count, random=np.random.default_rng(epoch)) for epoch in range(3)]

    assert [len(batches) for batches in epochs] == [count] * 3
    assert all(indices(batches) == list(range(5000)) for batches in epochs)


def test_pools_that_leave_too_many_small_batches_are_joined() -> None:
    lengths = [1] * 20_480  # 2,047 rows fit in a batch, and each of 10 pools has one more
    count = batch_count(lengths, 2047)

    batches = epoch_batches(lengths, 2047, count=count, random=np.random.default_rng(1))

    assert len(batches) == count < 20
    assert max(map(len, batches)) <= 2047


def test_little_is_padded() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 5000).tolist()

    batches = epoch_batches(lengths, 2048, count=batch_count(lengths, 2048), random=np.random.default_rng(1))

    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)


def test_same_seed_and_epoch_give_the_same_batches() -> None:
    lengths = list(range(1, 101))
    count = batch_count(lengths, 200)

    once, again = (epoch_batches(lengths, 200, count=count, random=np.random.default_rng((3, 2))) for _ in range(2))

    assert list(once) == list(again)


@pytest.mark.parametrize(("seed", "epoch"), [(3, 1), (4, 0)])
def test_another_epoch_or_seed_gives_other_batches(seed: int, epoch: int) -> None:
    lengths = [length for length in range(1, 21) for _ in range(10)]
    count = batch_count(lengths, 200)

    first = epoch_batches(lengths, 200, count=count, random=np.random.default_rng((3, 0)))
    other = epoch_batches(lengths, 200, count=count, random=np.random.default_rng((seed, epoch)))

    assert sorted(map(sorted, first)) != sorted(map(sorted, other))


def test_fewer_rows_than_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="^" + re.escape("1 rows for 2 ranks; expected at least one row a rank") + "$"):
        batch_count([5], 10, ranks=2)


def test_chunks_are_consecutive() -> None:
    assert list(chunked(iter([1, 2, 3, 4, 5]), 2)) == [[1, 2], [3, 4], [5]]


def test_pad_fills_on_the_right_and_keeps_further_axes() -> None:
    padded = pad([np.array([[1, 2]]), np.array([[3, 4], [5, 6]])], -1)

    assert padded.tolist() == [[[1, 2], [-1, -1]], [[3, 4], [5, 6]]]


def test_collate_pads_ids_by_the_padding_token_and_masks_it() -> None:
    windows = [
        {"input_ids": np.array([7, 8, 9]), "token_type_ids": np.array([0, 1, 1])},
        {"input_ids": np.array([5]), "token_type_ids": np.array([1])},
    ]

    batch = collate(windows, pad_token_id=3)

    assert {name: array.tolist() for name, array in batch.items()} == {
        "input_ids": [[7, 8, 9], [5, 3, 3]],
        "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
