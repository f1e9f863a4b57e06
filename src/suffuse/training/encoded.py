"""Encoded rows as torch batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from suffuse.batching import PADDING_TARGET, collate, pad
from suffuse.tasks import Loss, Row, Task, Window
from suffuse.training.store import StoredRows, StoredWindows

Batch = dict[str, Any]
"""``inputs``: arrays of `collate` as tensors; ``targets``; ``windows``: their indices in the data set (B,)."""


class EncodedRows(Dataset[Batch]):
    """Windows and targets of stored rows; indexed by a list of windows, it returns their batch.

    Args:
        rows: of the data set.
        windows: of these rows.
        pad_token_id: fills token ids.
    """

    def __init__(self, rows: StoredRows, windows: StoredWindows, pad_token_id: int) -> None:
        self.placed = rows
        self.windows = windows
        self._pad_token_id = pad_token_id

    @property
    def rows(self) -> Sequence[Row]:
        """The rows without their places."""
        return _OnlyRows(self.placed)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each window, (W,)."""
        return self.windows.lengths

    def sources(self) -> NDArray[np.int32]:
        """Index of the source of each window, (W,)."""
        return self.placed.sources()[self.windows.rows()]

    def target_counts(self, task: Task, weights: Sequence[float]) -> NDArray[np.float64]:
        """How often each output is the right one in an epoch, (size,).

        Args:
            task: that the targets are of.
            weights: of the sources of the rows, which are given so often.
        """
        size = task.head.size
        counts = np.zeros(size)
        weights_r = np.asarray(weights)[self.placed.sources()]
        for targets, rows in self.windows.targets():
            if task.head.loss is Loss.SIGMOID:
                counts += weights_r[rows[::size]] @ targets.reshape(-1, size)
            else:
                known = targets != PADDING_TARGET
                counts += np.bincount(targets[known], weights_r[rows[known]], minlength=size)
        return counts

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        windows = [self.windows[index] for index in indices]
        return batch_of(windows, [self.windows.target(index) for index in indices], indices, self._pad_token_id)


def batch_of(
    windows: Sequence[Window], targets: Sequence[NDArray[Any]], indices: Sequence[int], pad_token_id: int
) -> Batch:
    """Windows and their targets as tensors, padded.

    Args:
        windows: to pad together.
        targets: one a window, of equal shape, or of the length of its window.
        indices: of the windows in their data set.
        pad_token_id: fills token ids.
    """
    arrays = collate([window.inputs for window in windows], pad_token_id)
    padded = pad(targets, PADDING_TARGET) if targets[0].ndim and targets[0].dtype == np.int64 else np.stack(targets)
    return {
        "inputs": {name: torch.from_numpy(array) for name, array in arrays.items()},
        "targets": torch.from_numpy(padded),
        "windows": torch.tensor(indices),
    }


def to_numpy(inputs: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """The arrays of a batch, as tasks take them."""
    return {name: tensor.cpu().numpy() for name, tensor in inputs.items()}


class _OnlyRows(Sequence[Row]):
    def __init__(self, placed: StoredRows) -> None:
        self._placed = placed

    def __len__(self) -> int:
        return len(self._placed)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as Sequence, an int or a slice
        if isinstance(index, slice):
            return [placed.row for placed in self._placed[index]]
        return self._placed[index].row
