"""What a checkpoint of `TextModule` holds beside its weights, and a network out of it, with nothing else at hand."""

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suffuse.errors import BundleError
from suffuse.tasks import Task, Tokens, task_from_dict
from suffuse.training.models import TextNetwork, backbone_from_config
from suffuse.training.transfer import add_adapters, lora_from_dict, merge_adapters

KEY = "suffuse"
"""Where in a checkpoint our part is."""


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint holds: enough to export it, without the data or the pretrained model."""

    task: Task
    tokens: Tokens
    network: TextNetwork
    input_names: tuple[str, ...]
    model: Mapping[str, Any]
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def load_checkpoint(path: Path) -> TrainedModel:
    """Load a checkpoint of `TextModule`, weights only: nothing in the file is run. Adapters are merged.

    Its temperature is folded into the last layer, whose logits are then the trained ones divided by it.

    Raises:
        BundleError: the file is no such checkpoint.
        InputError: it has adapters, and peft is not installed.
    """
    checkpoint = read_checkpoint(path)
    saved = checkpoint[KEY]
    task = task_from_dict(json.loads(saved["task"]))
    backbone = backbone_from_config(json.loads(saved["backbone"]), saved["num_hops"])
    network = TextNetwork(backbone, task.head)
    lora = lora_from_dict(json.loads(saved.get("lora", "null")))
    if lora:
        add_adapters(backbone, lora)
    prefix = "network."
    try:
        network.load_state_dict({name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()})
    except RuntimeError:
        trained_with = saved["provenance"]["packages"]["transformers"]
        raise BundleError(
            f"{path}: its weights do not fit the network that the installed transformers builds; "
            f"expected transformers {trained_with}, which it was trained with: install that, or train again"
        ) from None
    if lora:
        merge_adapters(backbone)
    temperature = saved.get("temperature", 1.0)  # checkpoints of earlier versions have none
    _divide(network.classifier, temperature)
    model = {
        "source": saved["model"],
        "type": backbone.config.model_type,
        "num_hops": saved["num_hops"],
        "pad_token_id": saved["pad_token_id"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    tokens = Tokens(saved["tokenizer"], saved["max_tokens"], saved["pad_token_id"])
    return TrainedModel(
        task.tempered(temperature),
        tokens,
        network.eval(),
        network.input_names,
        model,
        saved["metrics"],
        saved["provenance"],
        json.loads(saved.get("evaluation", "{}")),
    )


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
        if isinstance(checkpoint, dict) and KEY in checkpoint:
            return checkpoint
        reason = "it was not written by `suffuse fit`"
    raise BundleError(f"{path}: not a usable checkpoint: {reason}; expected one of `suffuse fit`: train again")


@torch.no_grad()
def _divide(layer: nn.Linear, divisor: float) -> None:
    """Have a layer put out its outputs divided."""
    layer.weight.div_(divisor)
    layer.bias.div_(divisor)
