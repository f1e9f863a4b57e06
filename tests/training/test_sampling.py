"""Sampling: sources have their share by weight, ranks equally many batches, and every window its turn."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from suffuse.tasks import Classification
from suffuse.training.data import _loader
from suffuse.training.encoded import Batch, EncodedRows
from suffuse.training.models import load_tokens
from suffuse.training.sampling import Mixture, TrainBatches
from suffuse.training.sources import Placed
from suffuse.training.store import RowWriter, StoredRows, StoredWindows, write_windows

WEIGHTS = st.lists(st.floats(0.05, 3.5), min_size=1, max_size=3)


def mixture(sizes: Sequence[int], weights: Sequence[float]) -> Mixture:
    return Mixture(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), weights, seed=3)


def times(mixed: Mixture, epoch: int) -> Counter[int]:
    return Counter(mixed.rows(epoch).tolist())


def test_weight_2_gives_each_window_twice_an_epoch() -> None:
    assert times(mixture([3, 2], [2.0, 1.0]), 5) == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}


def test_weight_of_a_half_gives_half_of_the_windows_and_the_others_next_epoch() -> None:
    mixed = mixture([10, 4], [0.5, 1.0])

    first, second = times(mixed, 0), times(mixed, 1)

    assert sum(first[window] for window in range(10)) == 5
    assert first + second == Counter(dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, 14), 2))


def test_fraction_above_1_is_given_besides_all() -> None:
    mixed = mixture([8], [1.25])

    counts = [times(mixed, epoch) for epoch in range(4)]

    assert [sorted(count.values()) for count in counts] == [[1] * 6 + [2] * 2] * 4
    assert sum(counts, Counter()) == Counter(dict.fromkeys(range(8), 5))


def test_smallest_weight_gives_one_window_at_least() -> None:
    assert [len(mixture([5], [0.001]).rows(epoch)) for epoch in range(3)] == [1, 1, 1]


def test_source_without_windows_has_no_share() -> None:
    assert times(mixture([2, 0], [1.0, 0.5]), 0) == {0: 1, 1: 1}


@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), WEIGHTS, st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_every_epoch_has_as_many_windows_and_each_its_turn(sizes: list[int], weights: list[float], epoch: int) -> None:
    mixed = mixture(sizes[: len(weights)], weights)

    counts = times(mixed, epoch)

    assert counts.total() == len(mixed.rows(0))
    places = np.cumsum([0, *sizes])
    for index, weight in enumerate(weights):
        for window in range(places[index], places[index + 1]):
            assert int(weight) <= counts[window] <= int(weight) + 1


@given(st.lists(st.integers(1, 64), min_size=8, max_size=60), st.floats(0.3, 2.5), st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_ranks_share_a_mixture_in_as_many_batches_each(
    lengths: list[int], weight: float, world_size: int, epoch: int
) -> None:
    half = len(lengths) // 2
    mixed = mixture([half, len(lengths) - half], [weight, 1.0])
    samplers = [TrainBatches(lengths, 64, 7, (rank, world_size), mixed) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(epoch)

    parts = [list(sampler) for sampler in samplers]

    assert {len(part) for part in parts} == {len(samplers[0])}
    given_times = Counter(chain.from_iterable(chain.from_iterable(parts)))
    wanted = times(mixed, epoch)
    assert given_times.keys() == wanted.keys()
    if any(len(batch) > 1 for part in parts for batch in part):  # otherwise some are given twice to make them even
        assert given_times == wanted


@pytest.fixture(scope="module")
def encoded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> EncodedRows:
    """Forty rows, the last of them of several windows."""
    folder, tokens, task = tmp_path_factory.mktemp("encoded"), load_tokens(str(tiny_model)), Classification(("a", "b"))
    with RowWriter(folder / "rows.arrow", ("text", "label")) as writer:
        for number in range(40):
            text = "a dull film " * (number % 7 + (40 if number == 39 else 1))
            writer.write(Placed(0, f"a.csv:{number}", {"text": text, "label": "ab"[number % 2]}))
    rows = StoredRows(folder / "rows.arrow")
    write_windows(folder / "windows.arrow", rows, task, tokens, lambda _: None)
    return EncodedRows(rows, StoredWindows(folder / "windows.arrow"), tokens.pad_token_id)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1), (3, 2), (4, 0)])
def test_ranks_and_workers_are_given_every_window_once(world_size: int, workers: int, encoded: EncodedRows) -> None:
    loaders: list[DataLoader[Batch]] = [
        _loader(encoded, TrainBatches(encoded.lengths, 128, 3, (rank, world_size)), workers)
        for rank in range(world_size)
    ]

    batches = [batch for loader in loaders for batch in loader]

    assert len(encoded) > 40
    assert sorted(window for batch in batches for window in batch["windows"].tolist()) == list(range(len(encoded)))
    for batch in batches:
        for window, ids, mask, target in zip(
            batch["windows"].tolist(),
            batch["inputs"]["input_ids"],
            batch["inputs"]["attention_mask"],
            batch["targets"],
            strict=True,
        ):
            assert ids[mask == 1].tolist() == encoded.windows[window].inputs["input_ids"].tolist()
            assert int(target) == encoded.windows[window].row % 2
