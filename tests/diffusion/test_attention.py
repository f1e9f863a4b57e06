"""Diffusion attention must equal transformers' attention at beta = 0 and explicit matrix powers at any other."""

import importlib
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from suffuse.diffusion import (
    ATTENTION_NAME,
    add_diffusion,
    diffusion_attention,
    diffusion_parameters,
    effective_attention,
    register_attention,
)

VOCABULARY = 64


def configuration(model_type: str, **options: int) -> PreTrainedConfig:
    """Return a small configuration; by name, for the constructors' own types do not take a dictionary of sizes."""
    config = transformers.AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **options)
    assert isinstance(config, PreTrainedConfig)
    return config


WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "bert": configuration("bert", **WIDTH, num_hidden_layers=2),
    "roberta": configuration("roberta", **WIDTH, num_hidden_layers=2),
    "distilbert": configuration("distilbert", dim=32, n_heads=4, hidden_dim=64, n_layers=2),
    "electra": configuration("electra", **WIDTH, embedding_size=16, num_hidden_layers=2),
    "modernbert": configuration("modernbert", **WIDTH, **SPECIAL, num_hidden_layers=4, local_attention=6),
    "gpt2": configuration("gpt2", **SPECIAL, n_embd=32, n_head=4, n_layer=2),
    "llama": configuration("llama", **WIDTH, num_key_value_heads=2, num_hidden_layers=2),
}
ARCHITECTURES = pytest.mark.parametrize("architecture", CONFIGS)


@dataclass(frozen=True)
class Batch:
    """Three rows of twelve tokens: whole, padded on the right, padded on the left."""

    input_ids: Tensor
    attention_mask: Tensor

    def outputs_of(self, model: PreTrainedModel) -> Tensor:
        """Return hidden states of the tokens that are not padding, (R, D)."""
        with torch.no_grad():
            hidden_btd = model(input_ids=self.input_ids, attention_mask=self.attention_mask).last_hidden_state
        assert isinstance(hidden_btd, Tensor)
        return hidden_btd[self.attention_mask.bool()]


@pytest.fixture
def batch() -> Batch:
    mask_bt = torch.ones(3, 12, dtype=torch.long)
    mask_bt[1, 8:] = 0
    mask_bt[2, :5] = 0
    return Batch(torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1)), mask_bt)


