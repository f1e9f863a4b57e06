"""Rows for the training loop: read, checked, split, encoded by the task, batched by tokens."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from suffuse.batching import PADDING_TARGET, batch_count, collate, epoch_batches, pad, token_batches
from suffuse.errors import DataError, RowError
from suffuse.rows import PACKAGE_SCHEME, PlacedRow, Row, digest, read_rows
from suffuse.tasks import Classification, Task, Tokens, Window

Batch = dict[str, Any]
"""``inputs``: arrays of `collate` as tensors; ``targets``; ``windows``: their indices in the data set (B,)."""


@dataclass(frozen=True)
class Split:
    """Which rows are held back, where there is one file for all.

    Args:
        validation: share of rows that pick the best checkpoint.
        test: share of rows that are never looked at in training; they are written to test.jsonl in the run's folder.
        group_by: a column whose equal values stay on one side, such as the film that a review is about; by default
            the whole row, so that copies of a row stay together.
    """

    validation: float = 0.1
    test: float = 0.1
    group_by: str | None = None

    def side(self, placed: PlacedRow) -> str:
        """``train``, ``validation`` or ``test``: always the same for the same group, whatever the order of rows.

        Raises:
            RowError: the row has no column `group_by`.
        """
        row = placed.row
        if self.group_by is not None and self.group_by not in row:
            raise RowError(
                f"no column {self.group_by!r} to group by; got {', '.join(row)}",
                code="missing_field",
                where=placed.where,
            )
        group = row[self.group_by] if self.group_by is not None else json.dumps(dict(row), sort_keys=True)
        hashed = hashlib.sha256(str(group).encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(hashed[:8]) / 2**64
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


class EncodedRows(Dataset[Batch]):
    """Windows and targets of rows; indexed by a list of windows, it returns their batch."""

    def __init__(self, rows: Sequence[Row], task: Task, tokens: Tokens) -> None:
        self.rows = rows
        self.windows: list[Window] = task.encode(rows, tokens)
        self.targets: list[NDArray[Any]] = task.targets(self.windows, rows)
        self.lengths = [len(window) for window in self.windows]
        self._pad_token_id = tokens.pad_token_id

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        arrays = collate([self.windows[index].inputs for index in indices], self._pad_token_id)
        targets = [self.targets[index] for index in indices]
        padded = pad(targets, PADDING_TARGET) if targets[0].ndim and targets[0].dtype == np.int64 else np.stack(targets)
        return {
            "inputs": {name: torch.from_numpy(array) for name, array in arrays.items()},
            "targets": torch.from_numpy(padded),
            "windows": torch.tensor(indices),
        }


class TrainBatches(DistributedSampler[list[int]]):
    """Batches of indices for one rank in another order each epoch, all ranks with equally many.

    Lightning tells it the epoch, and by its base class knows that the ranks are seen to. All ranks cut the same list,
    so they must be given the same seed.
    """

    def __init__(self, lengths: Sequence[int], max_tokens: int, seed: int, ranks: tuple[int, int]) -> None:
        rank, world_size = ranks
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self._lengths = lengths
        self._max_tokens = max_tokens
        self._count = batch_count(lengths, max_tokens, world_size)
        self._given = 0
        self._resumed = {"epoch": -1, "given": 0}

    def __iter__(self) -> Iterator[list[int]]:
        # Nothing happens before the first batch is asked for: Lightning makes the iterator before it tells the epoch.
        batches = epoch_batches(self._lengths, self._max_tokens, count=self._count, seed=self.seed, epoch=self.epoch)
        self._given = self._resumed["given"] if self._resumed["epoch"] == self.epoch else 0
        for batch in batches[self.rank :: self.num_replicas][self._given :]:
            self._given += 1
            yield batch

    def __len__(self) -> int:
        return self._count // self.num_replicas

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is."""
        return {"epoch": self.epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out, in the epoch of `state`, the batches that were given."""
        self._resumed = dict(state)


class ValidationBatches(DistributedSampler[list[int]]):
    """Batches of indices for one rank, in order of length, all ranks with equally many.

    Where they do not come out even, the first ones are given to a second rank; what is measured knows a window by its
    index, and counts it once.
    """

    def __init__(self, lengths: Sequence[int], max_tokens: int, ranks: tuple[int, int]) -> None:
        rank, world_size = ranks
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank)  # type: ignore[arg-type]
        batches = token_batches(lengths, max_tokens)
        count = -(-len(batches) // world_size)
        self._batches = [batches[(rank + step * world_size) % len(batches)] for step in range(count)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class TextData(lightning.LightningDataModule):
    """Rows of a task for `TextModule`, from one file that is split or from several.

    Args:
        train: a CSV, TSV or JSON lines file, also compressed, or ``pkg://package/path``.
        validation: another such file; by default a share of `train`.
        test: another such file; by default a share of `train`, or none where `validation` is given.
        task: what the rows are for; it learns its labels from the training rows.
        columns: field -> column, where the file names them otherwise.
        where: column -> values; other rows are left out.
        split: shares that are held back of `train` where `validation` is not given.
        tokens_per_batch: padded tokens of a batch and device.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        task: Task | None = None,
        columns: dict[str, str] | None = None,
        where: dict[str, list[str]] | None = None,
        split: Split | None = None,
        tokens_per_batch: int = 2048,
    ) -> None:
        super().__init__()
        self.task: Task = task or Classification()
        self._sources = {"train": train, "validation": validation, "test": test}
        self._columns = columns
        self._where = {column: set(values) for column, values in (where or {}).items()}
        self._split = split or Split()
        self._tokens_per_batch = tokens_per_batch
        self._sides: dict[str, list[PlacedRow]] = {}
        self._encoded_for: Tokens | None = None
        self._train_batches: TrainBatches | None = None
        self._resumed: dict[str, Any] = {}

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of rows, by what it is for and its name; not by its folder, which is the machine's."""
        return {
            f"{side}: {source if source.startswith(PACKAGE_SCHEME) else Path(source).name}": digest(source)
            for side, source in self._sources.items()
            if source
        }

    def rows(self, side: str) -> list[PlacedRow]:
        """The rows of ``train``, ``validation`` or ``test``, checked.

        Raises:
            DataError, RowError: a file or a row cannot be used; file and line are named.
        """
        if not self._sides:
            self._sides = self._read()
        return self._sides[side]

    def encode(self, tokens: Tokens) -> None:
        """Read the rows, let the task learn from them, and encode them; once for the same tokenizer.

        Raises:
            DataError, RowError: as `rows`; also, a side has no rows, or a label is not known.
        """
        if self._encoded_for is tokens:
            return
        self.task = self._learned_task()
        self.train_rows = self._encode("train", tokens)
        self.validation_rows = self._encode("validation", tokens)
        self._encoded_for = tokens

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning passes it by name
        """Read and encode the rows with the tokenizer of the module that is trained.

        Raises:
            DataError, RowError: as `encode`; also, there are fewer rows than processes.
        """
        self.encode(self.trainer.lightning_module.tokens)  # type: ignore[union-attr, arg-type]
        _, world_size = self._ranks
        if len(self.train_rows) < world_size:
            raise DataError(
                f"{self._sources['train']}: {len(self.train_rows)} training rows for {world_size} processes; "
                "expected at least one each: lower trainer.devices"
            )

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch is, for the checkpoint: a run resumed within an epoch sees no batch of it twice."""
        return self._train_batches.state_dict() if self._train_batches else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on within the epoch that the checkpoint was written in."""
        self._resumed = state_dict

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in another order each epoch."""
        # As Lightning does for its own samplers: the one seed that all ranks, and a resumed run, have in common.
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        batches = TrainBatches(self.train_rows.lengths, self._tokens_per_batch, seed, self._ranks)
        if self._resumed:
            batches.load_state_dict(self._resumed)
        self._train_batches = batches
        return _loader(self.train_rows, batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches in order of length; each rank takes its part."""
        # No gradients are kept, so that more fits.
        batches = ValidationBatches(self.validation_rows.lengths, 4 * self._tokens_per_batch, self._ranks)
        return _loader(self.validation_rows, batches)

    def write_rows(self, side: str, path: Path) -> int:
        """Write the rows of a side as JSON lines, fields named as the task names them; returns how many."""
        names = {field.name for field in (*self.task.fields, self.task.target_field)}
        placed = self.rows(side)
        with path.open("w", encoding="utf-8") as file:
            for _, row in placed:
                kept = {name: value for name, value in row.items() if name in names}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
        return len(placed)

    @property
    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _learned_task(self) -> Task:
        # All rows of the training file: a rare label may stand only among those that are held back.
        is_split = self._sources["validation"] is None
        sides = ("train", "validation", "test") if is_split else ("train",)
        placed = [placed for side in sides for placed in self.rows(side)]
        where = ""

        def rows() -> Iterator[Row]:
            nonlocal where
            for one in placed:
                where = one.where
                yield one.row

        try:
            return self.task.learn(rows())
        except RowError as error:
            raise error.at(where) from None
        except DataError as error:
            raise DataError(f"{self._sources['train']}: {error}") from None

    def _encode(self, side: str, tokens: Tokens) -> EncodedRows:
        rows = self.rows(side)
        if not rows:
            raise DataError(
                f"{self._sources['train']}: no {side} rows are left; expected some: "
                "change the shares that data.split holds back, or name a file of its own"
            )
        for placed in rows:
            _with_place(placed, self.task.target)
        return EncodedRows([placed.row for placed in rows], self.task, tokens)

    def _read(self) -> dict[str, list[PlacedRow]]:
        sides: dict[str, list[PlacedRow]] = {"train": [], "validation": [], "test": []}
        is_split = self._sources["validation"] is None
        for side, source in self._sources.items():
            if source is None:
                continue
            for placed in self._kept(source):
                _with_place(placed, self.task.check)
                sides[self._split.side(placed) if side == "train" and is_split else side].append(placed)
        return sides

    def _kept(self, source: str) -> Iterator[PlacedRow]:
        kept = False
        for placed in read_rows(source, self._columns):
            if all(placed.row.get(column) in values for column, values in self._where.items()):
                kept = True
                yield placed
        if not kept:
            raise DataError(f"{source}: no row is left by where: {_shown(self._where)}")


def _loader(rows: EncodedRows, batches: DistributedSampler[list[int]]) -> DataLoader[Batch]:
    # A loader draws a number whenever it starts; from the global generator, dropout would depend on how often.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(rows, batch_size=None, sampler=batches, generator=generator)


def _with_place(placed: PlacedRow, check: Callable[[Row], object]) -> None:
    try:
        check(placed.row)
    except RowError as error:
        raise error.at(placed.where) from None


def _shown(where: Mapping[str, set[str]]) -> str:
    return ", ".join(f"{column} in ({', '.join(sorted(values))})" for column, values in where.items())


def to_numpy(inputs: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as arrays, for tasks, which know no torch."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}
