"""Batches by tokens, not by rows: the same cuts serve the training loop and the server.

A batch is padded to its longest row, so what it costs is rows x longest. Rows of like length go together, and a batch
ends before that product passes a budget.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Indices = NDArray[np.signedinteger[Any]]
Item = TypeVar("Item")

POOL_ROWS = 2048
"""Rows that are sorted by length together; more means less padding and less chance."""
PADDING_TARGET = -100
"""The target of a padded position; losses leave it out, as torch's cross entropy does by default."""


class Batches(Sequence[list[int]]):
    """Batches of indices, kept as arrays: lists of millions of Python integers would fill the memory.

    Args:
        order: all indices, those of a batch side by side, (R,).
        bounds: where in `order` a batch begins and where it ends, (batches, 2).
    """

    def __init__(self, order: Indices, bounds: IntArray) -> None:
        self._order = order
        self._bounds = bounds

    def __len__(self) -> int:
        return len(self._bounds)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start, end = self._bounds[range(len(self))[index]]
        batch: list[int] = self._order[start:end].tolist()
        return batch


def token_batches(lengths: Sequence[int] | IntArray, max_tokens: int) -> Batches:
    """Sort rows by length and cut them into batches of at most `max_tokens` padded tokens.

    Args:
        lengths: tokens of each row.
        max_tokens: bound on rows x longest row; a row that alone is longer is a batch of its own.

    Returns:
        Batches of indices into `lengths`, shortest rows first; rows of equal length keep their order.
    """
    lengths = np.asarray(lengths)
    order = np.argsort(lengths, kind="stable")
    return Batches(order, _pairs(_cuts(lengths[order], max_tokens)))


def batch_count(lengths: Sequence[int] | IntArray, max_tokens: int, ranks: int = 1) -> int:
    """Number of batches that `epoch_batches` makes of these rows in every epoch, a multiple of `ranks`.

    A little above the least possible, so that an epoch's chance grouping fits in.

    Raises:
        ValueError: there are fewer rows than ranks.
    """
    if len(lengths) < ranks:
        raise ValueError(f"{len(lengths)} rows for {ranks} ranks; expected at least one row a rank")
    least = len(_cuts(np.sort(np.asarray(lengths)), max_tokens)) - 1
    wanted = min(ceil(least * 1.05) + 1, len(lengths))
    return max(ceil(least / ranks), wanted // ranks) * ranks


def epoch_batches(
    lengths: Sequence[int] | IntArray,
    max_tokens: int,
    *,
    count: int,
    random: np.random.Generator,
    rows: IntArray | None = None,
) -> Batches:
    """Batches of rows of like length, in random order, another grouping each epoch, always `count` of them.

    Rows are shuffled, cut into pools, batched by length inside a pool, and the batches are shuffled again: padding
    stays low while rows of the same length, and of the same pool, are others each epoch. The number is constant because
    schedulers of the learning rate and the ranks of a distributed run must know it beforehand; large batches are halved
    to reach it.

    Args:
        lengths: tokens of each row.
        max_tokens: bound on padded tokens of a batch.
        count: as `batch_count` gave it for these lengths.
        random: of this epoch.
        rows: indices of the rows that the epoch has, some of them several times or not at all; by default all, once.

    Returns:
        Batches of indices into `lengths`; every index stands in exactly one. Only where all batches are single rows,
        and too few for the ranks, are some of them given twice, as torch's DistributedSampler does. Where `rows` are
        longer together than those that `count` was made for, batches may pass the budget by as much.
    """
    lengths = np.asarray(lengths)
    # Small integers, and one array of them: there may be millions.
    order: Indices = np.arange(len(lengths), dtype=np.int32) if rows is None else rows.astype(np.int32)
    random.shuffle(order)
    pool_rows = POOL_ROWS
    bounds = _pooled(order, lengths, max_tokens, pool_rows)
    while len(bounds) - 1 > count:
        if pool_rows < len(order):
            pool_rows *= 2  # larger pools leave fewer batches half full
        else:
            max_tokens += ceil(max_tokens / 50)
        bounds = _pooled(order, lengths, max_tokens, pool_rows)
    while missing := count - (len(bounds) - 1):
        sizes = np.diff(bounds)
        if sizes.max() == 1:
            order = np.concatenate([order, order[:missing]])
            bounds = np.arange(len(order) + 1)
            break
        largest = np.argsort(sizes, kind="stable")[-missing:]
        halved = largest[sizes[largest] > 1]
        bounds = np.sort(np.concatenate([bounds, bounds[halved] + sizes[halved] // 2]))
    return Batches(order, random.permutation(_pairs(bounds)))


def _cuts(sorted_lengths: IntArray, max_tokens: int) -> IntArray:
    """Where batches of rows in ascending order of length begin, and the end."""
    bounds = [0]
    rows = len(sorted_lengths)
    while (start := bounds[-1]) < rows:
        most = max(1, max_tokens // max(1, int(sorted_lengths[start])))
        padded = np.arange(1, most + 1)[: rows - start] * sorted_lengths[start : start + most]
        bounds.append(start + max(1, int(np.searchsorted(padded, max_tokens, side="right"))))
    return np.array(bounds)


def _pooled(order: Indices, lengths: IntArray, max_tokens: int, pool_rows: int) -> IntArray:
    """Sort rows by length inside each pool, in place; returns where batches begin in them, and the end."""
    bounds = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(order), pool_rows):
        pool = order[start : start + pool_rows]
        pool[:] = pool[np.argsort(lengths[pool], kind="stable")]
        bounds.append(start + _cuts(lengths[pool], max_tokens)[1:])
    return np.concatenate(bounds)


def _pairs(bounds: IntArray) -> IntArray:
    """Where each batch begins and where it ends, (batches, 2)."""
    return np.stack([bounds[:-1], bounds[1:]], axis=1)


def chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items each, of any iterable, read no further than needed; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


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
