"""Attention with its backward written out is diffusion attention, and its gradients are those of autograd."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suffuse.diffusion.attention import diffusion_attention
from suffuse.export.written_attention import written_attention

BATCH, HEADS, LENGTH, SIZE = 2, 4, 6, 5


def module(num_hops: int, *, is_causal: bool = False) -> Any:  # noqa: ANN401 - stands in for a module
    beta_kh = torch.linspace(-0.5, 0.5, (num_hops - 1) * HEADS).reshape(num_hops - 1, HEADS)
    hops = {"diffusion_beta": beta_kh} if num_hops > 1 else {}
    return SimpleNamespace(is_causal=is_causal, num_key_value_groups=1, **hops)


def inputs(key_heads: int = HEADS) -> list[Tensor]:
    torch.manual_seed(0)
    heads = (HEADS, key_heads, key_heads)
    return [torch.randn(BATCH, count, LENGTH, SIZE, dtype=torch.float64, requires_grad=True) for count in heads]


def masks() -> dict[str, Tensor | None]:
    real_bn = torch.arange(LENGTH) < torch.tensor([[LENGTH], [4]])
    padded = real_bn[:, None, None, :].expand(BATCH, 1, LENGTH, LENGTH)
    return {"none": None, "padding": padded, "causal": padded & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()}


def with_gradients(attend: Any, at: Any, tensors: list[Tensor], mask: Tensor | None) -> list[Tensor]:  # noqa: ANN401
    mixed, _ = attend(at, *tensors, mask)
    torch.manual_seed(1)
    return [mixed, *torch.autograd.grad((mixed * torch.randn_like(mixed)).sum(), tensors)]


@pytest.mark.parametrize("num_hops", [1, 2, 3])
@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_outputs_and_gradients_are_those_of_autograd(num_hops: int, mask: str) -> None:
    found = with_gradients(written_attention, module(num_hops), inputs(), masks()[mask])
    expected = with_gradients(diffusion_attention, module(num_hops), inputs(), masks()[mask])

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_missing_mask_of_a_causal_module_lets_no_token_look_ahead() -> None:
    found = with_gradients(written_attention, module(2, is_causal=True), inputs(), None)
    expected = with_gradients(diffusion_attention, module(2, is_causal=True), inputs(), None)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_keys_that_several_heads_share_are_repeated() -> None:
    found, *_ = with_gradients(written_attention, module(2), inputs(key_heads=2), masks()["padding"])
    query, key, value = inputs(key_heads=2)
    expected, _ = written_attention(
        module(2), query, key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1), masks()["padding"]
    )

    torch.testing.assert_close(found, expected)


def test_an_additive_mask_is_added() -> None:
    mask = torch.where(masks()["padding"], 0.0, -1e30).double()  # type: ignore[arg-type]

    added, *_ = with_gradients(written_attention, module(2), inputs(), mask)
    boolean, *_ = with_gradients(written_attention, module(2), inputs(), masks()["padding"])

    torch.testing.assert_close(added, boolean)


def test_scores_are_scaled_as_told() -> None:
    query, key, value = inputs()

    scaled, _ = written_attention(module(1), query, key, value, None, scaling=0.25)
    halved, _ = written_attention(module(1), query / 2, key, value, None, scaling=0.5)

    torch.testing.assert_close(scaled, halved)
