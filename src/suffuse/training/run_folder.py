"""The folder of a run: which files it holds, and how they stay whole, whatever happens while they are written."""

import csv
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from suffuse.training.data import TextData
from suffuse.training.module import SCORE, TextModule
from suffuse.training.prepared import REJECTS, line_count

BEST = "best.ckpt"
LAST = "last.ckpt"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.csv"
RECIPE = "config.yaml"
PLOT = "training.svg"
LONGEST_LOSS = timedelta(minutes=10)
"""How much of a training a crash costs, at most."""
TEST_ROWS = "test.jsonl"


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the best score of a run's folder, or the last where no validation was reached."""
    best = run / CHECKPOINTS / BEST
    return best if best.is_file() else run / CHECKPOINTS / LAST


def checkpoint_callbacks(run: Path) -> list[Callback]:
    """Keep the checkpoint with the best score, and the last one, which is what a run is resumed from.

    They are two: Lightning's `save_last` writes only together with a new best one, and a resumed run would go back
    there.
    """
    folder = run / CHECKPOINTS
    return [
        ModelCheckpoint(
            folder,
            Path(BEST).stem,
            monitor=SCORE,
            mode="max",
            save_on_train_epoch_end=False,  # at the end of a validation: without one there is no score
            enable_version_counter=False,
        ),
        ModelCheckpoint(folder, Path(LAST).stem, save_on_train_epoch_end=True, enable_version_counter=False),
        # Within long epochs, of which a crash would cost all.
        ModelCheckpoint(folder, Path(LAST).stem, train_time_interval=LONGEST_LOSS, enable_version_counter=False),
    ]


class RunFolder(Callback):
    """Writes the recipe and the rows held back, clears away an earlier run of that name, and draws the course.

    The former at the start of training, when rows, labels and model have proved usable: until then the earlier run
    stays.

    Args:
        path: the folder.
        recipe: text of config.yaml.
        resumed: whether the run goes on from its last checkpoint; its metrics up to there are kept.
    """

    def __init__(self, path: Path, recipe: str, *, resumed: bool) -> None:
        self.path = path
        self._recipe = recipe
        self._resumed = resumed
        self._earlier = _read_metrics(path / METRICS) if resumed else []

    def on_fit_start(self, trainer: lightning.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Write what is known beforehand."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not self._resumed:
            for name in (f"{CHECKPOINTS}/{BEST}", f"{CHECKPOINTS}/{LAST}", TEST_ROWS, REJECTS, PLOT):
                (self.path / name).unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / RECIPE).write_text(self._recipe, "utf-8")
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, TextData):
            return
        if data.rows("test"):
            data.write_rows("test", self.path / TEST_ROWS)
        if data.rejects.is_file():
            shutil.copyfile(data.rejects, self.path / REJECTS)
            _say(f"{line_count(data.rejects)} bad rows were left out: {self.path / REJECTS}")

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Give a resumed run's logger the metrics of the steps before, which it would drop."""
        for logger in trainer.loggers:
            if self._earlier and isinstance(logger, CSVLogger) and trainer.is_global_zero:
                kept = [row for row in self._earlier if int(row["step"]) < trainer.global_step]
                logger.experiment.metrics = kept + logger.experiment.metrics
                logger.save()

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw what was logged, where matplotlib is installed."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.save()
        rows = _read_metrics(self.path / METRICS)
        if not rows or not isinstance(module, TextModule):
            return
        if importlib.util.find_spec("matplotlib") is None:
            _say(f"no {PLOT}: matplotlib is missing; install it with: pip install 'suffuse[plots]'")
            return
        from suffuse.training.plots import draw_training  # noqa: PLC0415 - an extra

        draw_training(rows, self.path / PLOT, module.data.task.metric)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a crash leaves the old one or the new one, never a part.

    Lightning's own writes to the temporary folder of the system and moves, which between file systems is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401
        """Save to `path`, a local one; other places are left to Lightning."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)


class PlainProgress(Callback):
    """One line every few seconds, for logs; a terminal gets a bar."""

    def __init__(self, every_s: float = 10.0, say: Callable[[str], object] | None = None) -> None:
        self._every_s = every_s
        self._say = say or _say

    def on_train_start(self, *_: Any) -> None:  # noqa: ANN401
        """Start the clock."""
        self._started_s = self._said_s = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Say how far the training is."""
        now_s = time.monotonic()
        if now_s - self._said_s < self._every_s or not trainer.is_global_zero:
            return
        self._said_s = now_s
        steps = trainer.estimated_stepping_batches
        loss = float(trainer.callback_metrics.get("train_loss", float("nan")))
        self._say(f"step {trainer.global_step}/{steps:.0f}, {now_s - self._started_s:.0f} s, train_loss {loss:.3f}")

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:  # noqa: ANN401
        """Say the score."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
        if metrics and trainer.is_global_zero and not trainer.sanity_checking:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            self._say(f"epoch {trainer.current_epoch}: {shown}")


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
