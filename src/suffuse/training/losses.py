"""What each kind of head is trained to minimise."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from suffuse.batching import PADDING_TARGET
from suffuse.tasks import Loss


def _softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=PADDING_TARGET)


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    Loss.SOFTMAX: _softmax_loss,
    Loss.SIGMOID: functional.binary_cross_entropy_with_logits,
}
"""``loss(logits (..., C), targets) -> ()``; targets are indices (...) for softmax, values (..., C) for sigmoid."""
