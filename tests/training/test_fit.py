"""``suffuse fit`` from end to end on a toy task: what it learns, what it leaves in the run's folder, how it goes on."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from suffuse.cli import main
from suffuse.tasks import Classification
from suffuse.training import fit as fit_module
from suffuse.training import run_folder
from suffuse.training.fit import best_checkpoint, fit
from suffuse.training.module import load_checkpoint

Recipe = dict[str, Any]


@pytest.fixture
def recipe(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> Recipe:
    """Options with which two epochs of three steps take a second."""
    return {
        "run": tmp_path / "run",
        "model.model": tiny_model,
        "data.train": reviews_csv,
        "data.loading.tokens_per_batch": 256,
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
    }


def line(recipe: Recipe) -> list[str]:
    return [f"--{key}={value}" for key, value in recipe.items()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores(run: Path) -> list[float]:
    return [float(row["val_score"]) for row in metrics(run) if row["val_score"]]


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


class Stop(Callback):
    """Stands for a crash: raises as soon as a number of steps are done."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:  # noqa: ANN401
        if trainer.global_step == self._steps:
            raise ConnectionAbortedError


class Keep(Callback):
    """Keeps the Trainer, to look at afterwards."""

    trainer: Any = None

    def on_fit_start(self, trainer: Any, module: Any) -> None:  # noqa: ANN401, ARG002
        Keep.trainer = trainer


@pytest.fixture
def add_callback(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callback], None]:
    """Put a callback behind those of `fit`."""

    def add(callback: Callback) -> None:
        monkeypatch.setattr(fit_module, "PlainProgress", lambda: callback)

    return add


def test_toy_task_is_learned(recipe: Recipe, reviews_csv: Path) -> None:
    run = fit(line(recipe | {"model.optimization.learning_rate": 3e-3, "trainer.max_epochs": 8}))
    trained = load_checkpoint(run / "checkpoints/last.ckpt")
    with reviews_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    windows = trained.task.encode(rows, trained.tokens)
    inputs = [{name: torch.tensor(array)[None] for name, array in window.inputs.items()} for window in windows]
    with torch.no_grad():
        outputs = [
            {"logits": trained.network(**one, attention_mask=torch.ones_like(one["input_ids"]))[0].numpy()}
            for one in inputs
        ]
    assert (
        trained.task.metrics(trained.task.decode(rows, windows, outputs), [trained.task.target(row) for row in rows])[
            "accuracy"
        ]
        > 0.95
    )


def test_run_holds_recipe_metrics_checkpoints_and_rows_held_back(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe))
    files = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    checkpoints = {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert files == {"config.yaml", "metrics.csv", "test.jsonl", "training.svg", *checkpoints}
    held_back = [json.loads(text) for text in (tmp_path / "run/test.jsonl").read_text("utf-8").splitlines()]
    assert all(row.keys() == {"text", "label"} for row in held_back)


def test_only_the_folder_of_the_run_stands_on_stdout(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *line(recipe)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'run'}\n"
    assert [text.split(":")[0] for text in err.splitlines()] == ["epoch 0", "epoch 1"]


def test_run_is_named_after_its_recipe(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    del recipe["run"]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}}), "utf-8")
    assert fit(["--config=toy.yaml", *line(recipe | {"trainer.max_epochs": 1})]) == Path("runs/toy")
    assert (tmp_path / "runs/toy/checkpoints/best.ckpt").is_file()


def test_recipe_in_the_run_makes_the_same_run_again(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe))
    fit([f"--config={tmp_path / 'run/config.yaml'}", f"--run={tmp_path / 'again'}"])
    assert largest_difference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "again/checkpoints/last.ckpt") == 0


def test_another_seed_makes_another_run(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe))
    fit(line(recipe | {"run": tmp_path / "other", "seed_everything": 2}))
    assert largest_difference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "other/checkpoints/last.ckpt") > 1e-3


