"""Small networks of every family of models that can be explained, with random weights."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig

from suffuse.diffusion import add_diffusion, diffusion_parameters
from suffuse.tasks import Head, Level, Loss
from suffuse.training import TextNetwork

VOCABULARY = 50
MAX_TOKENS = 64
WIDTH: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
POSITIONS: dict[str, Any] = {"max_position_embeddings": MAX_TOKENS}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **WIDTH, **POSITIONS},
    "bert with heads of 16": {"model_type": "bert", **WIDTH, **POSITIONS, "hidden_size": 64},
    "roberta": {"model_type": "roberta", **WIDTH, "max_position_embeddings": MAX_TOKENS + 2},  # it counts from padding
    "distilbert": {"model_type": "distilbert", "dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": 2, **POSITIONS},
    "electra": {"model_type": "electra", "embedding_size": 16, **WIDTH, **POSITIONS},
    "modernbert": {  # its second layer attends to what is near
        "model_type": "modernbert",
        **WIDTH,
        **POSITIONS,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": MAX_TOKENS},
    "llama": {"model_type": "llama", "num_key_value_heads": 2, **WIDTH},
}


def network_of(family: str, level: Level, num_hops: int, **settings: object) -> TextNetwork:
    """A network of a family with five outputs."""
    config = AutoConfig.for_model(vocab_size=VOCABULARY, **FAMILIES[family] | settings)
    return random_network(config, Head(5, level, Loss.SOFTMAX), num_hops)


def random_network(config: PretrainedConfig, head: Head, num_hops: int) -> TextNetwork:
    """A network whose answers depend on all of it, the weights of the hops included."""
    torch.manual_seed(0)
    backbone = add_diffusion(AutoModel.from_config(config), num_hops)  # type: ignore[no-untyped-call]
    network = TextNetwork(backbone, head).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
        for beta_kh in diffusion_parameters(network):
            beta_kh.uniform_(-0.5, 0.5)
    return network
