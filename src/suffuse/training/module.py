"""The Lightning module: one network, one loss, one optimizer recipe for every task."""

import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import BundleError
from suffuse.tasks import Arrays, Row, Task, Tokens, Window, task_to_dict
from suffuse.training.checkpoint import KEY, TrainedModel, load_checkpoint, read_checkpoint
from suffuse.training.data import TextData
from suffuse.training.encoded import Batch, EncodedRows, to_numpy
from suffuse.training.evaluation import Evaluation, evaluate
from suffuse.training.losses import LOSSES, LossFunction, LossOptions, loss_function
from suffuse.training.models import (
    TextNetwork,
    config_to_dict,
    load_backbone,
    load_tokens,
    random_backbone,
    source_name,
)
from suffuse.training.optimization import Optimization, parameter_groups, rate_factor
from suffuse.training.transfer import Transfer, by_depth, prepare, resolved, still_frozen

__all__ = [
    "SCORE",
    "LossOptions",
    "Optimization",
    "TextModule",
    "TrainedModel",
    "Transfer",
    "load_checkpoint",
    "rate_factor",
    "read_checkpoint",
]

SCORE = "val_score"
"""The task's own metric on the validation rows, under one name for callbacks; higher is better."""
RATE, ATTENTION_RATE = "learning_rate", "attention_learning_rate"
"""Names of what is logged while training."""
BETA = "beta_layer"
"""How the names of hop weights begin that are logged at each validation: ``beta_layer0_hop2``."""
_RANDOM = "suffuse_random"