def test_best_checkpoint_is_the_one_with_the_best_score(recipe: Recipe, tmp_path: Path) -> None:
    # The rate is so high that the score falls again.
    fit(line(recipe | {"model.optimization.learning_rate": 0.01, "trainer.max_epochs": 6}))
    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt").metrics["f1_macro"]
    assert best == pytest.approx(max(scores(tmp_path / "run")))
    assert len(scores(tmp_path / "run")) == 6


@pytest.mark.parametrize(("patience", "epochs"), [({}, 6), ({"patience": 2}, 3)])
def test_training_goes_to_its_end_unless_it_has_a_patience(
    recipe: Recipe, tmp_path: Path, patience: Recipe, epochs: int
) -> None:
    fit(line(recipe | {"model.optimization.learning_rate": 0.0, "trainer.max_epochs": 6} | patience))
    assert len(scores(tmp_path / "run")) == epochs


def test_last_checkpoint_is_of_the_last_epoch_even_when_another_was_better(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe | {"model.optimization.learning_rate": 0.0, "trainer.max_epochs": 3}))
    epochs = [
        torch.load(tmp_path / "run/checkpoints" / name, weights_only=True)["global_step"] for name in run_folder_files()
    ]
    assert epochs[0] * 3 == epochs[1]


def run_folder_files() -> tuple[str, str]:
    return run_folder.BEST, run_folder.LAST


@pytest.mark.parametrize("steps", [6, 8])
def test_resumed_run_equals_an_uninterrupted_one(
    steps: int, recipe: Recipe, tmp_path: Path, add_callback: Callable[[Callback], None]
) -> None:
    recipe |= {"trainer.max_epochs": 4, "model.optimization.learning_rate": 1e-3}
    fit(line(recipe | {"run": tmp_path / "whole"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "PlainProgress", lambda: Stop(steps))
        with pytest.raises(ConnectionAbortedError):
            fit(line(recipe))
    fit([*line(recipe), "--resume"])
    assert largest_difference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "whole/checkpoints/last.ckpt") < 1e-6
    assert [(row["epoch"], row["step"], row["train_loss"]) for row in metrics(tmp_path / "run")] == [
        (row["epoch"], row["step"], row["train_loss"]) for row in metrics(tmp_path / "whole")
    ]


def test_run_resumed_within_an_epoch_equals_an_uninterrupted_one(
    recipe: Recipe, tmp_path: Path, add_callback: Callable[[Callback], None]
) -> None:
    class SaveAndStop(Stop):
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:  # noqa: ANN401
            if trainer.global_step == self._steps:
                trainer.save_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
            super().on_train_batch_end(trainer, *arguments)

    fit(line(recipe | {"run": tmp_path / "whole", "data.loading.tokens_per_batch": 128}))
    add_callback(SaveAndStop(5))
    with pytest.raises(ConnectionAbortedError):
        fit(line(recipe | {"data.loading.tokens_per_batch": 128}))
    add_callback(Keep())
    fit([*line(recipe | {"data.loading.tokens_per_batch": 128}), "--resume"])
    assert largest_difference(tmp_path / "run/checkpoints/last.ckpt", tmp_path / "whole/checkpoints/last.ckpt") < 1e-6


def test_resume_with_nothing_to_resume_starts_anew(recipe: Recipe, tmp_path: Path) -> None:
    fit([*line(recipe), "--resume"])
    assert len(scores(tmp_path / "run")) == 2


def test_run_of_other_labels_is_not_resumed(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(line(recipe))
    capsys.readouterr()
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + "".join(f"film {number},{('yes', 'no')[number % 2]}\n" for number in range(60)))
    assert main(["fit", *line(recipe | {"data.train": other}), "--resume"]) == 2
    assert "the run to resume has task" in capsys.readouterr().err


def test_new_run_in_an_old_folder_keeps_nothing_of_the_old(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe))
    old = (tmp_path / "run/checkpoints/best.ckpt").stat().st_mtime_ns
    fit(line(recipe | {"trainer.max_epochs": 1, "data.split.test": 0}))
    assert len(scores(tmp_path / "run")) == 1
    assert not (tmp_path / "run/test.jsonl").exists()
    assert (tmp_path / "run/checkpoints/best.ckpt").stat().st_mtime_ns > old
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 0


