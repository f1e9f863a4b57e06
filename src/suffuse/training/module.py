"""The Lightning module: one network, one loss, one optimizer recipe for every task."""

import importlib.metadata
import json
import math
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import BundleError, InputError
from suffuse.tasks import Arrays, Row, Task, Tokens, Window, task_from_dict, task_to_dict
from suffuse.training.data import Batch, EncodedRows, TextData, to_numpy
from suffuse.training.losses import LOSSES
from suffuse.training.models import (
    TextNetwork,
    backbone_from_config,
    config_to_dict,
    load_backbone,
    load_tokens,
    source_name,
)

SCORE = "val_score"
"""The task's own metric on the validation rows, under one name for callbacks; higher is better."""
_KEY = "suffuse"
_RANDOM = "suffuse_random"


@dataclass(frozen=True)
class Optimization:
    """AdamW with a linear warm-up and a linear decay to zero.

    Args:
        learning_rate: peak, for the network.
        attention_learning_rate: peak, for the weights of the attention's further hops; they start at zero and are few,
            so that ten times the network's rate suits them.
        weight_decay: for matrices; biases, normalisations and hop weights have none.
        warmup: share of all steps in which the rate rises.
        betas: of AdamW.
    """

    learning_rate: float = 5e-5
    attention_learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.06
    betas: tuple[float, float] = (0.9, 0.98)


