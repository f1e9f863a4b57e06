"""Plain attention and the hops' weights must be those of the very calls whose effective attention is collected."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from suffuse.diffusion import add_diffusion, attention_matrices, diffusion_parameters, effective_attention

WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
IDS = torch.tensor([[5, 9, 2, 7, 7], [3, 1, 4, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(
    params=[("bert", 1), ("bert", 3), ("gpt2", 2), ("llama", 3)], ids=lambda param: f"{param[0]}-{param[1]}"
)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Random weights, those of the hops included; llama has fewer key heads than query heads."""
    architecture, num_hops = request.param
    sizes = {
        "bert": WIDTH,
        "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
        "llama": {**WIDTH, "num_key_value_heads": 2},
    }[architecture]
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, vocab_size=64, **sizes)
    model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    model.train(mode=False)
    add_diffusion(model, num_hops)
    for beta_kh in diffusion_parameters(model):
        torch.nn.init.uniform_(beta_kh, -0.5, 0.5)
    return model


def test_matrices_are_those_of_the_calls(model: PreTrainedModel) -> None:
    with torch.no_grad(), effective_attention(model) as effective:
        model(input_ids=IDS, attention_mask=MASK)
    with torch.no_grad(), attention_matrices(model) as matrices:
        model(input_ids=IDS, attention_mask=MASK)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        first_plain_bhnm = model(input_ids=IDS, attention_mask=MASK, output_attentions=True).attentions[0]

    assert len(matrices) == len(effective) == 2
    torch.testing.assert_close(matrices[0].plain_bhnm[0], first_plain_bhnm[0], atol=1e-6, rtol=0)
    for layer, effective_bhnm in zip(matrices, effective, strict=True):
        assert torch.equal(layer.effective_bhnm, effective_bhnm)
        expected_bhnm = power_bhnm = layer.plain_bhnm
        for beta_h in layer.beta_kh:
            further_bhnm = layer.plain_bhnm @ power_bhnm
            expected_bhnm = expected_bhnm + beta_h[:, None, None] * (further_bhnm - power_bhnm)
            power_bhnm = further_bhnm
        torch.testing.assert_close(effective_bhnm, expected_bhnm, atol=1e-6, rtol=0)


def test_weights_of_hops_are_the_models_own(model: PreTrainedModel) -> None:
    with torch.no_grad(), attention_matrices(model) as matrices:
        model(input_ids=IDS, attention_mask=MASK)

    learned = list(diffusion_parameters(model))
    assert all(layer.beta_kh is beta_kh for layer, beta_kh in zip(matrices, learned, strict=False))
    assert [tuple(layer.beta_kh.shape) for layer in matrices] == [
        tuple(beta_kh.shape) for beta_kh in (learned or [torch.nn.Parameter(torch.zeros(0, 4))] * 2)
    ]