def test_quick_check_leaves_an_earlier_run_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    fit(line(recipe | {"trainer.fast_dev_run": "true"}))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_crash_in_the_middle_of_a_checkpoint_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = run_folder.WholeCheckpoints()
    files.save_checkpoint({"state_dict": {}, "epoch": 1}, tmp_path / "last.ckpt")

    def save_a_part(_: object, file: Any) -> None:  # noqa: ANN401
        file.write(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", save_a_part)
    with pytest.raises(OSError, match=r"^No space left on device$"):
        files.save_checkpoint({"state_dict": {}, "epoch": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1


def test_gradients_are_clipped_unless_the_recipe_says_otherwise(
    recipe: Recipe, add_callback: Callable[[Callback], None]
) -> None:
    add_callback(Keep())
    fit(line(recipe | {"trainer.fast_dev_run": "true"}))
    assert Keep.trainer.gradient_clip_val == 1.0
    fit(line(recipe | {"trainer.fast_dev_run": "true", "trainer.gradient_clip_val": 0.5}))
    assert Keep.trainer.gradient_clip_val == 0.5


def test_mixed_precision_is_trained_with_clipped_gradients(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe | {"trainer.precision": "bf16-mixed", "trainer.max_epochs": 1}))
    assert weights(tmp_path / "run/checkpoints/last.ckpt")["network.classifier.weight"].dtype == torch.float32


def test_steps_and_accumulated_batches_end_the_schedule_at_zero(
    recipe: Recipe, add_callback: Callable[[Callback], None]
) -> None:
    add_callback(Keep())
    fit(line(recipe | {"trainer.accumulate_grad_batches": 2, "data.loading.tokens_per_batch": 128}))
    assert Keep.trainer.global_step == Keep.trainer.estimated_stepping_batches
    assert [group["lr"] for group in Keep.trainer.optimizers[0].param_groups] == [0.0] * 3


def test_run_cut_by_steps_within_an_epoch_can_be_exported(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe | {"trainer.max_steps": 2, "data.loading.tokens_per_batch": 64}))
    assert best_checkpoint(tmp_path / "run") == tmp_path / "run/checkpoints/last.ckpt"
    assert load_checkpoint(best_checkpoint(tmp_path / "run")).metrics == {}


def test_callbacks_of_the_recipe_come_beside_ours(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    watching = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
    path.write_text(yaml.safe_dump({"trainer": {"callbacks": [watching]}}), "utf-8")
    fit([f"--config={path}", *line(recipe)])
    assert any(name.startswith("lr-AdamW") for name in metrics(tmp_path / "run")[0])
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()


def test_rates_and_hop_weights_are_logged(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe | {"model.num_hops": 3, "model.optimization.attention_learning_rate": 1e-2}))
    rows = metrics(tmp_path / "run")
    trained = [row for row in rows if row["train_loss"]]
    assert all(float(row["attention_learning_rate"]) > float(row["learning_rate"]) for row in trained[:-1])
    validated = [row for row in rows if row["val_score"]]
    names = [f"beta_layer{layer}_hop{hop}" for layer in (0, 1) for hop in (2, 3)]
    assert all(float(row[name]) != 0 for row in validated for name in names)


def test_plain_attention_has_no_hop_weights_to_log(recipe: Recipe, tmp_path: Path) -> None:
    fit(line(recipe | {"model.num_hops": 1}))
    assert not [name for name in metrics(tmp_path / "run")[0] if "beta" in name or "attention" in name]


def test_without_matplotlib_a_line_says_that_there_is_no_picture(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    fit(line(recipe))
    expected = "no training.svg: matplotlib is missing; install it with: pip install 'suffuse[plots]'"
    assert capsys.readouterr().err.splitlines()[-1] == expected
    assert not (tmp_path / "run/training.svg").exists()


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return object() if name == "tensorboardX" else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(fit_module, "TensorBoardLogger", lambda folder, **_: ("tensorboard", folder))
    loggers: list[object] = [*fit_module._loggers(tmp_path)]
    assert isinstance(loggers[0], CSVLogger)
    assert loggers[1:] == [("tensorboard", tmp_path)]


def test_tensorboard_is_left_out_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert len(fit_module._loggers(tmp_path)) == 1


def test_pairs_are_learned_from_a_recipe(recipe: Recipe, tmp_path: Path) -> None:
    rows = tmp_path / "pairs.csv"
    lines = [f"the film {number},a {('good', 'bad')[number % 2]} film,{number % 2}" for number in range(40)]
    rows.write_text("\n".join(["text,text_pair,label", *lines]) + "\n", "utf-8")
    path = tmp_path / "recipe.yaml"
    task = {"class_path": "Classification", "init_args": {"pair": True}}
    path.write_text(yaml.safe_dump({"data": {"task": task}}), "utf-8")
    fit([f"--config={path}", *line(recipe | {"data.train": rows})])
    trained = load_checkpoint(best_checkpoint(tmp_path / "run"))
    assert trained.task == Classification(labels=("0", "1"), pair=True)
    assert trained.input_names == ("input_ids", "attention_mask", "token_type_ids")


def test_several_labels_a_row_are_learned_from_the_command_line(recipe: Recipe, tmp_path: Path) -> None:
    rows = tmp_path / "topics.csv"
    lines = [f'a film {number},"{("a,b", "a", "b,c", "")[number % 4]}"' for number in range(40)]
    rows.write_text("\n".join(["text,labels", *lines]) + "\n", "utf-8")
    task = ["--data.task=Classification", "--data.task.multi_label=true"]
    fit([*task, *line(recipe | {"data.train": rows})])
    trained = load_checkpoint(best_checkpoint(tmp_path / "run"))
    assert trained.task == Classification(labels=("a", "b", "c"), multi_label=True)
    assert set(trained.metrics) == {"exact_match", "f1_macro", "f1_micro"}


def test_two_processes_take_equally_many_steps_and_measure_every_row_once(recipe: Recipe, tmp_path: Path) -> None:
    # Without learning, so that both measure the same network; with an odd number of batches to validate.
    rates = {"model.optimization.learning_rate": 0.0, "model.optimization.attention_learning_rate": 0.0}
    recipe |= {**rates, "data.loading.tokens_per_batch": 32, "data.split.validation": 0.3}
    fit(line(recipe | {"run": tmp_path / "alone"}))
    two = line(recipe | {"trainer.devices": 2, "trainer.strategy": "ddp"})
    done = subprocess.run(
        [sys.executable, "-m", "suffuse.cli", "fit", *two],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, [text.split(":")[0] for text in done.stderr.splitlines()]) == (0, ["epoch 0", "epoch 1"])
    together, alone = metrics(tmp_path / "run"), metrics(tmp_path / "alone")
    measured = [
        [float(row[name]) for name in ("val_score", "val_loss") if row[name]] for row in (together[-1], alone[-1])
    ]
    assert measured[0] == pytest.approx(measured[1], abs=1e-5)
    assert int(together[-1]["step"]) + 1 == pytest.approx((int(alone[-1]["step"]) + 1) / 2, abs=1)


def test_run_needs_nothing_but_its_folder(recipe: Recipe, tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    fit(line(recipe | {"model.model": model}))
    shutil.rmtree(model)
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert load_checkpoint(best_checkpoint(moved)).task == Classification(labels=("bad", "good"))