class TextModule(lightning.LightningModule):
    """Fine-tunes a pretrained transformer with diffusion attention for the task of its `TextData`.

    Args:
        model: a Hugging Face name, a folder, or ``pkg://package/path``.
        num_hops: K of the attention; 1 is plain.
        optimization: rates, decay and warm-up.
        dropout: before the last layer.
        max_tokens: longest input; by default the model's own limit, at most 512.

    Raises:
        ModelError: the model cannot be found or read.
    """

    def __init__(
        self,
        model: str,
        num_hops: int = 2,
        optimization: Optimization | None = None,
        dropout: float = 0.1,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_hops = num_hops
        self.optimization = optimization or Optimization()
        self.dropout = dropout
        self.tokens: Tokens = load_tokens(model, max_tokens)
        self.task: Task | None = None
        self.calibrated: Task | None = None
        self.network: TextNetwork | None = None
        self.metrics: dict[str, float] = {}

    @property
    def data(self) -> TextData:
        """The rows that it is trained on."""
        data: TextData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def configure_model(self) -> None:
        """Build the network once the data have told the task its labels."""
        self.build(self.data.task)

    def build(self, task: Task) -> None:
        """Load the pretrained model and put a head for `task` on it; once.

        Raises:
            ModelError: its weights cannot be read.
        """
        if self.network is None:
            self.task = task
            backbone = load_backbone(self.model, self.num_hops)
            self.network = TextNetwork(backbone, task.head, self.dropout).train()  # transformers loads for inference

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of a batch."""
        task, network = self._built()
        logits = network(**self._wanted(batch["inputs"]))
        loss = LOSSES[task.head.loss](logits, batch["targets"], batch["inputs"]["attention_mask"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["windows"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._measured = _Measured({}, {})

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keep the outputs of a batch; they are decoded together, as a server would."""
        task, network = self._built()
        logits: list[Tensor] = []

        def run(_graph: str, arrays: Arrays) -> Arrays:
            inputs = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
            logits.append(network(**self._wanted(inputs)))
            return {"logits": logits[-1].float().cpu().numpy()}

        outputs = task.answer(to_numpy(batch["inputs"]), run)
        for row, window in enumerate(batch["windows"].tolist()):
            self._measured.outputs[window] = {name: array[row] for name, array in outputs.items()}
        loss = LOSSES[task.head.loss](logits[0], batch["targets"], batch["inputs"]["attention_mask"])
        self._measured.losses[int(batch["windows"][0])] = (float(loss), len(batch["windows"]))

    def on_validation_epoch_end(self) -> None:
        """Measure the answers of all ranks together; each rank logs the same, since callbacks on each wait for it."""
        task, _ = self._built()
        measured = _gathered(self._measured)
        self.on_validation_epoch_start()
        rows, windows, outputs = _complete(self.data.validation_rows, measured.outputs)
        self.calibrated = task.calibrate(rows, windows, outputs)
        answers = self.calibrated.decode(rows, windows, outputs)
        self.metrics = self.calibrated.metrics(answers, [task.target(row) for row in rows])
        self.log("val_loss", measured.loss, sync_dist=True)
        self.log_dict({f"val_{name}": value for name, value in self.metrics.items()}, sync_dist=True)
        self.log(SCORE, self.metrics[task.metric], prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over three groups: matrices, vectors, hop weights."""
        _, network = self._built()
        settings = self.optimization
        hops = {id(parameter): parameter for parameter in diffusion_parameters(network)}
        rest = [
            parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in hops
        ]
        groups = [
            {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [parameter for parameter in rest if parameter.ndim <= 1], "weight_decay": 0.0},
            {"params": list(hops.values()), "weight_decay": 0.0, "lr": settings.attention_learning_rate},
        ]
        optimizer = AdamW(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            betas=settings.betas,
            # Lightning clips no gradients in mixed precision where the kernel is fused.
            fused=not self.trainer.precision.endswith("-mixed"),
        )
        schedule = LambdaLR(optimizer, rate_factor(self.trainer.estimated_stepping_batches, settings.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that `load_checkpoint` needs, as plain values, so that a checkpoint alone can be exported."""
        task, network = self._built()
        checkpoint[_KEY] = {
            "task": json.dumps(task_to_dict(self.calibrated or task)),
            "learned": json.dumps(task_to_dict(task)),
            "backbone": json.dumps(config_to_dict(network.backbone.config)),
            "tokenizer": self.tokens.json,
            "max_tokens": self.tokens.max_tokens,
            "pad_token_id": self.tokens.pad_token_id,
            "model": source_name(self.model),
            "num_hops": self.num_hops,
            "metrics": dict(self.metrics),
            "provenance": self._provenance(),
        }
        checkpoint[_RANDOM] = [state.cpu() for state in _random_states(self.device)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a resumed run is the same one, and take over its random numbers, which dropout draws from.

        Raises:
            BundleError: the checkpoint was trained for another task, such as other labels, or with other hops.
        """
        task, _ = self._built()
        saved = checkpoint[_KEY]
        now = {"learned": json.dumps(task_to_dict(task)), "num_hops": self.num_hops}
        for name, value in now.items():
            if saved[name] != value:
                shown = "task" if name == "learned" else name
                raise BundleError(
                    f"the run to resume has {shown} {saved[name]}; data and options now give {value}: "
                    "start it anew without --resume, or give what it was started with"
                )
        self._resumed_random = checkpoint[_RANDOM]

    def on_train_start(self) -> None:
        """Go on with the random numbers of the run that is resumed."""
        if states := self.__dict__.pop("_resumed_random", None):
            torch.set_rng_state(states[0])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(states[-1], self.device)

    def _provenance(self) -> dict[str, Any]:
        seed = os.environ.get("PL_GLOBAL_SEED")
        return {
            "data": self.data.digests,
            "model": source_name(self.model),
            "packages": {name: importlib.metadata.version(name) for name in ("lightning", "torch", "transformers")},
            "seed": int(seed) if seed else None,
        }

    def _wanted(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        _, network = self._built()
        return {name: inputs[name] for name in network.input_names}

    def _built(self) -> tuple[Task, TextNetwork]:
        if self.task is None or self.network is None:
            raise RuntimeError("the network is built by the Trainer: pass the module to Trainer.fit with a TextData")
        return self.task, self.network


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint holds: enough to export it, without the data or the pretrained model."""

    task: Task
    tokens: Tokens
    network: nn.Module
    input_names: tuple[str, ...]
    model: Mapping[str, Any]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]


def load_checkpoint(path: Path) -> TrainedModel:
    """Load a checkpoint of `TextModule`, weights only: nothing in the file is run.

    Raises:
        BundleError: the file is no such checkpoint.
    """
    checkpoint = read_checkpoint(path)
    saved = checkpoint[_KEY]
    task = task_from_dict(json.loads(saved["task"]))
    backbone = backbone_from_config(json.loads(saved["backbone"]), saved["num_hops"])
    network = TextNetwork(backbone, task.head)
    prefix = "network."
    try:
        network.load_state_dict({name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()})
    except RuntimeError:
        trained_with = saved["provenance"]["packages"]["transformers"]
        raise BundleError(
            f"{path}: its weights do not fit the network that the installed transformers builds; "
            f"expected transformers {trained_with}, which it was trained with: install that, or train again"
        ) from None
    model = {
        "source": saved["model"],
        "type": backbone.config.model_type,
        "num_hops": saved["num_hops"],
        "pad_token_id": saved["pad_token_id"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    tokens = Tokens(saved["tokenizer"], saved["max_tokens"], saved["pad_token_id"])
    return TrainedModel(task, tokens, network.eval(), network.input_names, model, saved["metrics"], saved["provenance"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `TextModule`, weights only: nothing in the file is run.

    Raises:
        BundleError: the file is missing, truncated, holds more than weights, or is another program's.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such file; expected a checkpoint, as `suffuse fit` writes it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch would warn of ends in an error here
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        reason = "it holds objects that could run code, which are not loaded"
    except Exception as error:  # torch raises half a dozen kinds
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
    else:
        if isinstance(checkpoint, dict) and _KEY in checkpoint:
            return checkpoint
        reason = "it was not written by `suffuse fit`"
    raise BundleError(f"{path}: not a usable checkpoint: {reason}; expected one of `suffuse fit`: train again")


def rate_factor(steps: float, warmup: float) -> Callable[[int], float]:
    """Share of the peak learning rate at a step: a linear rise, then a linear fall to zero.

    Args:
        steps: of the whole training.
        warmup: share of the steps in which it rises.

    Raises:
        InputError: there is no end of training to fall towards.
    """
    if not math.isfinite(steps):
        raise InputError("the training has no end; expected one to lower the learning rate to: set trainer.max_epochs")
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    return factor


@dataclass(frozen=True)
class _Measured:
    """What a validation has seen: outputs by window, loss and size of batches by their first window."""

    outputs: dict[int, Arrays]
    losses: dict[int, tuple[float, int]]

    @property
    def loss(self) -> float:
        return sum(loss * size for loss, size in self.losses.values()) / sum(size for _, size in self.losses.values())


def _complete(encoded: EncodedRows, outputs: Mapping[int, Arrays]) -> tuple[list[Row], list[Window], list[Arrays]]:
    """Rows with all their windows' outputs; the others fell to the Trainer's limit_val_batches."""
    partial = {window.row for index, window in enumerate(encoded.windows) if index not in outputs}
    places = {row: place for place, row in enumerate(row for row in range(len(encoded.rows)) if row not in partial)}
    kept = [index for index, window in enumerate(encoded.windows) if window.row in places]
    windows = [replace(encoded.windows[index], row=places[encoded.windows[index].row]) for index in kept]
    return [encoded.rows[row] for row in places], windows, [outputs[index] for index in kept]


def _gathered(measured: _Measured) -> _Measured:
    if not (distributed.is_available() and distributed.is_initialized()):
        return measured
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, measured)
    together = _Measured({}, {})
    for part in parts:
        together.outputs.update(part.outputs)
        together.losses.update(part.losses)
    return together


def _random_states(device: torch.device) -> list[Tensor]:
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]
