"""What each kind of head is trained to minimise, and how classes are weighted and labels smoothed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from suffuse.batching import PADDING_TARGET
from suffuse.errors import InputError
from suffuse.tasks import Head, Loss

BALANCED: Literal["balanced"] = "balanced"

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``loss(logits (..., C), targets, attention_mask (B, N)) -> ()``; targets are indices (...) for softmax, values
(..., C) for sigmoid, positions (B, C) for span."""


@dataclass(frozen=True)
class LossOptions:
    """What the training loss adds to plain cross entropy; validation is always measured by the plain one.

    Args:
        label_smoothing: share of each target that is spread evenly over all classes (arXiv 1512.00567); of outputs
            that stand alone, over yes and no.
        class_weights: label -> weight, 1 for those that are not named, or ``balanced``: (number of targets) /
            (number of labels x targets of that label), from the training rows. A row's loss counts by the weight of
            its label; where a row has several, each label's weight is that of its positives.
    """

    label_smoothing: float = 0.0
    class_weights: dict[str, float] | Literal["balanced"] | None = None

    def check(self, head: Head) -> None:
        """Refuse values that make no loss, or do not go with a head.

        Raises:
            InputError: smoothing outside [0, 1), a weight that is negative or no number, smoothing or weights for a
                span, or weights for labels that the task does not have.
        """
        self._check_values()
        if head.loss is Loss.SPAN and (self.label_smoothing or self.class_weights):
            option = "label_smoothing" if self.label_smoothing else "class_weights"
            raise InputError(
                f"loss.{option} is given, but this task chooses among tokens, which are no classes: leave it out"
            )
        if isinstance(self.class_weights, Mapping):
            for label in map(str, self.class_weights):  # a recipe's 0 and 1 are numbers, labels are not
                if label not in head.names:
                    raise InputError(
                        f"loss.class_weights names the label {label!r}; expected some of "
                        f"{', '.join(head.names) or 'none: the outputs of this task have no names'}"
                    )

    def _check_values(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"loss.label_smoothing is {self.label_smoothing:g}; expected 0 or more and less than 1, such as 0.1"
            )
        if isinstance(self.class_weights, Mapping):
            for label, weight in self.class_weights.items():
                if not 0 <= weight < math.inf:
                    raise InputError(f"loss.class_weights gives {label!r} {weight:g}; expected 0 or more")


def loss_function(head: Head, options: LossOptions, counts: Callable[[], NDArray[Any]]) -> LossFunction:
    """The loss to train a head with.

    Args:
        head: what is trained.
        options: smoothing and weights.
        counts: gives how many training targets each class has, (C,); called where weights are balanced.

    Raises:
        InputError: as `LossOptions.check`.
    """
    options.check(head)
    if head.loss is Loss.SPAN:
        return _span_loss
    loss = {Loss.SOFTMAX: _softmax_loss, Loss.SIGMOID: _sigmoid_loss}[head.loss]
    return partial(loss, weights_c=_weights(head, options, counts), smoothing=options.label_smoothing)


def _weights(head: Head, options: LossOptions, counts: Callable[[], NDArray[Any]]) -> Tensor | None:
    if options.class_weights is None:
        return None
    if options.class_weights == BALANCED:
        counts_c = np.asarray(counts(), dtype=np.float64)
        # A class that no row has is left out of every loss: it has no row to weigh.
        weights_c = counts_c.sum() / (head.size * np.maximum(counts_c, 1)) * (counts_c > 0)
        return torch.from_numpy(weights_c).float()
    given = {str(label): weight for label, weight in options.class_weights.items()}
    return torch.tensor([given.get(name, 1.0) for name in head.names])


def _softmax_loss(
    logits: Tensor, targets: Tensor, _mask: Tensor, *, weights_c: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    return functional.cross_entropy(
        logits.float().flatten(0, -2),
        targets.flatten(),
        weight=None if weights_c is None else weights_c.to(logits.device),
        ignore_index=PADDING_TARGET,
        label_smoothing=smoothing,
    )


def _sigmoid_loss(
    logits: Tensor, targets: Tensor, _mask: Tensor, *, weights_c: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits.float(),
        targets * (1 - smoothing) + smoothing / 2,
        pos_weight=None if weights_c is None else weights_c.to(logits.device),
    )


def _span_loss(logits_bnc: Tensor, targets_bc: Tensor, mask_bn: Tensor) -> Tensor:
    logits_bnc = logits_bnc.float()
    scores_bnc = logits_bnc.masked_fill(mask_bn[..., None] == 0, torch.finfo(logits_bnc.dtype).min)
    return functional.cross_entropy(scores_bnc, targets_bc)


LOSSES: dict[Loss, LossFunction] = {
    Loss.SOFTMAX: _softmax_loss,
    Loss.SIGMOID: _sigmoid_loss,
    Loss.SPAN: _span_loss,
}
"""The plain losses, by which validation is measured."""
