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
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback, Trainer

from suffuse.batching import PADDING_TARGET
from suffuse.errors import DataError, InputError, RowError
from suffuse.tasks import Window
from suffuse.training import Split, TextData
from suffuse.training.data import Loading
from suffuse.training.encoded import batch_of
from suffuse.training.fit import data_of, fit
from suffuse.training.models import load_tokens
from suffuse.training.module import TextModule
from suffuse.training.sampling import TrainBatches, ValidationBatches
from suffuse.training.streaming import Streaming

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
    assert split.side("a:1", row) == split.side("b:9", {**row, "text": "another"})


def test_copies_of_a_row_stay_on_one_side() -> None:
    split = Split(0.3, 0.3)
    assert split.side("a:1", {"text": "x", "label": "y"}) == split.side("a:2", {"label": "y", "text": "x"})


def test_shares_are_about_what_was_asked_for() -> None:
    sides = [Split(0.2, 0.1).side("", {"text": str(number)}) for number in range(4000)]
    assert sides.count("validation") / 4000 == pytest.approx(0.2, abs=0.03)
    assert sides.count("test") / 4000 == pytest.approx(0.1, abs=0.03)


def test_folds_hold_back_every_row_once() -> None:
    rows = [{"text": str(number)} for number in range(500)]
    for test in (0.1, 0.0):
        sides = [[Split(0.1, test, fold=fold).side("", row) for fold in range(10)] for row in rows]
        assert {(row.count("test"), row.count("validation")) for row in sides} == {(round(10 * test), 1)}


def test_row_without_the_column_to_group_by_is_named() -> None:
    message = "rows.csv:2: no column 'film' to group by; got text, label"
    with pytest.raises(RowError, match=f"^{re.escape(message)}$"):
        Split(group_by="film").side("rows.csv:2", {"text": "x", "label": "y"})


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


def test_rows_keep_the_column_that_they_are_grouped_by(csv: Callable[..., str]) -> None:
    path = csv("text,label,film,year", "fine,good,Ran,1985", "poor,bad,Ran,1985")
    data = TextData(path, validation=path, split=Split(group_by="film"))
    assert data.rows("train")[0].row == {"text": "fine", "label": "good", "film": "Ran"}


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
    whole = epoch(TrainBatches(lengths, 64, 1, (0, 1)), 3)
    resumed = TrainBatches(lengths, 64, 1, (0, 1))
    resumed.load_state_dict({"epoch": 3, "given": 5})
    assert epoch(resumed, 3) == whole[5:]
    assert len(epoch(resumed, 4)) == len(resumed)


