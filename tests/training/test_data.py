"""Rows for training: which side they fall on, how they are batched for ranks, and what is said about bad ones."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.batching import PADDING_TARGET
from suffuse.errors import DataError, RowError
from suffuse.rows import PlacedRow
from suffuse.tasks import Classification
from suffuse.training import Split, TextData
from suffuse.training.data import EncodedRows, TrainBatches, ValidationBatches
from suffuse.training.models import load_tokens

LENGTHS = st.lists(st.integers(1, 64), min_size=4, max_size=60)
RANKS = st.integers(1, 4)


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., str]:
    """Write lines to a CSV file and return its path."""

    def write(*lines: str, name: str = "rows.csv") -> str:
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return str(tmp_path / name)

    return write


def flat(batches: Iterable[list[int]]) -> list[int]:
    return sorted(index for batch in batches for index in batch)


@given(st.text(max_size=20), st.integers(0, 1000))
def test_group_stays_on_one_side(group: str, number: int) -> None:
    split = Split(0.3, 0.3, group_by="film")
    row = {"text": str(number), "film": group}
    assert split.side(PlacedRow("a:1", row)) == split.side(PlacedRow("b:9", {**row, "text": "another"}))


def test_copies_of_a_row_stay_on_one_side() -> None:
    split = Split(0.3, 0.3)
    assert split.side(PlacedRow("a:1", {"text": "x", "label": "y"})) == split.side(
        PlacedRow("a:2", {"label": "y", "text": "x"})
    )


def test_shares_are_about_what_was_asked_for() -> None:
    sides = [Split(0.2, 0.1).side(PlacedRow("", {"text": str(number)})) for number in range(4000)]
    assert sides.count("validation") / 4000 == pytest.approx(0.2, abs=0.03)
    assert sides.count("test") / 4000 == pytest.approx(0.1, abs=0.03)


def test_row_without_the_column_to_group_by_is_named() -> None:
    message = "rows.csv:2: no column 'film' to group by; got text, label"
    with pytest.raises(RowError, match=f"^{re.escape(message)}$"):
        Split(group_by="film").side(PlacedRow("rows.csv:2", {"text": "x", "label": "y"}))


def test_every_row_falls_on_one_side(reviews_csv: Path) -> None:
    data = TextData(str(reviews_csv), split=Split(0.2, 0.2))
    sides = {side: [placed.where for placed in data.rows(side)] for side in ("train", "validation", "test")}
    assert all(sides.values())
    assert sorted(chain(*sides.values())) == sorted(f"reviews.csv:{line}" for line in range(2, 62))


def test_file_for_validation_leaves_the_training_file_whole(reviews_csv: Path) -> None:
    data = TextData(str(reviews_csv), validation=str(reviews_csv))
    assert [len(data.rows(side)) for side in ("train", "validation", "test")] == [60, 60, 0]


def test_columns_and_where_choose_what_is_read(csv: Callable[..., str]) -> None:
    path = csv("text,verdict,kind", "fine,good,review", "poor,bad,review", "a plot,plot,summary")
    data = TextData(path, validation=path, columns={"label": "verdict"}, where={"kind": ["review"]})
    assert [placed.row["label"] for placed in data.rows("train")] == ["good", "bad"]


def test_where_that_leaves_nothing_is_named(csv: Callable[..., str]) -> None:
    path = csv("text,label", "fine,good")
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: no row is left by where: label in (x, y)')}$"):
        TextData(path, where={"label": ["y", "x"]}).rows("train")


def test_rows_are_written_with_the_fields_of_the_task(csv: Callable[..., str], tmp_path: Path) -> None:
    path = csv("text,label,film", "fine,good,Ran", "caf\u00e9,bad,Ran")
    assert TextData(path, validation=path, test=path).write_rows("test", tmp_path / "test.jsonl") == 2
    lines = (tmp_path / "test.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "fine", "label": "good"},
        {"text": "caf\u00e9", "label": "bad"},
    ]


def test_digests_name_files_without_their_folders(csv: Callable[..., str]) -> None:
    train, other = csv("text,label", "a,b"), csv("text,label", "c,d", name="other.csv")
    assert TextData(train, validation=other).digests == {
        "train: rows.csv": hashlib.sha256(Path(train).read_bytes()).hexdigest(),
        "validation: other.csv": hashlib.sha256(Path(other).read_bytes()).hexdigest(),
    }


def test_fewer_rows_than_processes_are_refused(csv: Callable[..., str], tiny_model: Path) -> None:
    path = csv("text,label", "fine,good", "poor,bad")
    data = TextData(path, validation=path)
    module = SimpleNamespace(tokens=load_tokens(str(tiny_model)))
    data.trainer = cast("Any", SimpleNamespace(lightning_module=module, global_rank=0, world_size=3))
    message = f"{path}: 2 training rows for 3 processes; expected at least one each: lower trainer.devices"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        data.setup("fit")


@settings(deadline=None, max_examples=50)
@given(LENGTHS, RANKS)
def test_ranks_share_the_rows_of_an_epoch_in_as_many_batches_each(lengths: list[int], world_size: int) -> None:
    samplers = [TrainBatches(lengths, 64, 7, (rank, world_size)) for rank in range(world_size)]
    parts = [list(sampler) for sampler in samplers]
    assert set(flat(chain(*parts))) == set(range(len(lengths)))
    assert {len(part) for part in parts} == {len(samplers[0])}


@settings(deadline=None, max_examples=50)
@given(LENGTHS, RANKS)
def test_ranks_validate_every_row_in_as_many_batches_each(lengths: list[int], world_size: int) -> None:
    samplers = [ValidationBatches(lengths, 64, (rank, world_size)) for rank in range(world_size)]
    parts = [list(sampler) for sampler in samplers]
    assert set(flat(chain(*parts))) == set(range(len(lengths)))
    assert {len(part) for part in parts} == {len(samplers[0])}


def epoch(sampler: TrainBatches, number: int) -> list[list[int]]:
    iterator = iter(sampler)  # before the epoch is told, as Lightning does in a resumed run
    sampler.set_epoch(number)
    return list(iterator)


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    lengths = list(range(1, 60))
    one, same, other = (TrainBatches(lengths, 64, seed, (0, 1)) for seed in (1, 1, 2))
    assert epoch(one, 0) != epoch(one, 1)
    assert epoch(one, 1) == epoch(same, 1)
    assert epoch(one, 1) != epoch(other, 1)


def test_sampler_resumed_within_an_epoch_gives_the_rest_of_it() -> None:
    lengths = list(range(1, 60))
    sampler, resumed = (TrainBatches(lengths, 64, 1, (0, 1)) for _ in range(2))
    sampler.set_epoch(3)
    iterator = iter(sampler)
    seen = [next(iterator) for _ in range(5)]
    resumed.load_state_dict(sampler.state_dict())
    rest = epoch(resumed, 3)
    assert seen + rest == epoch(TrainBatches(lengths, 64, 1, (0, 1)), 3)
    assert len(epoch(resumed, 4)) == len(resumed)


def test_batch_is_padded_to_its_longest_row(tiny_model: Path) -> None:
    rows = [{"text": "a dull film", "label": "bad"}, {"text": "funny", "label": "good"}]
    batch = EncodedRows(rows, Classification(labels=("bad", "good")), load_tokens(str(tiny_model)))[[1, 0]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["inputs"]["input_ids"][0, 3:].tolist() == [0, 0]
    assert batch["targets"].tolist() == [1, 0]
    assert batch["windows"].tolist() == [1, 0]


def test_targets_along_tokens_are_padded_so_that_losses_leave_them_out(tiny_model: Path) -> None:
    rows = [{"text": "a dull film", "label": "bad"}, {"text": "funny", "label": "bad"}]
    encoded = EncodedRows(rows, Classification(labels=("bad", "good")), load_tokens(str(tiny_model)))
    encoded.targets = [np.ones(len(window), dtype=np.int64) for window in encoded.windows]
    assert encoded[[0, 1]]["targets"].tolist() == [[1] * 5, [1] * 3 + [PADDING_TARGET] * 2]
