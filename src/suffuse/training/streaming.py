"""Batches from files that are read anew each epoch, for data that is remote, or too large to be stored once more.

Every rank and worker reads all rows, which is cheap, and so knows all batches; each encodes only its own, which is what
costs. So each row is given once an epoch whatever the number of ranks, workers and files, all ranks take equally many
steps, and a run goes on within an epoch by passing over as many batches as were given, without encoding them. The first
worker of the first rank reports bad rows for all.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from suffuse.errors import DataError, InputError, RowError
from suffuse.tasks import Row, Tokens
from suffuse.training.encoded import Batch, batch_of
from suffuse.training.prepared import rejects_to
from suffuse.training.sources import Reader, Reject, shown

MEASURED_ROWS = 256
"""Rows at the beginning of the data from which characters a token are learned."""


@dataclass(frozen=True)
class Streaming:
    """How rows are shuffled while they are streamed.

    Args:
        shuffle_rows: rows that are in memory at once, shuffled, and batched with those of like length. The order of
            files is shuffled too, and sources take turns by chance.
    """

    shuffle_rows: int = 8192


class StreamedBatches(IterableDataset[Batch]):
    """Batches of one rank, streamed.

    How long a row is in tokens is estimated from its characters, since only the rank that trains on it encodes it; a
    batch holds about its budget of padded tokens, not at most. Only where all batches of a pool are single rows, and
    too few for the ranks, are some of them given twice. The fractional part of a weight is left to chance.

    Args:
        reader: gives the rows; its task, which has learned, encodes them.
        tokens: the task's tokenizer.
        tokens_per_batch: padded tokens of a batch, about.
        streaming: how they are shuffled.
        ranks: this rank, and how many there are.
        seed: the same on all ranks.
        rejects: file that rows which are left out are added to.

    Attributes:
        epoch: of the next iteration.
        given: batches of this rank that are passed over in it.
    """

    def __init__(
        self,
        reader: Reader,
        tokens: Tokens,
        *,
        tokens_per_batch: int,
        streaming: Streaming,
        ranks: tuple[int, int],
        seed: int,
        rejects: Path | None = None,
    ) -> None:
        self._reader = reader
        self._task = reader.task
        self._tokens = tokens
        self._budget = tokens_per_batch
        self._pool_rows = max(streaming.shuffle_rows, ranks[1])
        self._rank, self._world_size = ranks
        self._seed = seed
        self._rejects = rejects
        self.epoch = 0
        self.given = 0

    def __iter__(self) -> Iterator[Any]:
        """Batches; a worker process ends with the error that stops it, which a loader would bury in a traceback."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        own = islice(self._global_batches(writes=number == 0), self._rank, None, self._world_size)
        try:
            # A loader takes one batch of each worker in turn, beginning with the first.
            for rows in islice(own, self.given + number, None, workers):
                yield self._encoded(rows)
        except InputError as error:
            if worker is None:
                raise
            yield error

    def _global_batches(self, *, writes: bool) -> Iterator[list[Row]]:
        random = np.random.default_rng((self._seed, self.epoch))
        per_token = self._characters_per_token()
        for pool in self._pools(random, writes=writes and self._rank == 0):
            yield from self._pool_batches(pool, per_token, random)

    def _pools(self, random: np.random.Generator, *, writes: bool) -> Iterator[list[Row]]:
        """Lists of rows; each has at least one for every rank."""
        rows = self._rows(random, writes=writes)
        pool = list(islice(rows, self._pool_rows))
        while following := list(islice(rows, self._pool_rows)):
            if len(following) < self._world_size:
                pool += following
            else:
                yield pool
                pool = following
        if len(pool) < self._world_size:
            raise DataError(
                f"{shown(self._reader.sources)}: {len(pool)} training rows for {self._world_size} processes; "
                "expected at least one each: lower trainer.devices"
            )
        yield pool

    def _rows(self, random: np.random.Generator, *, writes: bool) -> Iterator[Row]:
        if writes and self._rejects is not None:
            with rejects_to(self._rejects) as reject:
                yield from self._mixed(random, reject)
        else:
            yield from self._mixed(random, lambda _: None)

    def _mixed(self, random: np.random.Generator, reject: Reject) -> Iterator[Row]:
        """Rows of all sources, each as often as its weight says."""
        seen: set[bytes] = set()
        streams = [
            (source.weight, self._checked(index, random.permutation(files).tolist(), reject, seen))
            for index, (source, files) in enumerate(zip(self._reader.sources, self._reader.files(), strict=True))
        ]
        while streams:
            place = int(random.integers(len(streams)))
            weight, rows = streams[place]
            row = next(rows, None)
            if row is None:
                del streams[place]
                continue
            whole, rest = divmod(weight, 1)
            yield from [row] * (int(whole) + int(random.random() < rest))

    def _checked(self, source: int, files: Sequence[str], reject: Reject, seen: set[bytes]) -> Iterator[Row]:
        for file in files:
            for _, where, row in self._reader.read_file(source, file, reject, seen):
                try:
                    self._task.target(row)
                except RowError as error:
                    if self._reader.checks.on_bad_row == "stop":
                        raise error.at(where) from None
                    reject(error.at(where))
                else:
                    yield row

    def _characters_per_token(self) -> float:
        """Of the first rows: the same on every rank and in every epoch."""
        streams = (
            self._checked(index, files, lambda _: None, set()) for index, files in enumerate(self._reader.files())
        )
        rows = list(islice(chain.from_iterable(streams), MEASURED_ROWS))
        tokens = sum(len(window) for window in self._task.encode(rows, self._tokens))
        return max(0.1, sum(map(self._characters, rows)) / max(1, tokens))

    def _characters(self, row: Row) -> int:
        """Of the fields that are encoded, or of the whole row where it has others in their place."""
        texts = [row.get(field.name) for field in self._task.fields]
        return sum(len(text) for text in texts if isinstance(text, str)) or len(json.dumps(row, default=str))

    def _pool_batches(self, pool: list[Row], per_token: float, random: np.random.Generator) -> list[list[Row]]:
        """Batches of rows of like length, in random order, a multiple of the ranks."""
        longest = self._tokens.max_tokens
        tokens = np.maximum(1, np.array([self._characters(row) for row in pool]) / per_token)
        windows = np.ceil(tokens / longest)
        shuffled = random.permutation(len(pool))
        order = shuffled[np.argsort(tokens[shuffled], kind="stable")]
        batches: list[list[int]] = [[]]
        filled = 0.0
        for index in order.tolist():
            width = min(float(tokens[index]), longest)
            if batches[-1] and (filled + windows[index]) * width > self._budget:
                batches.append([])
                filled = 0.0
            batches[-1].append(index)
            filled += windows[index]
        while missing := -len(batches) % self._world_size:
            batches.sort(key=len)
            if len(batches[-1]) == 1:
                batches += batches[:missing]
                break
            largest = batches.pop()
            batches += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
        return [[pool[index] for index in batches[number]] for number in random.permutation(len(batches))]

    def _encoded(self, rows: list[Row]) -> Batch:
        windows = self._task.encode(rows, self._tokens)
        return batch_of(windows, self._task.targets(windows, rows), range(len(windows)), self._tokens.pad_token_id)


class StreamLoader(DataLoader[Batch]):
    """A loader whose batches are those of the epoch that the Trainer is in, from where it stands in it.

    Args:
        batches: to load.
        workers: processes that read and encode; 0 for none.
        place: gives the epoch, and how many of its batches were given already.
    """

    def __init__(self, batches: StreamedBatches, workers: int, place: Callable[[], tuple[int, int]]) -> None:
        # As in `data`: a loader draws a number whenever it starts, which dropout must not depend on.
        generator = torch.Generator().manual_seed(0)
        super().__init__(batches, batch_size=None, num_workers=workers, generator=generator)
        self._place = place

    def __iter__(self) -> Any:  # noqa: ANN401 - torch's iterators are private
        batches: Any = self.dataset
        batches.epoch, batches.given = self._place()
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch
