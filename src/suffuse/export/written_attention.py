"""Diffusion attention with its backward written out, so that a graph of gradients forms each matrix once.

Autograd would differentiate every hop by itself: a softmax, its backward, and products for queries and keys a hop. With
A the attention matrix, h_0 = V and h_k = A h_{k-1}, the output is the sum of c_k h_k, and backward needs A once:

    g_K = c_K dZ,  g_k = c_k dZ + A^T g_{k+1},  dV = A^T g_1,  dA = sum g_k h_{k-1}^T
    dS = A * (dA - sum over d of g_k h_k)

The last is the softmax's backward, whose sum over a row of A * dA is had from vectors (FlashAttention, Dao et al. 2022,
arXiv 2205.14135). In ONNX Runtime this took a sixth off the gradients of 241 tokens.

Shape suffixes: as in suffuse.diffusion.attention.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "diffusion_written_out"


def write_out_attention(model: PreTrainedModel) -> None:
    """Make a model that `suffuse.diffusion.add_diffusion` has seen attend by `written_attention`, in place."""
    AttentionInterface.register(ATTENTION_NAME, written_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    model.set_attn_implementation(ATTENTION_NAME)


def written_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,  # noqa: ARG001 - not in evaluation
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """As `suffuse.diffusion.attention.diffusion_attention`, in evaluation mode and without a cache.

    Args:
        module: the caller; its `diffusion_beta`, (K-1, H), makes the hops.
        query: (B, H, N, D).
        key: (B, G, N, D), H a multiple of G.
        value: (B, G, N, D).
        attention_mask: boolean or additive, broadcastable to (B, H, N, N), or none.
        dropout: left out.
        scaling: of the scores; 1 / sqrt(D) where none.
        is_causal: whether a missing mask means a causal one; the module's own `is_causal` where none.

    Returns:
        (B, N, H, D), and no weights.
    """
    heads, length, size = query.shape[1:]
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    beta_kh = getattr(module, "diffusion_beta", query.new_zeros(0, heads))
    ones_1h = query.new_ones(1, heads)
    # Coefficients of h_1 .. h_K: differences of neighbouring weights, where the first hop's is 1.
    weights_kh = torch.cat([ones_1h, beta_kh]) - torch.cat([beta_kh, 0 * ones_1h])
    scale = size**-0.5 if scaling is None else scaling
    is_causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    bias = _bias(attention_mask, query, length, is_causal=is_causal)
    mixed_bhnd = _Mixed.apply(query * scale, key, value, bias, weights_kh[..., None, None].unbind())  # type: ignore[no-untyped-call]
    return mixed_bhnd.transpose(1, 2).contiguous(), None


def _bias(mask: Tensor | None, query_bhnd: Tensor, length: int, *, is_causal: bool) -> Tensor:
    """What is added to scores: 0, or the lowest number where there is nothing to attend to."""
    if mask is None:
        mask = query_bhnd.new_ones(length, length, dtype=torch.bool)
        mask = mask.tril() if is_causal else mask
    if mask.dtype is not torch.bool:
        return mask
    lowest = query_bhnd.new_full((), torch.finfo(query_bhnd.dtype).min)
    return torch.where(mask, torch.zeros_like(lowest), lowest)


class _Mixed(torch.autograd.Function):
    """sum c_k A^k V, and its backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query_bhnd: Tensor,
        key_bhnd: Tensor,
        value_bhnd: Tensor,
        bias: Tensor,
        weights: Sequence[Tensor],
    ) -> Tensor:
        matrix_bhnn = torch.softmax(query_bhnd @ key_bhnd.transpose(2, 3) + bias, dim=-1)
        hops = [value_bhnd]
        for _ in weights:
            hops.append(matrix_bhnn @ hops[-1])
        ctx.save_for_backward(query_bhnd, key_bhnd, matrix_bhnn, *hops)
        ctx.weights = weights  # type: ignore[attr-defined]
        return _total([weight_h11 * hop for weight_h11, hop in zip(weights, hops[1:], strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as torch has it
        query_bhnd, key_bhnd, matrix_bhnn, *hops = ctx.saved_tensors
        (gradient_bhnd,) = gradients
        pulled: list[Tensor] = []  # g_K .. g_1, and dV
        for weight_h11 in reversed(ctx.weights):
            own_bhnd = weight_h11 * gradient_bhnd
            pulled.append(own_bhnd + _pulled(matrix_bhnn, pulled[-1]) if pulled else own_bhnd)
        value_gradient = _pulled(matrix_bhnn, pulled[-1])
        into = pulled[::-1]
        matrix_gradient = torch.cat(into, dim=-1) @ torch.cat(hops[:-1], dim=-1).transpose(2, 3)
        row_bhn1 = _total([(one * hop).sum(dim=-1, keepdim=True) for one, hop in zip(into, hops[1:], strict=True)])
        scores_gradient = matrix_bhnn * (matrix_gradient - row_bhn1)
        key_gradient = (query_bhnd.transpose(2, 3) @ scores_gradient).transpose(2, 3)
        return scores_gradient @ key_bhnd, key_gradient, value_gradient, None, None


def _pulled(matrix_bhnn: Tensor, gradient_bhnd: Tensor) -> Tensor:
    """A^T g, by transposing the narrow of the two, which ONNX Runtime multiplies three times as fast."""
    return (gradient_bhnd.transpose(2, 3) @ matrix_bhnn).transpose(2, 3)


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