def tiny(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModel.from_config(deepcopy(config))  # type: ignore[no-untyped-call]
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():  # the usual initialisation is so small that attention is nearly uniform
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    model.train(mode=False)
    return model


def diffused(model: PreTrainedModel, num_hops: int) -> PreTrainedModel:
    """Add hops with random weights."""
    add_diffusion(model, num_hops)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for beta_kh in diffusion_parameters(model):
            beta_kh.uniform_(-1, 1, generator=generator)
    return model


def attention_matrix(query: Tensor, key: Tensor, allowed: Tensor | None, scaling: float) -> Tensor:
    """Return softmax(QK^T) written out, (B, H, N, N), for one key head a query head."""
    scores = torch.einsum("bhnd,bhmd->bhnm", query, key) * scaling
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def hops_by_matrix_power(matrix: Tensor, beta_kh: Tensor) -> Tensor:
    """Return A + sum beta_k (A^k - A^{k-1}) with the powers formed."""
    powers = [torch.linalg.matrix_power(matrix, hop) for hop in range(1, len(beta_kh) + 2)]
    differences = [further - nearer for nearer, further in pairwise(powers)]
    return matrix + torch.einsum("kh,kbhnm->bhnm", beta_kh, torch.stack(differences))


def eager_by_matrix_power(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **_: object
) -> tuple[Tensor, Tensor]:
    """Stand in for an architecture's eager attention; its masks are additive and always given where one is due."""
    groups = query.shape[1] // key.shape[1]
    key, value = (torch.stack([grouped] * groups, dim=2).flatten(1, 2) for grouped in (key, value))
    allowed = None if attention_mask is None else attention_mask == 0
    matrix = attention_matrix(query, key, allowed, scaling)
    assert isinstance(module.diffusion_beta, Tensor)
    mixed = hops_by_matrix_power(matrix, module.diffusion_beta)
    return (mixed @ value).transpose(1, 2).contiguous(), mixed


# The first hop is transformers' own


@ARCHITECTURES
@pytest.mark.parametrize("num_hops", [1, 2, 4])
def test_zero_beta_equals_sdpa_to_the_bit(architecture: str, num_hops: int, batch: Batch) -> None:
    model = tiny(CONFIGS[architecture])
    model.set_attn_implementation("sdpa")
    expected = batch.outputs_of(model)

    add_diffusion(model, num_hops)

    assert torch.equal(batch.outputs_of(model), expected)


@ARCHITECTURES
def test_zero_beta_equals_sdpa_where_transformers_drops_the_mask(architecture: str, batch: Batch) -> None:
    model = tiny(CONFIGS[architecture])
    unpadded = Batch(batch.input_ids, torch.ones_like(batch.attention_mask))
    expected = unpadded.outputs_of(model)

    assert torch.equal(unpadded.outputs_of(add_diffusion(model)), expected)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_zero_beta_has_a_gradient(architecture: str, batch: Batch) -> None:
    model = add_diffusion(tiny(CONFIGS[architecture]))

    model(input_ids=batch.input_ids).last_hidden_state.square().sum().backward()

    for beta_kh in diffusion_parameters(model):
        assert beta_kh.grad is not None
        assert beta_kh.grad.abs().min() > 0


# Further hops are powers of the attention matrix


@ARCHITECTURES
@pytest.mark.parametrize("num_hops", [2, 3, 4])
def test_whole_model_equals_eager_attention_with_matrix_powers(
    architecture: str, num_hops: int, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = diffused(tiny(CONFIGS[architecture]), num_hops)
    outputs = batch.outputs_of(model)

    monkeypatch.setattr(
        importlib.import_module(type(model).__module__), "eager_attention_forward", eager_by_matrix_power
    )
    model.set_attn_implementation("eager")

    assert_close(outputs, batch.outputs_of(model), atol=2e-4, rtol=2e-4)


def causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()


@pytest.mark.parametrize("num_hops", [2, 3, 4])
@pytest.mark.parametrize(
    ("given", "is_causal", "allowed"),
    [
        pytest.param(None, False, None, id="no mask"),
        pytest.param(None, True, causal(5), id="causal without a mask"),
        pytest.param(causal(5)[None, None], True, causal(5), id="boolean mask"),
        pytest.param(torch.zeros(5, 5).masked_fill(~causal(5), -1e30), False, causal(5), id="additive mask"),
    ],
)
def test_function_equals_matrix_powers_in_double_precision(
    num_hops: int, given: Tensor | None, is_causal: bool, allowed: Tensor | None
) -> None:
    module = nn.Module()
    module.diffusion_beta = torch.randn(num_hops - 1, 4, dtype=torch.float64)
    query, key, value = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64)
    mask = given.double() if given is not None and given.is_floating_point() else given

    outputs, weights = diffusion_attention(module, query, key, value, mask, scaling=0.7, is_causal=is_causal)

    matrix = attention_matrix(query, key, allowed, scaling=0.7)
    expected = hops_by_matrix_power(matrix, module.diffusion_beta) @ value
    assert_close(outputs, expected.transpose(1, 2), atol=1e-12, rtol=1e-10)
    assert weights is None


class Grouped(nn.Module):
    """The least that transformers' sdpa asks of a grouped-query module."""

    def __init__(self, num_key_value_groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = num_key_value_groups


@pytest.mark.parametrize("key_heads", [2, 1])
def test_gradients_are_those_of_finite_differences(key_heads: int) -> None:
    module = Grouped(2 // key_heads)

    def attend(query: Tensor, key: Tensor, value: Tensor, beta_kh: Tensor) -> Tensor:
        module.diffusion_beta = beta_kh
        return diffusion_attention(module, query, key, value, causal(4)[None, None])[0]

    shapes = ((2, 2, 4, 3), (2, key_heads, 4, 3), (2, key_heads, 4, 3), (2, 2))
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.autograd.gradcheck(attend, inputs)


def test_dropout_is_in_the_first_hop_only() -> None:
    module = nn.Module()
    module.diffusion_beta = torch.tensor([[0.5, -0.3]])
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    torch.manual_seed(3)
    outputs, _ = diffusion_attention(module, query, key, value, None, dropout=0.5, is_causal=False)

    del module.diffusion_beta
    torch.manual_seed(3)
    dropped = diffusion_attention(module, query, key, value, None, dropout=0.5, is_causal=False)[0].transpose(1, 2)

    further = attention_matrix(query, key, None, scaling=0.5) @ dropped
    expected = dropped + torch.tensor([0.5, -0.3])[:, None, None] * (further - dropped)
    assert_close(outputs, expected.transpose(1, 2))


def test_half_precision_by_autocast_stays_near_single(batch: Batch) -> None:
    model = diffused(tiny(CONFIGS["llama"]), num_hops=3)
    expected = batch.outputs_of(model)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = batch.outputs_of(model)

    assert torch.nn.functional.cosine_similarity(outputs.float(), expected, dim=-1).min() > 0.99


# Padding


@ARCHITECTURES
def test_padding_is_not_attended_to(architecture: str, batch: Batch) -> None:
    model = diffused(tiny(CONFIGS[architecture]), num_hops=3)
    other_ids = torch.where(batch.attention_mask.bool(), batch.input_ids, (batch.input_ids + 7) % VOCABULARY)

    assert_close(
        Batch(other_ids, batch.attention_mask).outputs_of(model), batch.outputs_of(model), atol=1e-6, rtol=1e-6
    )


# Effective attention


@ARCHITECTURES
@pytest.mark.parametrize("num_hops", [1, 3])
def test_rows_of_effective_attention_sum_to_one(architecture: str, num_hops: int, batch: Batch) -> None:
    model = diffused(tiny(CONFIGS[architecture]), num_hops)

    with effective_attention(model) as attention_bhnm:
        batch.outputs_of(model)

    assert len(attention_bhnm) == model.config.num_hidden_layers
    for layer_bhnm in attention_bhnm:
        assert layer_bhnm.shape == (3, 4, 12, 12)
        sums_rh = layer_bhnm.sum(-1).transpose(1, 2)[batch.attention_mask.bool()]
        assert_close(sums_rh, torch.ones_like(sums_rh), atol=1e-5, rtol=0)


def test_effective_attention_is_the_matrix_in_front_of_the_values(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = diffused(tiny(CONFIGS["bert"]), num_hops=3)
    with effective_attention(model) as effective:
        batch.outputs_of(model)

    written_out: list[Tensor] = []

    def collecting(*args: Tensor, **kwargs: float) -> tuple[Tensor, Tensor]:
        outputs, mixed = eager_by_matrix_power(*args, **kwargs)  # type: ignore[arg-type]
        written_out.append(mixed)
        return outputs, mixed

    monkeypatch.setattr(importlib.import_module(type(model).__module__), "eager_attention_forward", collecting)
    model.set_attn_implementation("eager")
    batch.outputs_of(model)

    for layer_effective, layer_written_out in zip(effective, written_out, strict=True):
        real = batch.attention_mask.bool()
        assert_close(layer_effective.transpose(1, 2)[real], layer_written_out.transpose(1, 2)[real])


def test_effective_attention_leaves_the_model_as_found_even_after_an_error() -> None:
    model = add_diffusion(tiny(CONFIGS["bert"]))

    with pytest.raises(ZeroDivisionError), effective_attention(model):
        raise ZeroDivisionError

    assert model.config._attn_implementation == ATTENTION_NAME


# Which modules get hops, and what becomes of their weights


@ARCHITECTURES
def test_every_layer_holds_one_weight_a_hop_and_head(architecture: str) -> None:
    model = add_diffusion(tiny(CONFIGS[architecture]), num_hops=3)

    assert [tuple(beta_kh.shape) for beta_kh in diffusion_parameters(model)] == (
        [(2, 4)] * model.config.num_hidden_layers
    )


def test_one_hop_adds_no_parameters() -> None:
    assert list(diffusion_parameters(add_diffusion(tiny(CONFIGS["bert"]), num_hops=1))) == []


def test_cross_attention_stays_plain() -> None:
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    bart = tiny(configuration("bart", **heads, d_model=32, encoder_layers=1, decoder_layers=2))

    model = add_diffusion(bart)

    assert [name for name, _ in model.named_parameters() if name.endswith("diffusion_beta")] == [
        "encoder.layers.0.self_attn.diffusion_beta",
        "decoder.layers.0.self_attn.diffusion_beta",
        "decoder.layers.1.self_attn.diffusion_beta",
    ]


def test_modes_are_left_as_found() -> None:
    model = tiny(CONFIGS["bert"]).train()
    model.get_submodule("encoder.layer.0").eval()
    modes = [module.training for module in model.modules()]

    add_diffusion(model)

    assert [module.training for module in model.modules()] == modes


def test_changing_the_number_of_hops_keeps_the_weights_that_remain() -> None:
    model = diffused(tiny(CONFIGS["bert"]), num_hops=3)
    first_kh = next(diffusion_parameters(model)).detach().clone()

    add_diffusion(model, num_hops=4)
    assert torch.equal(next(diffusion_parameters(model)), torch.cat([first_kh, torch.zeros(1, 4)]))

    add_diffusion(model, num_hops=2)
    assert torch.equal(next(diffusion_parameters(model)), first_kh[:1])


@ARCHITECTURES
def test_state_dict_restores_a_model_rebuilt_from_its_configuration(
    architecture: str, batch: Batch, tmp_path: Path
) -> None:
    model = diffused(tiny(CONFIGS[architecture]), num_hops=3)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    model.config.save_pretrained(tmp_path)

    rebuilt = add_diffusion(tiny(transformers.AutoConfig.from_pretrained(tmp_path)), num_hops=3)
    rebuilt.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))

    assert torch.equal(batch.outputs_of(rebuilt), batch.outputs_of(model))


def test_registering_twice_changes_nothing() -> None:
    register_attention()
    names = set(ALL_ATTENTION_FUNCTIONS)

    register_attention()

    assert set(ALL_ATTENTION_FUNCTIONS) == names
    assert ATTENTION_NAME in ALL_MASK_ATTENTION_FUNCTIONS
