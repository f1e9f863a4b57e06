"""``suffuse fit``: LightningCLI over `TextModule` and `TextData`, with a run folder that alone is enough to export."""

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from suffuse.errors import InputError
from suffuse.training.data import TextData
from suffuse.training.module import SCORE, TextModule, read_checkpoint
from suffuse.training.run_folder import (
    BEST,
    CHECKPOINTS,
    LAST,
    TEST_ROWS,
    PlainProgress,
    RunFolder,
    WholeCheckpoints,
    best_checkpoint,
    checkpoint_callbacks,
)

__all__ = ["BEST", "LAST", "RUNS", "TEST_ROWS", "FitCLI", "best_checkpoint", "data_of", "fit"]

RUNS = Path("runs")

_DEFAULTS = {
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
}


class FitCLI(LightningCLI):
    """LightningCLI whose run goes to runs/NAME, NAME being that of the recipe."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what Lightning leaves open: where to, from where on, and when to stop early."""
        parser.add_argument("--run", type=str, default="", help="Folder of the run (default: runs/NAME_OF_THE_RECIPE).")
        parser.add_argument(
            "--resume", action="store_true", help="Go on from the run's last checkpoint, if there is one."
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            help="Validations without a better score before a stop (default: the training goes to its end, when the "
            "rate has fallen to zero).",
        )

    def before_instantiate_classes(self) -> None:
        """Settle where the run goes, and what it goes on from."""
        config = self.config
        recipes = config.config or []
        self.run_folder = Path(config.run or RUNS / (Path(str(recipes[0])).stem if recipes else "run"))
        last = self.run_folder / CHECKPOINTS / LAST
        self.resumed_from = last if config.resume and last.is_file() else None
        if self.resumed_from:
            read_checkpoint(self.resumed_from)

    def instantiate_trainer(self, **settings: Any) -> lightning.Trainer:  # noqa: ANN401
        """The Trainer of the recipe with our logger and callbacks beside its own."""
        trainer = self._get(self.config_init, "trainer")
        given = trainer.callbacks or []
        given = list(given) if isinstance(given, list) else [given]
        taken = {callback.state_key for callback in given}
        settings["callbacks"] = given + [callback for callback in self._callbacks() if callback.state_key not in taken]
        ours = {
            "default_root_dir": self.run_folder,
            "enable_progress_bar": sys.stderr.isatty(),
            "logger": _loggers(self.run_folder),
            "plugins": [WholeCheckpoints()],
        }
        settings |= {name: value for name, value in ours.items() if trainer[name] is None}
        return super().instantiate_trainer(**settings)

    def _callbacks(self) -> list[Callback]:
        recipe = self.parser.dump(self.config, skip_none=True)
        callbacks: list[Callback] = [RunFolder(self.run_folder, recipe, resumed=self.resumed_from is not None)]
        if self.config.trainer.enable_checkpointing is not False:
            callbacks += checkpoint_callbacks(self.run_folder)
        if self.config.patience is not None:
            callbacks.append(
                EarlyStopping(SCORE, mode="max", patience=self.config.patience, check_on_train_epoch_end=False)
            )
        return callbacks if sys.stderr.isatty() else [*callbacks, PlainProgress()]


def fit(arguments: Sequence[str]) -> Path:
    """Train as a recipe says.

    Args:
        arguments: of LightningCLI: ``--config configs/sentiment.yaml --trainer.max_epochs 2``.

    Returns:
        The run's folder, with config.yaml, metrics.csv, checkpoints/best.ckpt and last.ckpt, test.jsonl, and
        training.svg where matplotlib is installed.

    Raises:
        InputError: an option, rows, labels or the model cannot be used.
    """
    with _quiet():
        cli = _instantiate(arguments)
        # As Lightning would later, but before it touches the folder: bad input leaves an earlier run as it was.
        cli.datamodule.encode(cli.model.tokens)
        cli.model.build(cli.datamodule.task)
        resume = str(cli.resumed_from) if cli.resumed_from else None
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    return cli.run_folder


def data_of(recipe: Path) -> TextData:
    """The rows of a recipe, read and split as `fit` does it."""
    parser = LightningArgumentParser()
    parser.add_class_arguments(TextData, "data")
    content = yaml.safe_load(recipe.read_text("utf-8"))
    data: TextData = parser.instantiate(parser.parse_object({"data": content["data"]})).data
    return data


def _instantiate(arguments: Sequence[str]) -> FitCLI:
    try:
        return FitCLI(
            TextModule,
            TextData,
            args=list(arguments),
            run=False,
            seed_everything_default=1,
            # RunFolder keeps the recipe: Lightning's callback refuses to start over an older one.
            save_config_callback=None,
            # TextModule makes its own optimizer: its network is built after the data, too late for Lightning's options.
            auto_configure_optimizers=False,
            trainer_defaults=_DEFAULTS,
            parser_kwargs={"prog": "suffuse fit", "exit_on_error": False},
        )
    except ArgumentError as error:
        raise InputError(f"fit: {error}; all options: suffuse fit --help") from None
    except MisconfigurationException as error:
        raise InputError(f"fit: the trainer cannot be set up: {error}") from None


def _loggers(run: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(run.parent, name=run.name, version="")]
    if any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        loggers.append(TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False))
    return loggers


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Lightning's notes and advice: what a user must know, our own lines and errors say."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            for message in (".*exists and is not empty.*", ".*args parameter is intended.*"):
                warnings.filterwarnings("ignore", message)
            for category in (FutureWarning, DeprecationWarning):  # between Lightning and the libraries under it
                warnings.filterwarnings("ignore", category=category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
