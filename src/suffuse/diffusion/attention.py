"""Attention over several hops, so that one layer of a pretrained model can follow a chain of tokens.

With A the attention matrix of a head and U = A V its usual output, a layer of K hops returns

    Z = U + sum_{k=2..K} beta_k (A^k - A^{k-1}) V

where each head of each layer learns its own beta_k, zero at first: training begins at the pretrained model. The sum
telescopes, so the matrix in front of V has rows that sum to one whatever beta is. A^k V is attention applied to the
hop before it: no power of A is ever formed, and a fused kernel serves every hop.

Sources: beta_k = gamma^(k-1) is personalised PageRank over attention (MAGNA, arXiv 2009.14332; Diffuser, arXiv
2210.11794); two hops with a free weight are GFSA without its identity term (arXiv 2312.04234). Here beta is learned and
signed: a positive one smooths, a negative one sharpens.

Shape suffixes: b batch, h query heads, g key heads (fewer than h in grouped-query models), n queries, m keys, d head
size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "diffusion"

_OBSERVED_NAME = "diffusion_observed"
_BETA = "diffusion_beta"
_NOT_PLAIN = ("softcap", "position_bias", "s_aux", "cache")
_KNOWN = "BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, GPT-2 or Llama"


def register_attention() -> None:
    """Make `ATTENTION_NAME` known to transformers in this process; calling it again changes nothing.

    `add_diffusion` does this; only a process that receives a diffusive model ready made (unpickled, after a spawn)
    need call it. The mask goes by the same name: without one transformers would mask nothing, and padding would be
    attended.
    """
    for name, attention in ((ATTENTION_NAME, diffusion_attention), (_OBSERVED_NAME, _observed_attention)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, sdpa_mask)


def add_diffusion(model: PreTrainedModel, num_hops: int = 2) -> PreTrainedModel:
    """Give every self-attention of a model further hops, in place; its outputs stay as they are until beta is trained.

    One forward pass over three tokens shows which modules those are; class names do not matter. Cross-attention stays
    plain: its queries and keys are different tokens, so its matrix has no powers. Call this before loading a state dict
    with hop weights, and again on a model rebuilt from its configuration, which does not record them. On a model that
    has hops already, the weights of those that remain are kept.

    Args:
        model: a text model, on any device, in any mode (which is left as found).
        num_hops: K. 1 is plain attention and adds no parameter; 2 costs one more attention call per layer.

    Returns:
        The same model. Each self-attention module holds `diffusion_beta`, (K-1, H), in the dtype of its queries.

    Raises:
        ValueError: `num_hops` is below 1, the model does not read token ids, its attention is not reached through
            transformers' AttentionInterface, or it is not a plain softmax.
    """
    if num_hops < 1:
        raise ValueError(
            f"num_hops is {num_hops}; expected 1 (plain attention) or more: pass num_hops=2 for one further hop"
        )
    register_attention()
    zeros_per_module = {
        call.module: call.query_bhnd.new_zeros(num_hops - 1, call.query_bhnd.shape[1])
        for call in _self_attentions(model)
    }
    model.set_attn_implementation(ATTENTION_NAME)
    for module, zeros_kh in zeros_per_module.items():
        _set_beta(module, zeros_kh)
    return model


def diffusion_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the hop weights of a model, one (K-1, H) parameter a layer, for an optimizer group of their own.

    Small trials favour about ten times the learning rate, and no weight decay. A model of one hop has none.
    """
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] == _BETA:
            yield parameter


@dataclass(frozen=True)
class AttentionMatrices:
    """What one attention call applies to its values.

    Args:
        plain_bhnm: A, (B, H, N, M).
        effective_bhnm: A + sum beta_k (A^k - A^{k-1}), (B, H, N, M).
        beta_kh: weights of hops 2..K, (K-1, H); (0, H) where there is one hop.
    """

    plain_bhnm: Tensor
    effective_bhnm: Tensor
    beta_kh: Tensor


