"""Rows for the training loop: read, checked, split, encoded by the task, batched by tokens."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from suffuse.errors import DataError
from suffuse.tasks import Classification, Task, Tokens
from suffuse.training.corpus import Corpus, Split
from suffuse.training.encoded import Batch, EncodedRows
from suffuse.training.prepared import REJECTS, move_rejects
from suffuse.training.sampling import Mixture, TrainBatches, ValidationBatches
from suffuse.training.sources import Checks, OnBadRow, Sources, as_sources
from suffuse.training.store import StoredRows
from suffuse.training.streaming import StreamedBatches, Streaming, StreamLoader

STREAMED_REJECTS = "rejects.streamed.jsonl"
"""Bad rows that a stream has met so far; at the end of the run they are added to its rejects.jsonl."""
NOWHERE = (-1, 0)


@dataclass(frozen=True)
class Loading:
    """How rows are read and batched.

    Args:
        tokens_per_batch: padded tokens of a batch and device.
        workers: processes that make batches beside the training; 0 for none.
        unique: columns; a row with the same values in them as one before is left out.
        on_bad_row: ``stop``, or ``skip`` to leave it out; what was left out, and why, is in rejects.jsonl of the run
            (of rows that are streamed, in the Trainer's `default_root_dir`, which for ``suffuse fit`` is the same).
        streaming: read the training files anew each epoch and store nothing; by default they are encoded once, into
            files that are mapped into memory.
    """

    tokens_per_batch: int = 2048
    workers: int = 0
    unique: tuple[str, ...] = ()
    on_bad_row: OnBadRow = "stop"
    streaming: Streaming | None = None


class TextData(lightning.LightningDataModule):
    """Rows of a task for `TextModule`, from one source that is split or from several.

    Args:
        train: a file, a folder, ``pkg://package/path``, a pattern of files, an object as `Source` describes it, or a
            list of these.
        validation: the like; by default a share of `train`.
        test: the like; by default a share of `train`, or none where `validation` is given.
        task: what the rows are for; it learns its labels from the training rows.
        columns: field -> column, where a source has none of its own.
        where: column -> values, where a source has none of its own; other rows are left out.
        split: shares that are held back of `train` where `validation` is not given.
        loading: how rows are read and batched.
    """

    def __init__(
        self,
        train: Sources,
        validation: Sources | None = None,
        test: Sources | None = None,
        task: Task | None = None,
        columns: dict[str, str] | None = None,
        where: dict[str, list[str]] | None = None,
        split: Split | None = None,
        loading: Loading | None = None,
    ) -> None:
        super().__init__()
        self.loading = loading or Loading()
        given = {"train": train, "validation": validation, "test": test}
        self._corpus = Corpus(
            {side: as_sources(sources, columns, where) for side, sources in given.items()},
            task or Classification(),
            split or Split(),
            Checks(tuple(self.loading.unique), self.loading.on_bad_row),
            is_streamed=self.loading.streaming is not None,
        )
        self._tokens: Tokens | None = None
        self._train_rows: EncodedRows | None = None
        self._place = NOWHERE
        self._streamed_rejects: Path | None = None

    @property
    def task(self) -> Task:
        """The task with what it has learned from the training rows."""
        return self._corpus.task

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of rows, by what it is for and its name."""
        return self._corpus.digests

    @property
    def rejects(self) -> Path:
        """File of the rows that were left out when they were stored; there is none where all are good."""
        return self._corpus.rejects

    @property
    def train_rows(self) -> EncodedRows:
        """The training rows, encoded.

        Raises:
            DataError: they are streamed, and nowhere as a whole.
        """
        if self._train_rows is None:
            raise DataError("the training rows are streamed; expected them stored: leave out data.loading.streaming")
        return self._train_rows

    def rows(self, side: str) -> StoredRows:
        """The rows of ``train``, ``validation`` or ``test``, checked.

        Raises:
            DataError, RowError: a file or a row cannot be used; file and line are named.
        """
        return self._corpus.rows(side)

    def encode(self, tokens: Tokens) -> None:
        """Read the rows, let the task learn from them, and encode them; once for the same tokenizer.

        Raises:
            DataError, RowError: as `rows`; also, a side has no rows, or a label is not known.
        """
        if self._tokens is tokens:
            return
        if self.loading.streaming is None:
            self._train_rows = self._corpus.encoded("train", tokens)
        self.validation_rows = self._corpus.encoded("validation", tokens)
        self._tokens = tokens

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning passes it by name
        """Read and encode the rows with the tokenizer of the module that is trained.

        Raises:
            DataError, RowError: as `encode`; also, there are fewer rows than processes.
        """
        self.encode(self.trainer.lightning_module.tokens)  # type: ignore[union-attr, arg-type]
        _, world_size = self._ranks
        if self._train_rows is not None and len(self._train_rows) < world_size:
            raise DataError(
                f"{self._corpus.train_name}: {len(self._train_rows)} training rows for {world_size} processes; "
                "expected at least one each: lower trainer.devices"
            )

    def target_counts(self) -> NDArray[np.float64]:
        """How often each output of the task's head is the right one in an epoch of the training rows, (size,)."""
        return self.train_rows.target_counts(self.task, self._corpus.weights)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002 - Lightning's
        """Count the batches of the epoch as they are trained on, not as loaders fetch them ahead."""
        if self.trainer is not None and self.trainer.training:
            epoch, given = self._place
            self._place = (self.trainer.current_epoch, given + 1 if epoch == self.trainer.current_epoch else 1)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch is, for the checkpoint: a run resumed within an epoch sees no batch of it twice."""
        epoch, given = self._place
        if self.trainer is not None and self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            epoch, given = epoch + 1, 0
        return {"epoch": epoch, "given": given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on within the epoch that the checkpoint was written in."""
        self._place = (state_dict["epoch"], state_dict["given"])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in another order each epoch."""
        # As Lightning does for its own samplers: the one seed that all ranks, and a resumed run, have in common.
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        if self.loading.streaming:
            return self._stream(self.loading.streaming, seed)
        rows, weights = self.train_rows, self._corpus.weights
        mixture = None if all(weight == 1 for weight in weights) else Mixture(rows.sources(), weights, seed)
        batches = TrainBatches(rows.lengths, self.loading.tokens_per_batch, seed, self._ranks, mixture)
        batches.load_state_dict(self.state_dict())
        return _loader(rows, batches, self.loading.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches in order of length; each rank takes its part."""
        # No gradients are kept, so that more fits.
        batches = ValidationBatches(self.validation_rows.lengths, 4 * self.loading.tokens_per_batch, self._ranks)
        return _loader(self.validation_rows, batches, self.loading.workers)

    def write_rows(self, side: str, path: Path) -> int:
        """Write the rows of a side as JSON lines: the task's fields, and what rows are grouped by; returns how many."""
        placed = self.rows(side)
        with path.open("w", encoding="utf-8") as file:
            for _, _, row in placed:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return len(placed)

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning passes it by name
        """List streamed rows that were left out with the others, and say how many; of those it was known before."""
        streamed = self._streamed_rejects
        if streamed is not None and streamed.is_file() and self._ranks[0] == 0:
            rejects = streamed.with_name(REJECTS)
            new, count = move_rejects(streamed, rejects)
            if new:
                sys.stderr.write(f"{count} bad rows were left out: {rejects}\n")

    @property
    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _stream(self, streaming: Streaming, seed: int) -> DataLoader[Batch]:
        tokens = self.trainer.lightning_module.tokens  # type: ignore[union-attr]
        if not self.trainer.fast_dev_run:  # type: ignore[union-attr]
            # Not among the others yet: rows are read ahead, while the run's folder still holds an earlier run.
            self._streamed_rejects = Path(self.trainer.default_root_dir) / STREAMED_REJECTS  # type: ignore[union-attr]
            if self._place == NOWHERE and self._ranks[0] == 0:
                self._streamed_rejects.unlink(missing_ok=True)
        batches = StreamedBatches(
            replace(self._corpus.reader("train"), task=self.task),
            tokens,  # type: ignore[arg-type]
            tokens_per_batch=self.loading.tokens_per_batch,
            streaming=streaming,
            ranks=self._ranks,
            seed=seed,
            rejects=self._streamed_rejects,
        )
        return StreamLoader(batches, self.loading.workers, self._stream_place)

    def _stream_place(self) -> tuple[int, int]:
        # A resumed run's loader is started before Lightning knows the epoch.
        now = max(self.trainer.current_epoch if self.trainer else 0, self._place[0])
        epoch, given = self._place
        return now, given if epoch == now else 0


def _loader(rows: EncodedRows, batches: DistributedSampler[list[int]], workers: int) -> DataLoader[Batch]:
    # A loader draws a number whenever it starts; from the global generator, dropout would depend on how often.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(rows, batch_size=None, sampler=batches, generator=generator, num_workers=workers)
