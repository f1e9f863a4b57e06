"""What each kind of head is trained to minimise."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from suffuse.batching import PADDING_TARGET
from suffuse.tasks import Loss


def _softmax_loss(logits: Tensor, targets: Tensor, _mask: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=PADDING_TARGET)


def _sigmoid_loss(logits: Tensor, targets: Tensor, _mask: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets)


def _span_loss(logits_bnc: Tensor, targets_bc: Tensor, mask_bn: Tensor) -> Tensor:
    scores_bnc = logits_bnc.masked_fill(mask_bn[..., None] == 0, torch.finfo(logits_bnc.dtype).min)
    return functional.cross_entropy(scores_bnc, targets_bc)


LOSSES: dict[Loss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    Loss.SOFTMAX: _softmax_loss,
    Loss.SIGMOID: _sigmoid_loss,
    Loss.SPAN: _span_loss,
}
"""``loss(logits (..., C), targets, attention_mask (B, N)) -> ()``; targets are indices (...) for softmax, values
(..., C) for sigmoid, positions (B, C) for span."""