class TextModule(lightning.LightningModule):
    """Fine-tunes a pretrained transformer with diffusion attention for the task of its `TextData`.

    Args:
        model: a Hugging Face name, a folder, a .gguf file, or ``pkg://package/path`` of either.
        num_hops: K of the attention; 1 is plain.
        optimization: rates, decay and warm-up.
        transfer: what of the pretrained model is used and trained; by default all of it.
        loss: label smoothing and class weights; by default neither.
        dropout: before the last layer.
        max_tokens: longest input; by default the model's own limit, at most 512.

    Raises:
        ModelError: the model cannot be found or read.
        InputError: values of `optimization` or `transfer` make no sense.
    """

    def __init__(
        self,
        model: str,
        num_hops: int = 2,
        optimization: Optimization | None = None,
        transfer: Transfer | None = None,
        loss: LossOptions | None = None,
        dropout: float = 0.1,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        for options in (optimization, transfer):
            if options is not None:
                options.check()
        self.model = model
        self.num_hops = num_hops
        self.optimization = optimization or Optimization()
        self.transfer = transfer or Transfer()
        self.loss_options = loss or LossOptions()
        self.dropout = dropout
        self.tokens: Tokens = load_tokens(model, max_tokens)
        self.task: Task | None = None
        self.calibrated: Task | None = None
        self.network: TextNetwork | None = None
        self.evaluation = Evaluation()
        self._loss: LossFunction
        self._depths: list[list[nn.Parameter]]

    @property
    def metrics(self) -> dict[str, float]:
        """Measures of the last validation."""
        return self.evaluation.metrics

    @property
    def data(self) -> TextData:
        """The rows that it is trained on."""
        data: TextData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def configure_model(self) -> None:
        """Build the network once the data have told the task its labels."""
        self.build(self.data.task)
        self._loss = loss_function(self.data.task.head, self.loss_options, self.data.target_counts)

    def build(self, task: Task) -> None:
        """Load the pretrained model and put a head for `task` on it; once.

        Raises:
            ModelError: its weights cannot be read.
            InputError: the options of transfer, rates or loss do not go with it or with the task.
        """
        if self.network is None:
            self.task = task
            self.loss_options.check(task.head)
            load = load_backbone if self.transfer.pretrained else random_backbone
            network = TextNetwork(load(self.model, self.num_hops), task.head, self.dropout)
            prepare(network.backbone, self.transfer)
            if self.transfer.unfreeze_every:
                self._depths = by_depth(network.backbone)
            parameter_groups(network, self.optimization)  # refuses now, before a run's folder is touched
            self.network = network.train()  # transformers loads for inference

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of a batch."""
        network = self._built()[1]
        logits = network(**self._wanted(batch["inputs"]))
        loss = self._loss(logits, batch["targets"], batch["inputs"]["attention_mask"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["windows"]))
        self.log_dict(self._rates())
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
        self.evaluation = evaluate(self.calibrated, rows, windows, outputs)
        self.log("val_loss", measured.loss, sync_dist=True)
        self.log_dict({f"val_{name}": value for name, value in self.metrics.items()}, sync_dist=True)
        self.log(SCORE, self.metrics[task.metric], prog_bar=True, sync_dist=True)
        self.log_dict(self._hop_weights(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over the groups of `parameter_groups`."""
        _, network = self._built()
        settings = self.optimization
        optimizer = AdamW(
            parameter_groups(network, settings),
            lr=settings.learning_rate,
            betas=settings.betas,
            # Lightning clips no gradients in mixed precision where the kernel is fused.
            fused=not self.trainer.precision.endswith("-mixed"),
        )
        are_hops_trained = any(parameter.requires_grad for parameter in diffusion_parameters(network))
        self._rated = {RATE: 0} | ({ATTENTION_RATE: -1} if are_hops_trained else {})  # as `parameter_groups` has them
        schedule = LambdaLR(optimizer, rate_factor(self.trainer.estimated_stepping_batches, settings.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:  # noqa: ARG002 - Lightning passes it by name
        """Drop the gradients that gradual unfreezing has not reached yet.

        AdamW leaves a parameter without gradient as it is, with no moments of it, just as if it needed none. Switched
        off and on by requires_grad, parameters would come and go between DDP's buckets, which are fixed beforehand.
        """
        if self.transfer.unfreeze_every:
            reached = int(self._epochs_done() / self.transfer.unfreeze_every)
            for parameter in still_frozen(self._depths, reached):
                parameter.grad = None

    def _rates(self) -> dict[str, float]:
        """Learning rates of the top of the network and of the hop weights, if those are trained."""
        groups = self.trainer.optimizers[0].param_groups
        return {name: groups[index]["lr"] for name, index in self._rated.items()}

    def _hop_weights(self) -> dict[str, float]:
        """Mean over the heads of each layer's beta, for each hop beyond the first."""
        _, network = self._built()
        return {
            f"{BETA}{layer}_hop{hop}": float(beta_h.detach().mean())
            for layer, beta_kh in enumerate(diffusion_parameters(network))
            for hop, beta_h in enumerate(beta_kh, start=2)
        }

    def _epochs_done(self) -> float:
        """How far the training is, as a function of the step alone, so that a resumed run agrees."""
        batches, trainer = self.trainer.num_training_batches, self.trainer
        if not math.isfinite(batches):  # rows that are streamed, and nobody has counted
            return trainer.current_epoch
        return trainer.global_step / math.ceil(batches / trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that `load_checkpoint` needs, as plain values, so that a checkpoint alone can be exported."""
        task, network = self._built()
        lora = self.transfer.lora and asdict(resolved(self.transfer.lora, network.backbone))
        checkpoint[KEY] = {
            "task": json.dumps(task_to_dict(self.calibrated or task)),
            "learned": json.dumps(task_to_dict(task)),
            "lora": json.dumps(lora),
            "trained": self._trained(),
            "backbone": json.dumps(config_to_dict(network.backbone.config)),
            "tokenizer": self.tokens.json,
            "max_tokens": self.tokens.max_tokens,
            "pad_token_id": self.tokens.pad_token_id,
            "model": source_name(self.model),
            "num_hops": self.num_hops,
            "metrics": dict(self.metrics),
            "temperature": self.evaluation.temperature,
            "evaluation": json.dumps(self.evaluation.details),
            "provenance": self._provenance(),
        }
        checkpoint[_RANDOM] = [state.cpu() for state in _random_states(self.device)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a resumed run is the same one, and take over its random numbers, which dropout draws from.

        Raises:
            BundleError: the checkpoint was trained for another task, such as other labels, with other hops, or with
                another part of the model trained.
        """
        task, _ = self._built()
        saved = checkpoint[KEY]
        now = {
            "learned": json.dumps(task_to_dict(task)),
            "num_hops": self.num_hops,
            "trained": self._trained(),
        }
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

    def _trained(self) -> str:
        """What a resumed run must have in common with its beginning for the optimizer's state to fit."""
        transfer = replace(self.transfer, gradient_checkpointing=False)  # changes nothing but time and memory
        return json.dumps({"transfer": asdict(transfer), "depth_decay": self.optimization.depth_decay})

    def _provenance(self) -> dict[str, Any]:
        seed = os.environ.get("PL_GLOBAL_SEED")
        return {
            "data": self.data.digests,
            "rows": self._row_counts(),
            "model": source_name(self.model),
            "packages": {name: importlib.metadata.version(name) for name in ("lightning", "torch", "transformers")},
            "seed": int(seed) if seed else None,
            "training": {"transfer": asdict(self.transfer), "loss": asdict(self.loss_options)},
        }

    def _row_counts(self) -> dict[str, int]:
        """Rows by what they are for; of streamed ones nobody knows how many there are."""
        counts = {"validation": len(self.data.validation_rows.rows)}
        return counts if self.data.loading.streaming else {"train": len(self.data.train_rows.rows), **counts}

    def _wanted(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        _, network = self._built()
        return {name: inputs[name] for name in network.input_names}

    def _built(self) -> tuple[Task, TextNetwork]:
        if self.task is None or self.network is None:
            raise RuntimeError("the network is built by the Trainer: pass the module to Trainer.fit with a TextData")
        return self.task, self.network


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
    row_of = encoded.windows.rows().tolist()
    partial = {row for index, row in enumerate(row_of) if index not in outputs}
    places = {row: place for place, row in enumerate(row for row in range(len(encoded.rows)) if row not in partial)}
    kept = [index for index, row in enumerate(row_of) if row in places]
    windows = [replace(encoded.windows[index], row=places[row_of[index]]) for index in kept]
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
