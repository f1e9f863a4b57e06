"""Class weights and label smoothing, against torch's own."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from suffuse.batching import PADDING_TARGET
from suffuse.errors import InputError
from suffuse.tasks import Head, Level, Loss
from suffuse.training.losses import LOSSES, LossOptions, loss_function

NAMES = ("bad", "good", "mixed")
SOFTMAX = Head(3, Level.ROW, Loss.SOFTMAX, NAMES)
TOKENS = Head(3, Level.TOKEN, Loss.SOFTMAX, NAMES)
SIGMOID = Head(3, Level.ROW, Loss.SIGMOID, NAMES)
SPAN = Head(2, Level.TOKEN, Loss.SPAN)
MASK = torch.ones(4, 5, dtype=torch.long)


@pytest.fixture
def logits_bc() -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1)) * 2


TARGETS_B = torch.tensor([0, 2, 1, 1])
POSITIVES_BC = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def no_counts() -> NDArray[Any]:
    raise AssertionError("nobody asked for balanced weights")


def loss_of(head: Head, options: LossOptions, counts: Callable[[], NDArray[Any]] = no_counts) -> Any:  # noqa: ANN401
    return loss_function(head, options, counts)


def test_plain_loss_is_that_of_validation(logits_bc: Tensor) -> None:
    assert loss_of(SOFTMAX, LossOptions())(logits_bc, TARGETS_B, MASK) == LOSSES[Loss.SOFTMAX](
        logits_bc, TARGETS_B, MASK
    )
    assert_close(LOSSES[Loss.SOFTMAX](logits_bc, TARGETS_B, MASK), functional.cross_entropy(logits_bc, TARGETS_B))


def test_named_weights_and_smoothing_are_those_of_torch(logits_bc: Tensor) -> None:
    options = LossOptions(label_smoothing=0.2, class_weights={"mixed": 3.0, "bad": 0.5})
    expected = functional.cross_entropy(logits_bc, TARGETS_B, weight=torch.tensor([0.5, 1.0, 3.0]), label_smoothing=0.2)
    assert_close(loss_of(SOFTMAX, options)(logits_bc, TARGETS_B, MASK), expected)


def test_labels_that_a_recipe_writes_as_numbers_are_known(logits_bc: Tensor) -> None:
    given: Any = {1: 3.0}
    loss = loss_of(Head(3, Level.ROW, Loss.SOFTMAX, ("0", "1", "2")), LossOptions(class_weights=given))
    expected = functional.cross_entropy(logits_bc, TARGETS_B, weight=torch.tensor([1.0, 3.0, 1.0]))
    assert_close(loss(logits_bc, TARGETS_B, MASK), expected)


def test_padding_is_left_out_of_weighted_and_smoothed_losses() -> None:
    logits_bnc = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2))
    targets_bn = torch.tensor([[0, 1, 2, PADDING_TARGET], [2, 2, PADDING_TARGET, PADDING_TARGET]])
    options = LossOptions(label_smoothing=0.1, class_weights={"good": 4.0})
    is_real = targets_bn != PADDING_TARGET
    expected = functional.cross_entropy(
        logits_bnc[is_real], targets_bn[is_real], weight=torch.tensor([1.0, 4.0, 1.0]), label_smoothing=0.1
    )
    assert_close(loss_of(TOKENS, options)(logits_bnc, targets_bn, MASK), expected)


def test_balanced_weights_are_those_of_scikit_learn(logits_bc: Tensor) -> None:
    targets = np.repeat([0, 1, 2], [10, 3, 7])
    weights = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    expected = functional.cross_entropy(logits_bc, TARGETS_B, weight=torch.from_numpy(weights).float())
    loss = loss_of(SOFTMAX, LossOptions(class_weights="balanced"), lambda: np.bincount(targets))
    assert_close(loss(logits_bc, TARGETS_B, MASK), expected)


def test_class_without_rows_leaves_balanced_losses_finite(logits_bc: Tensor) -> None:
    loss = loss_of(SOFTMAX, LossOptions(class_weights="balanced"), lambda: np.array([5, 5, 0]))
    assert torch.isfinite(loss(logits_bc, torch.tensor([0, 1, 0, 1]), MASK))


def test_weights_of_several_labels_are_those_of_their_positives(logits_bc: Tensor) -> None:
    expected = functional.binary_cross_entropy_with_logits(
        logits_bc, POSITIVES_BC, pos_weight=torch.tensor([1.0, 5.0, 1.0])
    )
    loss = loss_of(SIGMOID, LossOptions(class_weights={"good": 5.0}))
    assert_close(loss(logits_bc, POSITIVES_BC, MASK), expected)


def test_balanced_weights_give_every_label_as_much_of_the_positives(logits_bc: Tensor) -> None:
    expected = functional.binary_cross_entropy_with_logits(
        logits_bc, POSITIVES_BC, pos_weight=torch.tensor([5 / 6, 5 / 3, 5 / 6])
    )
    loss = loss_of(SIGMOID, LossOptions(class_weights="balanced"), lambda: POSITIVES_BC.sum(0).numpy())
    assert_close(loss(logits_bc, POSITIVES_BC, MASK), expected)


def test_smoothing_of_several_labels_moves_yes_and_no_towards_each_other(logits_bc: Tensor) -> None:
    smoothed_bc = torch.where(POSITIVES_BC > 0, 0.95, 0.05)
    expected = functional.binary_cross_entropy_with_logits(logits_bc, smoothed_bc)
    assert_close(loss_of(SIGMOID, LossOptions(label_smoothing=0.1))(logits_bc, POSITIVES_BC, MASK), expected)


def test_plain_span_loss_takes_no_options() -> None:
    logits_bnc = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(3))
    targets_bc = torch.tensor([[0, 1], [2, 4], [3, 3], [1, 2]])
    expected = functional.cross_entropy(logits_bnc.transpose(1, 2).flatten(0, 1), targets_bc.flatten())
    assert_close(loss_of(SPAN, LossOptions())(logits_bnc, targets_bc, MASK), expected)


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        (
            SPAN,
            LossOptions(label_smoothing=0.1),
            ("loss.label_smoothing is given, but this task chooses among tokens, which are no classes: leave it out"),
        ),
        (
            SPAN,
            LossOptions(class_weights="balanced"),
            ("loss.class_weights is given, but this task chooses among tokens, which are no classes: leave it out"),
        ),
        (
            SOFTMAX,
            LossOptions(class_weights={"god": 2.0}),
            "loss.class_weights names the label 'god'; expected some of bad, good, mixed",
        ),
        (
            Head(3, Level.ROW, Loss.SOFTMAX),
            LossOptions(class_weights={"good": 2.0}),
            "loss.class_weights names the label 'good'; expected some of none: the outputs of this task have no names",
        ),
    ],
)
def test_options_that_do_not_go_with_the_task_are_refused(head: Head, options: LossOptions, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        loss_of(head, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label_smoothing": 1.0},
            "loss.label_smoothing is 1; expected 0 or more and less than 1, such as 0.1",
        ),
        ({"class_weights": {"bad": -1.0}}, "loss.class_weights gives 'bad' -1; expected 0 or more"),
        ({"class_weights": {"bad": float("nan")}}, "loss.class_weights gives 'bad' nan; expected 0 or more"),
    ],
)
def test_values_that_make_no_loss_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        LossOptions(**options).check(SOFTMAX)
