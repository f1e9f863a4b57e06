"""Batches by tokens, not by rows: the same cuts serve the training loop and the server.

A batch is padded to its longest row, so what it costs is rows x longest. Rows of like length go together, and a batch
ends before that product passes a budget.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Item = TypeVar("Item")

POOL_ROWS = 2048
"""Rows that are sorted by length together; more means less padding and less chance."""
PADDING_TARGET = -100
"""The target of a padded position; losses leave it out, as torch's cross entropy does by default."""


def token_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Sort rows by length and cut them into batches of at most `max_tokens` padded tokens.

    Args:
        lengths: tokens of each row.
        max_tokens: bound on rows x longest row; a row that alone is longer is a batch of its own.

    Returns:
        Batches of indices into `lengths`, shortest rows first; rows of equal length keep their order.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            batches.append(batch)
            batch = []
        batch.append(index)
    return [*batches, batch] if batch else batches


def batch_count(lengths: Sequence[int], max_tokens: int, ranks: int = 1) -> int:
    """Number of batches that `epoch_batches` makes of these rows in every epoch, a multiple of `ranks`.

    A little above the least possible, so that an epoch's chance grouping fits in.

    Raises:
        ValueError: there are fewer rows than ranks.
    """
    if len(lengths) < ranks:
        raise ValueError(f"{len(lengths)} rows for {ranks} ranks; expected at least one row a rank")
    least = len(token_batches(lengths, max_tokens))
    wanted = min(ceil(least * 1.05) + 1, len(lengths))
    return max(ceil(least / ranks), wanted // ranks) * ranks


def epoch_batches(lengths: Sequence[int], max_tokens: int, *, count: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of rows of like length, in random order, another grouping each epoch, always `count` of them.

    Rows are shuffled, cut into pools, batched by length inside a pool, and the batches are shuffled again: padding
    stays low while rows of the same length, and of the same pool, are others each epoch. The number is constant because
    schedulers of the learning rate and the ranks of a distributed run must know it beforehand; large batches are halved
    to reach it.

    Args:
        lengths: tokens of each row.
        max_tokens: bound on padded tokens of a batch.
        count: as `batch_count` gave it for these lengths.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        Batches of indices into `lengths`; every index stands in exactly one. Only where all batches are single rows,
        and too few for the ranks, are some of them given twice, as torch's DistributedSampler does.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths)).tolist()
    pool_rows = POOL_ROWS
    batches = _pooled_batches(order, lengths, max_tokens, pool_rows)
    while len(batches) > count and pool_rows < len(order):
        pool_rows *= 2  # larger pools leave fewer batches half full
        batches = _pooled_batches(order, lengths, max_tokens, pool_rows)
    while missing := max(0, count - len(batches)):
        batches.sort(key=len)
        if len(batches[-1]) == 1:
            batches += batches[:missing]
            break
        whole, halved = batches[:-missing], batches[-missing:]
        halves = [part for batch in halved for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :])]
        batches = whole + [part for part in halves if part]
    return [batches[index] for index in random.permutation(len(batches)).tolist()]


def _pooled_batches(order: Sequence[int], lengths: Sequence[int], max_tokens: int, pool_rows: int) -> list[list[int]]:
    return [
        [pool[index] for index in batch]
        for pool in chunks(order, pool_rows)
        for batch in token_batches([lengths[row] for row in pool], max_tokens)
    ]


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive slices of `items` with `size` items each; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def pad(rows: Sequence[IntArray], value: int) -> IntArray:
    """Stack arrays of shape (N_i, ...) into (B, max N, ...), filled with `value` on the right."""
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for filled, row in zip(padded, rows, strict=True):
        filled[: len(row)] = row
    return padded


def collate(inputs: Sequence[Mapping[str, IntArray]], pad_token_id: int) -> dict[str, IntArray]:
    """Pad the inputs of several windows to one batch.

    Args:
        inputs: for each window ``input_ids`` (N_i,) and others of that length, such as ``token_type_ids``.
        pad_token_id: fills ``input_ids``; the others are filled with 0.

    Returns:
        The same names, each (B, max N), and ``attention_mask`` (B, max N), 1 where a token is real.
    """
    batch = {
        name: pad([window[name] for window in inputs], pad_token_id if name == "input_ids" else 0) for name in inputs[0]
    }
    batch["attention_mask"] = pad([np.ones_like(window["input_ids"]) for window in inputs], 0)
    return batch
