"""How much of a pretrained model is trained: frozen layers, gradual unfreezing, LoRA, gradient checkpointing.

One rule holds for all of them: what is pretrained may be frozen, what is new trains. New are the head, the adapters of
LoRA and the weights of the attention's further hops, which start at zero and would stay there; so a model whose frozen
part should cost no backward pass is one with ``num_hops: 1``.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import InputError

ALL = -1
ALL_LINEAR: Literal["all-linear"] = "all-linear"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters beside frozen weights: W x + alpha / rank B A x (arXiv 2106.09685), by the package peft.

    A bundle holds the merged weights, so that answering costs what it would without.

    Args:
        rank: of B A.
        alpha: of the scale alpha / rank.
        dropout: of what an adapter reads.
        targets: names of the layers that get one, or ``all-linear``; by default the attention's queries and values as
            peft knows them by the model's type, or all linear layers where peft does not know it.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] | Literal["all-linear"] | None = None

    def check(self) -> None:
        """Refuse values that make no adapter; not at once, where jsonargparse would bury the message.

        Raises:
            InputError: a rank below 1, an alpha below 1, a dropout outside [0, 1), or no target.
        """
        if self.rank < 1:
            raise InputError(f"lora.rank is {self.rank}; expected at least 1: leave lora out to train without")
        if self.alpha < 1:
            raise InputError(f"lora.alpha is {self.alpha}; expected at least 1, such as twice the rank")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout:g}; expected 0 or more and less than 1")
        if self.targets == []:
            raise InputError(f"lora.targets is empty; expected names of layers, {ALL_LINEAR}, or none for the default")


@dataclass(frozen=True)
class Transfer:
    """What of the pretrained model is used and trained.

    Args:
        pretrained: false trains the same architecture from random weights.
        freeze: lowest layers that are not trained; with any of them the embeddings are not either, and -1 leaves only
            what is new.
        unfreeze_every: epochs, also parts of one, after which the next layer begins to train, from the top down and
            embeddings last (gradual unfreezing, ULMFiT, arXiv 1801.06146); 0 trains all from the start.
        lora: train adapters in place of the pretrained weights.
        gradient_checkpointing: compute activations again in the backward pass rather than keep them: less memory for
            about a third more time (arXiv 1604.06174).
    """

    pretrained: bool = True
    freeze: int = 0
    unfreeze_every: float = 0.0
    lora: Lora | None = None
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Refuse values that make no sense, as `Lora.check`.

        Raises:
            InputError: a negative `unfreeze_every`, or options that exclude each other; as `Lora.check`.
        """
        if self.lora is not None:
            self.lora.check()
        if self.unfreeze_every < 0:
            raise InputError(
                f"transfer.unfreeze_every is {self.unfreeze_every:g}; expected 0 (off) or a number of epochs"
            )
        given = {"freeze": self.freeze, "unfreeze_every": self.unfreeze_every, "lora": self.lora}
        if self.lora is not None and (self.freeze or self.unfreeze_every):
            other = next(name for name in given if given[name])
            raise InputError(
                f"transfer.lora and transfer.{other} are both given, but lora freezes the whole pretrained model: "
                "leave out one of them"
            )
        if self.freeze == ALL and self.unfreeze_every:
            raise InputError(
                f"transfer.freeze is {ALL} (all), so that transfer.unfreeze_every has nothing to unfreeze: "
                "leave out one of them"
            )
        if not self.pretrained and any(given.values()):
            other = next(name for name in given if given[name])
            raise InputError(
                f"transfer.{other} is given with transfer.pretrained false, and random weights are not worth keeping: "
                "leave out one of them"
            )


