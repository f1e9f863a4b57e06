"""The span loss: cross entropy over the real tokens of each window, row by row in torch the reference."""

import pytest
import torch
from torch.nn import functional

from suffuse.tasks import Loss
from suffuse.training.losses import LOSSES

LENGTHS = (7, 4, 1)
TARGETS_B2 = torch.tensor([[2, 6], [3, 3], [0, 0]])
MASK_BN = torch.tensor([[position < length for position in range(7)] for length in LENGTHS]).long()


@pytest.fixture
def logits_bn2() -> torch.Tensor:
    return torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))


def test_span_loss_is_the_mean_of_starts_and_ends_over_each_windows_own_tokens(logits_bn2: torch.Tensor) -> None:
    each = [
        functional.cross_entropy(logits_bn2[row, :length, side], TARGETS_B2[row, side])
        for row, length in enumerate(LENGTHS)
        for side in (0, 1)
    ]

    loss = LOSSES[Loss.SPAN](logits_bn2, TARGETS_B2, MASK_BN)

    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_padding_neither_changes_the_span_loss_nor_learns_from_it(logits_bn2: torch.Tensor) -> None:
    padded = logits_bn2.masked_fill(MASK_BN[..., None] == 0, 50.0).requires_grad_()

    loss = LOSSES[Loss.SPAN](padded, TARGETS_B2, MASK_BN)
    (gradient,) = torch.autograd.grad(loss, padded)

    torch.testing.assert_close(loss, LOSSES[Loss.SPAN](logits_bn2, TARGETS_B2, MASK_BN))
    assert gradient[MASK_BN == 0].abs().max() == 0


def test_span_loss_of_half_precision_is_finite(logits_bn2: torch.Tensor) -> None:
    loss = LOSSES[Loss.SPAN](logits_bn2.half(), TARGETS_B2, MASK_BN)

    assert bool(loss.isfinite())
