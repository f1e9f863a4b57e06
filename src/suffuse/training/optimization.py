"""AdamW and its rates: which parameters learn how fast, and how that changes over the training."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import InputError
from suffuse.training.transfer import by_depth

if TYPE_CHECKING:
    from suffuse.training.models import TextNetwork


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
        depth_decay: factor of the rate from each layer to the one below it, and from the lowest to the embeddings
            (discriminative fine-tuning, ULMFiT, arXiv 1801.06146, which takes 1 / 2.6); hop weights keep theirs.
    """

    learning_rate: float = 5e-5
    attention_learning_rate: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.06
    betas: tuple[float, float] = (0.9, 0.98)
    depth_decay: float = 1.0

    def check(self) -> None:
        """Refuse rates that make no sense.

        Raises:
            InputError: a `depth_decay` outside (0, 1].
        """
        if not 0 < self.depth_decay <= 1:
            raise InputError(
                f"optimization.depth_decay is {self.depth_decay:g}; expected more than 0 and at most 1 (the same rate "
                "for all layers)"
            )


def parameter_groups(network: "TextNetwork", settings: Optimization) -> list[dict[str, Any]]:
    """Groups of an optimizer, of what is trained: matrices and vectors, by depth where their rates differ; hop weights.

    Raises:
        InputError: rates differ by depth, but the model's layers cannot be told.
    """
    hops = [parameter for parameter in diffusion_parameters(network) if parameter.requires_grad]
    if settings.depth_decay == 1:
        new = {id(parameter) for parameter in hops}
        groups = _decayed((one for one in network.parameters() if id(one) not in new), settings, 1.0)
    else:
        *lower, above = by_depth(network.backbone)
        groups = _decayed([*above, *network.classifier.parameters()], settings, 1.0)
        for layers_above, parameters in enumerate(reversed(lower)):
            groups += _decayed(parameters, settings, settings.depth_decay**layers_above)
    groups.append({"params": hops, "weight_decay": 0.0, "lr": settings.attention_learning_rate})
    return [group for group in groups if group["params"]]


def _decayed(parameters: Iterable[nn.Parameter], settings: Optimization, factor: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    rate = settings.learning_rate * factor
    return [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": settings.weight_decay, "lr": rate},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0, "lr": rate},
    ]


def rate_factor(steps: float, warmup: float) -> Callable[[int], float]:
    """Share of the peak learning rate at a step: a linear rise, then a linear fall to zero.

    Args:
        steps: of the whole training.
        warmup: share of the steps in which it rises.

    Raises:
        InputError: there is no end of training to fall towards.
    """
    if not math.isfinite(steps):
        raise InputError(
            "the training has no end; expected one to lower the learning rate to: set trainer.max_epochs, or "
            "trainer.max_steps where rows are streamed, whose number nobody knows"
        )
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    return factor
