"""Which windows make a batch, for each rank and epoch: all ranks equally many batches, every window its share."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from suffuse.batching import batch_count, epoch_batches, token_batches

Lengths = Sequence[int] | NDArray[np.int32]


class Mixture:
    """How often each window is given in an epoch, by the weight of its source.

    Args:
        sources: index of the source of each window, (W,).
        weights: of each source. The whole part of a weight is how often all its windows are given; of the rest a share
            is given, which moves on through the source from epoch to epoch, so that each window has its turn.
        seed: of the order in which windows have their turn.
    """

    def __init__(self, sources: NDArray[np.int32], weights: Sequence[float], seed: int) -> None:
        self._windows = [np.flatnonzero(sources == index) for index in range(len(weights))]
        self._weights = weights
        self._seed = seed

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """Indices of the windows of an epoch, as many each epoch."""
        chosen = []
        for index, (windows, weight) in enumerate(zip(self._windows, self._weights, strict=True)):
            whole, rest = divmod(weight, 1)
            chosen += [windows] * int(whole)
            if rest > 0 and len(windows):
                share = max(1, round(rest * len(windows)))
                turns = np.random.default_rng((self._seed, index)).permutation(windows)
                chosen.append(turns[(epoch * share + np.arange(share)) % len(windows)])
        return np.concatenate(chosen)


class TrainBatches(DistributedSampler[list[int]]):
    """Batches of indices for one rank in another order each epoch, all ranks with equally many.

    Lightning tells it the epoch, and by its base class knows that the ranks are seen to. All ranks cut the same list,
    so they must be given the same seed: batches follow from seed and epoch, and where a run goes on within an epoch
    from the number of those that were given.

    Args:
        lengths: tokens of each window.
        max_tokens: bound on padded tokens of a batch.
        seed: of the run.
        ranks: this rank, and how many there are.
        mixture: where sources have weights.
    """

    def __init__(
        self, lengths: Lengths, max_tokens: int, seed: int, ranks: tuple[int, int], mixture: Mixture | None = None
    ) -> None:
        rank, world_size = ranks
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self._lengths = np.asarray(lengths)
        self._max_tokens = max_tokens
        self._mixture = mixture
        given = self._lengths if mixture is None else self._lengths[mixture.rows(0)]
        self._count = batch_count(given, max_tokens, world_size)
        self._resumed = {"epoch": -1, "given": 0}

    def __iter__(self) -> Iterator[list[int]]:
        # Nothing happens before the first batch is asked for: Lightning makes the iterator before it tells the epoch.
        rows = None if self._mixture is None else self._mixture.rows(self.epoch)
        random = np.random.default_rng((self.seed, self.epoch))
        batches = epoch_batches(self._lengths, self._max_tokens, count=self._count, random=random, rows=rows)
        given = self._resumed["given"] if self._resumed["epoch"] == self.epoch else 0
        for step in range(given, len(self)):
            yield batches[self.rank + step * self.num_replicas]

    def __len__(self) -> int:
        return self._count // self.num_replicas

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on in the ``epoch`` of `state`, and leave out as many batches as were ``given`` in it.

        Loaders with workers ask for the first batches before Lightning tells the epoch.
        """
        self._resumed = dict(state)
        self.epoch = max(self.epoch, state["epoch"])


class ValidationBatches(DistributedSampler[list[int]]):
    """Batches of indices for one rank, in order of length, all ranks with equally many.

    Where they do not come out even, the first ones are given to a second rank; what is measured knows a window by its
    index, and counts it once.
    """

    def __init__(self, lengths: Lengths, max_tokens: int, ranks: tuple[int, int]) -> None:
        rank, world_size = ranks
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank)  # type: ignore[arg-type]
        self._all = token_batches(np.asarray(lengths), max_tokens)
        self._count = -(-len(self._all) // world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._count):
            yield self._all[(self.rank + step * self.num_replicas) % len(self._all)]

    def __len__(self) -> int:
        return self._count
