"""What diffusion attention cannot do must be refused in words; what leaves torch, or 32 bits, must compute the same."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from suffuse.diffusion import add_diffusion, diffusion_attention, diffusion_parameters, effective_attention


def configuration(model_type: str, **sizes: int) -> PreTrainedConfig:
    config = transformers.AutoConfig.for_model(model_type, vocab_size=64, **sizes)
    assert isinstance(config, PreTrainedConfig)
    return config


WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
BERT = configuration("bert", **WIDTH)
LLAMA = configuration("llama", **WIDTH, num_key_value_heads=2)
T5 = configuration("t5", d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
GEMMA2 = configuration("gemma2", **WIDTH, num_key_value_heads=2, head_dim=8)
TAKE = "take a model such as BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, GPT-2 or Llama"


def tiny(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModel.from_config(deepcopy(config))  # type: ignore[no-untyped-call]
    assert isinstance(model, PreTrainedModel)
    model.train(mode=False)
    return model


class BagOfWords(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A text model without attention."""

    config_class = transformers.BertConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(64, 32)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(input_ids)
        return (embedded * attention_mask[..., None]).sum(1)


class Camera(BagOfWords):  # type: ignore[no-untyped-call]
    """A model that reads no text."""

    main_input_name = "pixel_values"


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize("num_hops", [0, -2])
def test_fewer_than_one_hop_is_refused(num_hops: int) -> None:
    message = f"num_hops is {num_hops}; expected 1 (plain attention) or more: pass num_hops=2 for one further hop"
    with pytest.raises(ValueError, match=whole(message)):
        add_diffusion(tiny(BERT), num_hops)


def test_model_without_attention_interface_is_refused() -> None:
    message = (
        "BagOfWords made no attention call through transformers' AttentionInterface; expected one a layer: "
        f"{TAKE}, or leave this one without diffusion"
    )
    with pytest.raises(ValueError, match=whole(message)):
        add_diffusion(BagOfWords(deepcopy(BERT)))


def test_model_that_reads_no_text_is_refused() -> None:
    message = f"Camera reads pixel_values; expected a model that reads input_ids: {TAKE}"
    with pytest.raises(ValueError, match=whole(message)):
        add_diffusion(Camera(deepcopy(BERT)))


@pytest.mark.parametrize(
    ("config", "caller", "extra"), [(T5, "T5Attention", "position_bias"), (GEMMA2, "Gemma2Attention", "softcap")]
)
def test_attention_that_is_no_plain_softmax_is_refused_and_the_model_left_as_found(
    config: PreTrainedConfig, caller: str, extra: str
) -> None:
    model = tiny(config)
    implementation = model.config._attn_implementation

    message = (
        f"{caller} got {extra}; expected plain softmax attention, the only kind that hops: "
        f"{TAKE}, or leave this one without diffusion"
    )
    with pytest.raises(ValueError, match=whole(message)):
        add_diffusion(model)

    assert model.config._attn_implementation == implementation
    assert list(diffusion_parameters(model)) == []


def test_decoding_with_a_cache_is_refused() -> None:
    model = add_diffusion(tiny(LLAMA))
    cache = model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values

    message = (
        "LlamaAttention got 1 queries and 4 keys; expected as many of each, since a further hop starts from the output "
        "at every key, which a cache does not hold: pass use_cache=False"
    )
    with pytest.raises(ValueError, match=whole(message)):
        model(input_ids=torch.tensor([[8]]), cache=cache)


def test_decoding_with_a_cache_is_fine_for_one_hop() -> None:
    model = add_diffusion(tiny(LLAMA), num_hops=1)
    row = torch.tensor([[5, 6, 7, 8]])
    cache = model(input_ids=row[:, :3], use_cache=True).past_key_values

    continued = model(input_ids=row[:, 3:], cache=cache).last_hidden_state

    torch.testing.assert_close(continued[:, -1], model(input_ids=row).last_hidden_state[:, -1])


def test_asking_for_attention_weights_is_refused() -> None:
    query = torch.zeros(1, 1, 2, 4)

    message = (
        "Module got output_attentions=True; expected it unset, since no hop forms its matrix: "
        "call the model inside `with effective_attention(model) as attention_bhnm:`"
    )
    with pytest.raises(ValueError, match=whole(message)):
        diffusion_attention(nn.Module(), query, query, query, None, output_attentions=True)


class Explained(nn.Module):
    """Hidden states, and the effective attention of all layers, as one graph."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        with effective_attention(self.model) as attention_bhnm:
            outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return outputs.last_hidden_state, torch.stack(attention_bhnm)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    for rows, length in ((1, 1), (1, 7), (5, 20), (3, 33)):
        mask_bt = torch.ones(rows, length, dtype=torch.long)
        mask_bt[-1, length // 2 + 1 :] = 0
        yield torch.randint(64, (rows, length)), mask_bt


# The exporter warns about its own insides.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
# No opset 23 for Llama: ONNX Runtime 1.32 refuses the RotaryEmbedding node that torch 2.13 writes there, plain or not.
@pytest.mark.parametrize(
    ("config", "opset"),
    [
        pytest.param(BERT, 20, id="bidirectional"),
        pytest.param(BERT, 23, id="bidirectional with Attention nodes"),
        pytest.param(LLAMA, 20, id="causal and grouped"),
    ],
)
def test_exported_graph_computes_the_same_for_any_batch_and_length(
    config: PreTrainedConfig, opset: int, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = add_diffusion(tiny(config), num_hops=3)
    with torch.no_grad():
        for beta_kh in diffusion_parameters(model):
            beta_kh.uniform_(-1, 1)
    sizes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=1, max=512)}
    torch.onnx.export(
        Explained(model).eval(),
        tuple(torch.ones(2, 2, 16, dtype=torch.long)),
        tmp_path / "model.onnx",
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
        opset_version=opset,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])

    for input_ids, mask_bt in batches():
        hidden_btd, attention_lbhnm = session.run(
            None, {"input_ids": input_ids.numpy(), "attention_mask": mask_bt.numpy()}
        )
        with torch.no_grad():
            expected_btd, expected_lbhnm = Explained(model)(input_ids, mask_bt)
        real = mask_bt.bool().numpy()
        np.testing.assert_allclose(hidden_btd[real], expected_btd.numpy()[real], atol=1e-5)
        np.testing.assert_allclose(
            attention_lbhnm.swapaxes(2, 3)[:, real], expected_lbhnm.numpy().swapaxes(2, 3)[:, real], atol=1e-5
        )


def test_attention_on_a_processor_stays_in_32_bits_under_autocast() -> None:
    module = nn.Module()
    module.diffusion_beta = torch.randn(1, 4)
    inputs = *torch.randn(3, 2, 4, 5, 8), torch.ones(5, 5, dtype=torch.bool).tril()
    expected, _ = diffusion_attention(module, *inputs)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, _ = diffusion_attention(module, *inputs)

    assert torch.equal(outputs, expected)