@contextmanager
def effective_attention(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect the attention that the model's forward passes apply, all hops counted.

        with effective_attention(model) as attention_bhnm:
            logits = model(**inputs).logits

    Works for plain attention too, and under `torch.onnx.export`. Dropout is left out. Each matrix costs another
    attention call over M value columns, hop by hop.

    Args:
        model: a model that `add_diffusion` has seen.

    Yields:
        A list that grows by A + sum beta_k (A^k - A^{k-1}), (B, H, N, M), at every attention call, in order. Rows sum
        to one, except those of queries that may attend to nothing.
    """
    effective: list[Tensor] = []
    with _observed(model, lambda call: effective.append(call.matrices().effective_bhnm)):
        yield effective


@contextmanager
def attention_matrices(model: PreTrainedModel) -> Iterator[list[AttentionMatrices]]:
    """As `effective_attention`, with plain attention and the weights of the hops beside it."""
    matrices: list[AttentionMatrices] = []
    with _observed(model, lambda call: matrices.append(call.matrices())):
        yield matrices


def diffusion_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **extras: object,
) -> tuple[Tensor, None]:
    """Attend over as many hops as the module holds weights for; plain attention where it holds none.

    The signature is that of transformers' attention functions. The first hop is transformers' own `sdpa`; it alone has
    dropout, since dropping anew in each hop would multiply different matrices.

    Args:
        module: the caller; its `diffusion_beta`, (K-1, H), makes the hops.
        query: (B, H, N, D).
        key: (B, G, M, D), H a multiple of G.
        value: (B, G, M, D').
        attention_mask: boolean or additive, broadcastable to (B, H, N, M), or none.
        dropout: probability, in the first hop.
        scaling: of the scores; 1 / sqrt(D) where none.
        is_causal: whether a missing mask means a causal one; the module's own `is_causal` where none.
        extras: what else the architecture passes; refused where it changes the softmax.

    Returns:
        (B, N, H, D'), contiguous, and no weights (see `effective_attention`); on a processor in 32 bits also where
        autocast would have fewer.

    Raises:
        ValueError: more than one hop where queries and keys differ in number (a cache), or extras that are refused.
    """
    _refuse_extras(module, extras)
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Backward, torch's kernel for processors takes three times as long in bfloat16 as in 32 bits on short texts.
        with torch.autocast("cpu", enabled=False):
            return diffusion_attention(
                module, query.float(), key.float(), value.float(), attention_mask, dropout, scaling, is_causal, **extras
            )
    first_bnhd, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal
    )
    beta_kh = getattr(module, _BETA, None)
    if beta_kh is None:
        return first_bnhd, None
    call = _Call(module, query, key, attention_mask, scaling, is_causal)
    diffused_bhnd = _add_hops(call.next_hop(), first_bnhd.transpose(1, 2), beta_kh.to(first_bnhd.dtype))
    return diffused_bhnd.transpose(1, 2).contiguous(), None


def _add_hops(attend: Callable[[Tensor], Tensor], first_bhnd: Tensor, beta_kh: Tensor) -> Tensor:
    """Return U + sum beta_k (A^k - A^{k-1}) V, given U, (B, H, N, D), and A as a function.

    The differences are taken as they stand: gathered into one weight a hop (1 - beta_2, beta_2 - beta_3, ...), a small
    beta would be rounded away in half precision.
    """
    diffused_bhnd = near_bhnd = first_bhnd
    for beta_h11 in beta_kh[:, :, None, None]:
        far_bhnd = attend(near_bhnd)
        diffused_bhnd = torch.addcmul(diffused_bhnd, beta_h11, far_bhnd - near_bhnd)
        near_bhnd = far_bhnd
    return diffused_bhnd


def _refuse_extras(module: nn.Module, extras: dict[str, object]) -> None:
    passed = [name for name in _NOT_PLAIN if extras.get(name) is not None]
    if passed:
        raise ValueError(
            f"{type(module).__name__} got {', '.join(passed)}; expected plain softmax attention, the only kind that "
            f"hops: take a model such as {_KNOWN}, or leave this one without diffusion"
        )
    if extras.get("output_attentions"):
        raise ValueError(
            f"{type(module).__name__} got output_attentions=True; expected it unset, since no hop forms its matrix: "
            "call the model inside `with effective_attention(model) as attention_bhnm:`"
        )


def _set_beta(module: nn.Module, zeros_kh: Tensor) -> None:
    """Hold hop weights on a module: what was learned for hops that remain, zero for new ones, nothing for one hop."""
    learned_kh = getattr(module, _BETA, None)
    if learned_kh is not None:
        kept = min(len(learned_kh), len(zeros_kh))
        zeros_kh[:kept] = learned_kh.detach()[:kept]
        delattr(module, _BETA)
    if len(zeros_kh) > 0:
        module.register_parameter(_BETA, nn.Parameter(zeros_kh))


def _self_attentions(model: PreTrainedModel) -> list["_Call"]:
    """Run a model on a few tokens and return its self-attention calls.

    The heads on top are left out: they may ask for more than tokens. Source and target differ in length, so that
    cross-attention shows.
    """
    if model.main_input_name != "input_ids":
        raise ValueError(
            f"{type(model).__name__} reads {model.main_input_name}; expected a model that reads input_ids: "
            f"take a model such as {_KNOWN}"
        )
    calls: list[_Call] = []
    tokens = torch.zeros(1, 3, dtype=torch.long, device=model.device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens[:, :2]
    with _observed(model, calls.append), _evaluating(model), torch.no_grad():
        model.base_model(**inputs)
    if not calls:
        raise ValueError(
            f"{type(model).__name__} made no attention call through transformers' AttentionInterface; expected one a "
            f"layer: take a model such as {_KNOWN}, or leave this one without diffusion"
        )
    return [call for call in calls if call.query_bhnd.shape[2] == call.key_bgmd.shape[2]]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation and each of its modules back to what it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass(frozen=True)
class _Call:
    """One call of an attention function without its values: the matrix A, not formed."""

    module: nn.Module
    query_bhnd: Tensor
    key_bgmd: Tensor
    attention_mask: Tensor | None
    scaling: float | None
    is_causal: bool | None

    def next_hop(self) -> Callable[[Tensor], Tensor]:
        """Return the function that applies A to one hop, (B, H, M, D) with N = M, to make the next.

        Raises:
            ValueError: N is not M.
        """
        num_queries, num_keys = self.query_bhnd.shape[2], self.key_bgmd.shape[2]
        if num_queries != num_keys:
            raise ValueError(
                f"{type(self.module).__name__} got {num_queries} queries and {num_keys} keys; expected as many of "
                "each, since a further hop starts from the output at every key, which a cache does not hold: pass "
                "use_cache=False"
            )
        is_causal = self.is_causal if self.is_causal is not None else getattr(self.module, "is_causal", True)
        # Grouped keys are repeated: from the second hop on the values differ between query heads.
        groups = self.query_bhnd.shape[1] // self.key_bgmd.shape[1]
        key_bhmd = self.key_bgmd if groups == 1 else self.key_bgmd.repeat_interleave(groups, dim=1)

        def attend(hop_bhmd: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(
                self.query_bhnd,
                key_bhmd,
                hop_bhmd,
                attn_mask=self.attention_mask,
                is_causal=self.attention_mask is None and bool(is_causal),
                scale=self.scaling,
            )

        return attend

    def matrices(self) -> AttentionMatrices:
        """Return the matrices of this call, by applying it to the identity: once, and once a further hop."""
        batch, key_heads, num_keys, _ = self.key_bgmd.shape
        identity_mm = torch.eye(num_keys, dtype=self.query_bhnd.dtype, device=self.query_bhnd.device)
        plain_bnhm, _ = sdpa_attention_forward(
            self.module,
            self.query_bhnd,
            self.key_bgmd,
            identity_mm.expand(batch, key_heads, -1, -1),
            self.attention_mask,
            scaling=self.scaling,
            is_causal=self.is_causal,
        )
        plain_bhnm = plain_bnhm.transpose(1, 2)
        beta_kh = getattr(self.module, _BETA, None)
        if beta_kh is None:
            return AttentionMatrices(plain_bhnm, plain_bhnm, plain_bhnm.new_zeros(0, plain_bhnm.shape[1]))
        effective_bhnm = _add_hops(self.next_hop(), plain_bhnm, beta_kh.to(plain_bhnm.dtype))
        return AttentionMatrices(plain_bhnm, effective_bhnm, beta_kh)


_observer: ContextVar[Callable[[_Call], None]] = ContextVar("suffuse_attention_observer")


@contextmanager
def _observed(model: PreTrainedModel, observe: Callable[[_Call], None]) -> Iterator[None]:
    """Tell `observe` of every attention call of a model; its attention implementation is put back on leaving."""
    register_attention()
    implementation = model.config._attn_implementation
    token = _observer.set(observe)
    try:
        model.set_attn_implementation(_OBSERVED_NAME)
        yield
    finally:
        model.set_attn_implementation(implementation)
        _observer.reset(token)


def _observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **extras: object,
) -> tuple[Tensor, None]:
    """Report a call to the observer of this context, then attend as ever."""
    _observer.get()(_Call(module, query, key, attention_mask, scaling, is_causal))
    return diffusion_attention(module, query, key, value, attention_mask, dropout, scaling, is_causal, **extras)