def test_batch_is_padded_to_its_longest_row(csv: Callable[..., str], tiny_model: Path) -> None:
    path = csv("text,label", "a dull film,bad", "funny,good")
    data = TextData(path, validation=path)
    data.encode(load_tokens(str(tiny_model)))
    batch = data.train_rows[[1, 0]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["inputs"]["input_ids"][0, 3:].tolist() == [0, 0]
    assert batch["targets"].tolist() == [1, 0]
    assert batch["windows"].tolist() == [1, 0]


def test_targets_along_tokens_are_padded_so_that_losses_leave_them_out() -> None:
    windows = [Window(0, {"input_ids": np.ones(size, dtype=np.int64)}) for size in (5, 3)]
    batch = batch_of(windows, [np.ones(len(window), dtype=np.int64) for window in windows], [0, 1], 0)
    assert batch["targets"].tolist() == [[1] * 5, [1] * 3 + [PADDING_TARGET] * 2]


BAD_LINES = ["only one column", " ,good", "fine,god"]


@pytest.fixture
def with_bad_lines(reviews_csv: Path, tmp_path: Path) -> Path:
    """The reviews with three bad lines in the middle."""
    lines = reviews_csv.read_text("utf-8").splitlines()
    (tmp_path / "bad.csv").write_text("\n".join([*lines[:20], *BAD_LINES, *lines[20:]]) + "\n", "utf-8")
    return tmp_path / "bad.csv"


def fitted(tmp_path: Path, model: Path, data: dict[str, Any]) -> Path:
    """The folder of a run of one epoch."""
    recipe = {
        "model": {"model": str(model)},
        "data": {"task": {"class_path": "Classification", "init_args": {"labels": ["bad", "good"]}}, **data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return fit([f"--config={tmp_path / 'recipe.yaml'}", f"--run={tmp_path / 'run'}"])


def rejected(run: Path) -> list[tuple[str, str]]:
    lines = map(json.loads, (run / "rejects.jsonl").read_text("utf-8").splitlines())
    return sorted((line["where"], line["code"]) for line in lines)


@pytest.mark.parametrize("streaming", [None, {"shuffle_rows": 16}])
def test_run_lists_the_bad_rows_that_it_skipped_and_so_does_the_next(
    streaming: dict[str, int] | None,
    with_bad_lines: Path,
    reviews_csv: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loading = {"on_bad_row": "skip", "tokens_per_batch": 256, **({"streaming": streaming} if streaming else {})}
    data = {"train": str(with_bad_lines), "validation": str(reviews_csv), "loading": loading}
    expected = [("bad.csv:21", "wrong_columns"), ("bad.csv:22", "empty_text"), ("bad.csv:23", "unknown_label")]

    for _ in range(2):  # the second finds the rows prepared
        run = fitted(tmp_path, tiny_model, data)

        assert rejected(run) == expected
        said = [line for line in capsys.readouterr().err.splitlines() if "bad rows" in line]
        assert said == [f"3 bad rows were left out: {run}/rejects.jsonl"]


def test_run_says_of_streamed_and_of_stored_rows_what_was_left_out(
    with_bad_lines: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val.csv").write_text("text,label\nfine,good\n,bad\npoor,bad\n", "utf-8")
    loading = {"on_bad_row": "skip", "tokens_per_batch": 256, "streaming": {"shuffle_rows": 16}}
    data = {"train": str(with_bad_lines), "validation": str(tmp_path / "val.csv"), "loading": loading}

    run = fitted(tmp_path, tiny_model, data)

    assert [where for where, _ in rejected(run)] == ["bad.csv:21", "bad.csv:22", "bad.csv:23", "val.csv:3"]
    said = [line for line in capsys.readouterr().err.splitlines() if "bad rows" in line]
    assert said == [f"{count} bad rows were left out: {run}/rejects.jsonl" for count in (1, 4)]


def test_recipe_mixes_sources_with_columns_and_weights_of_their_own(csv: Callable[..., str], tmp_path: Path) -> None:
    one = csv("text,label", "a,good", "b,bad", name="one.csv")
    csv("review,label", "c,good", name="two-1.csv")
    csv("review,label", "d,bad", name="two-2.csv")
    two = {"path": str(tmp_path / "two-*.csv"), "weight": 0.5, "columns": {"text": "review"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"data": {"train": [one, two], "validation": one}}), "utf-8")

    data = data_of(tmp_path / "recipe.yaml")

    assert [(placed.source, placed.row["text"]) for placed in data.rows("train")] == [
        (0, "a"),
        (0, "b"),
        (1, "c"),
        (1, "d"),
    ]
    assert data._corpus.weights == [1.0, 0.5]


def test_command_line_takes_sources_as_json(csv: Callable[..., str], tiny_model: Path, tmp_path: Path) -> None:
    one, two = csv("text,label", "a,good", "b,bad", name="one.csv"), csv("text,label", "c,good", name="two.csv")
    train = json.dumps([one, {"path": two, "weight": 2.0}])

    run = fit(
        [
            f"--model.model={tiny_model}",
            f"--data.train={train}",
            f"--data.validation={one}",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
            f"--run={tmp_path / 'run'}",
        ]
    )

    assert yaml.safe_load((run / "config.yaml").read_text("utf-8"))["data"]["train"] == [
        one,
        {"path": two, "weight": 2.0},
    ]


def test_option_of_a_source_that_is_misspelt_is_refused(csv: Callable[..., str], tiny_model: Path) -> None:
    path = csv("text,label", "a,good", "b,bad")

    with pytest.raises(InputError, match="wieght"):
        fit([f"--model.model={tiny_model}", "--data.train=" + json.dumps({"path": path, "wieght": 2})])


def test_weighted_sources_make_epochs_of_their_shares(csv: Callable[..., str], tiny_model: Path) -> None:
    one = csv("text,label", *(f"film {number},good" for number in range(10)), name="one.csv")
    two = csv("text,label", *(f"dull {number},bad" for number in range(4)), name="two.csv")
    data = TextData([{"path": one, "weight": 0.5}, {"path": two, "weight": 2.0}], validation=one)
    data.encode(load_tokens(str(tiny_model)))

    windows = [window for batch in data.train_dataloader() for window in batch["windows"].tolist()]

    assert len(windows) == 5 + 2 * 4
    assert sorted(window for window in windows if window >= 10) == [10, 10, 11, 11, 12, 12, 13, 13]


def test_streamed_rows_are_nowhere_as_a_whole(csv: Callable[..., str]) -> None:
    path = csv("text,label", "a,good", "b,bad")
    data = TextData(path, validation=path, loading=Loading(streaming=Streaming()))

    with pytest.raises(DataError) as caught:
        data.train_rows  # noqa: B018

    assert str(caught.value) == (
        "the training rows are streamed; expected them stored: leave out data.loading.streaming"
    )


class Recorder(Callback):
    """Keeps what every step is given, and saves a checkpoint after some of them, and after the first epoch."""

    def __init__(self, folder: Path, saved_after: tuple[int, ...] = ()) -> None:
        self.folder = folder
        self.saved_after = saved_after
        self.steps: list[tuple[int, list[list[int]]]] = []

    def on_train_batch_end(self, trainer: Trainer, _module: Any, _outputs: Any, batch: Any, _: int) -> None:  # noqa: ANN401 - Lightning's
        pairs = zip(batch["inputs"]["input_ids"], batch["inputs"]["attention_mask"], strict=True)
        self.steps.append((trainer.current_epoch, [ids[mask == 1].tolist() for ids, mask in pairs]))
        if trainer.global_step in self.saved_after:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, _: Any) -> None:  # noqa: ANN401 - Lightning's
        if self.saved_after and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("streaming", [None, Streaming(shuffle_rows=16)])
def test_run_resumed_in_a_later_epoch_is_given_the_rest_of_its_batches(
    streaming: Streaming | None, workers: int, csv: Callable[..., str], tiny_model: Path, tmp_path: Path
) -> None:
    path = csv("text,label", *(f"{'a dull film ' * (number % 4)}{number},{'xy'[number % 2]}" for number in range(30)))

    def trained(recorder: Recorder, checkpoint: Path | None = None) -> list[tuple[int, list[list[int]]]]:
        data = TextData(path, validation=path, loading=Loading(128, workers, streaming=streaming))
        trainer = Trainer(
            max_epochs=3,
            accelerator="cpu",
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(TextModule(str(tiny_model)), data, ckpt_path=checkpoint and str(checkpoint), weights_only=True)
        return recorder.steps

    whole = trained(Recorder(tmp_path, saved_after=(2, 8)))
    first_epoch = sum(epoch == 0 for epoch, _ in whole)

    assert 2 < first_epoch < 8 < len(whole)
    for step in (2, first_epoch, 8):
        assert trained(Recorder(tmp_path), tmp_path / f"{step}.ckpt") == whole[step:]