def layer_stack(backbone: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's layers: the one list of modules as long as its configuration says.

    Raises:
        InputError: there is no such list, or more than one.
    """
    count = backbone.config.num_hidden_layers
    stacks: dict[str, nn.ModuleList] = {}
    for name, module in backbone.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList) and len(module) == count and not is_inside:
            stacks[name] = module
    if len(stacks) != 1:
        raise InputError(
            f"{type(backbone).__name__} has {len(stacks)} lists of {count} layers; expected one, to tell how deep a "
            "layer is: leave out transfer.freeze, transfer.unfreeze_every and optimization.depth_decay"
        )
    return next(iter(stacks.values()))


def by_depth(backbone: PreTrainedModel) -> list[list[nn.Parameter]]:
    """Parameters from the bottom up, hop weights left out: embeddings, each of the L layers, what stands above them.

    Outside the layers, what the model registers before them is below, such as embeddings and their projection, and what
    it registers after them is above, such as a last normalisation.

    Returns:
        L + 2 lists.

    Raises:
        InputError: as `layer_stack`.
    """
    stack = layer_stack(backbone)
    layer_of = {id(parameter): depth for depth, layer in enumerate(stack, 1) for parameter in layer.parameters()}
    hops = {id(parameter) for parameter in diffusion_parameters(backbone)}
    depths: list[list[nn.Parameter]] = [[] for _ in range(len(stack) + 2)]
    outside = 0
    for parameter in backbone.parameters():  # in the order in which they are registered
        depth = layer_of.get(id(parameter))
        if depth is not None:
            outside = len(stack) + 1
        if id(parameter) not in hops:
            depths[outside if depth is None else depth].append(parameter)
    return depths


def prepare(backbone: PreTrainedModel, transfer: Transfer) -> None:
    """Add adapters, freeze, and set up gradient checkpointing, in place.

    Raises:
        InputError: `transfer.freeze` is more than the model has layers; as `layer_stack`; as `add_adapters`; the model
            cannot checkpoint.
    """
    if transfer.lora is not None:
        add_adapters(backbone, transfer.lora)
    if transfer.freeze:
        _freeze(backbone, transfer.freeze)
    if transfer.gradient_checkpointing:
        _checkpoint_gradients(backbone)


def _checkpoint_gradients(backbone: PreTrainedModel) -> None:
    if not backbone.supports_gradient_checkpointing:
        raise InputError(
            f"{type(backbone).__name__} has no gradient checkpointing: set transfer.gradient_checkpointing false"
        )
    if getattr(backbone.config, "use_cache", False):
        backbone.config.use_cache = False  # of no use here, and said to be incompatible
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its new name is not in all versions that we take
        backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    # Only the reentrant kind needs inputs with gradients; here they would take the backward pass into frozen layers.
    backbone.disable_input_require_grads()  # type: ignore[no-untyped-call]


def _freeze(backbone: PreTrainedModel, layers: int) -> None:
    depths = by_depth(backbone)
    most = len(depths) - 2
    if not ALL <= layers <= most:
        raise InputError(
            f"transfer.freeze is {layers}; expected 0 to {most}, the layers of {type(backbone).__name__}, "
            f"or {ALL} for all of it"
        )
    for depth in depths if layers == ALL else depths[: layers + 1]:
        for parameter in depth:
            parameter.requires_grad = False


def still_frozen(depths: Sequence[list[nn.Parameter]], reached: int) -> list[nn.Parameter]:
    """Parameters that gradual unfreezing has not reached.

    Args:
        depths: of `by_depth`; what stands above the layers trains from the start.
        reached: how many depths below that train already.
    """
    return [parameter for depth in depths[: max(0, len(depths) - 1 - reached)] for parameter in depth]


def resolved(lora: Lora, backbone: PreTrainedModel) -> Lora:
    """The same with its targets named, as peft knows them now: a checkpoint must not depend on what it knows later."""
    if lora.targets is not None:
        return lora
    _check_peft()
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN  # noqa: PLC0415

    known = KNOWN.get(backbone.config.model_type)
    return replace(lora, targets=list(known) if known else ALL_LINEAR)


def add_adapters(backbone: PreTrainedModel, lora: Lora) -> None:
    """Put an adapter beside each target, in place; only adapters and hop weights remain trainable.

    The outputs stay as they are until the adapters are trained.

    Raises:
        InputError: peft is not installed, or finds no such target.
    """
    _check_peft()
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra; imports much

    targets = resolved(lora, backbone).targets
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, bias="none"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of GPT-2's transposed layers, which it then sees to
            inject_adapter_in_model(config, backbone)
    except ValueError as error:
        raise InputError(f"lora.targets is {targets!r}: {str(error).partition('. ')[0]}") from None
    for parameter in diffusion_parameters(backbone):
        parameter.requires_grad = True


def merge_adapters(backbone: PreTrainedModel) -> None:
    """Add each adapter to the weights beside it and take it away, in place: a plain network that computes the same."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    adapted = [(name, module) for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, module.get_base_layer())
    del backbone.peft_config


def _check_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise InputError("transfer.lora needs the package peft: pip install 'suffuse[lora]'")


def lora_from_dict(settings: dict[str, Any] | None) -> Lora | None:
    """The adapters that a checkpoint says it has."""
    return None if settings is None else Lora(**settings)
