"""What of a pretrained model trains: frozen layers, gradual unfreezing, adapters; with less memory; from scratch."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, PreTrainedModel

from suffuse.diffusion import add_diffusion, diffusion_parameters
from suffuse.errors import InputError
from suffuse.tasks import Head, Level, Loss
from suffuse.training import TextNetwork
from suffuse.training.models import random_backbone
from suffuse.training.optimization import Optimization, parameter_groups
from suffuse.training.transfer import (
    Lora,
    Transfer,
    add_adapters,
    by_depth,
    layer_stack,
    merge_adapters,
    prepare,
    resolved,
    still_frozen,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*LeafSpec.*:FutureWarning",
)
LAYERS = 3
WIDTH = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": LAYERS}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "distilbert": {"dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": LAYERS},
    "electra": WIDTH | {"embedding_size": 16},
    "modernbert": WIDTH,
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": LAYERS},
    "llama": {**WIDTH, "num_key_value_heads": 2},
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEAD = Head(3, Level.ROW, Loss.SOFTMAX)
Recipe = dict[str, Any]


def backbone(architecture: str, num_hops: int = 2) -> PreTrainedModel:
    """Return a random network whose hops have weights, without the pooler that `TextNetwork` takes away."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, vocab_size=64, **SPECIAL, **CONFIGS[architecture])
    model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    add_diffusion(model, num_hops)
    with torch.no_grad():
        for beta_kh in diffusion_parameters(model):
            beta_kh.uniform_(-0.5, 0.5)
    return TextNetwork(model, HEAD).backbone


def hidden(model: PreTrainedModel) -> Tensor:
    input_ids = torch.arange(3, 15).reshape(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    output: Tensor = model(input_ids=input_ids, attention_mask=mask).last_hidden_state
    return output


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def depth_by_name(name: str) -> int:
    """Where a parameter stands, as its name says: its layer from 1, else 0 for embeddings and L + 1 for a last norm."""
    number = re.search(r"\.(\d+)\.", f".{name}")
    if number:
        return int(number[1]) + 1
    return 0 if re.search(r"embed|wte|wpe", name) else LAYERS + 1


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.mark.parametrize("architecture", CONFIGS)
def test_parameters_are_sorted_by_depth_in_every_architecture(architecture: str) -> None:
    model = backbone(architecture)
    depths = by_depth(model)
    depth_of = {id(parameter): depth for depth, parameters in enumerate(depths) for parameter in parameters}
    named = {name: parameter for name, parameter in model.named_parameters() if "diffusion_beta" not in name}
    assert {name: depth_of[id(parameter)] for name, parameter in named.items()} == {
        name: depth_by_name(name) for name in named
    }
    assert len(depths) == LAYERS + 2


@pytest.mark.parametrize("architecture", CONFIGS)
def test_lowest_layers_and_embeddings_are_frozen_in_every_architecture(architecture: str) -> None:
    model = backbone(architecture)
    prepare(model, Transfer(freeze=2))
    assert trained_names(model) == {
        name for name, _ in model.named_parameters() if depth_by_name(name) > 2 or "diffusion_beta" in name
    }


def test_all_of_the_backbone_is_frozen_but_the_new_hop_weights() -> None:
    model = backbone("llama")
    prepare(model, Transfer(freeze=-1))
    assert trained_names(model) == {f"layers.{layer}.self_attn.diffusion_beta" for layer in range(LAYERS)}


def test_nothing_is_frozen_by_default() -> None:
    model = backbone("bert")
    prepare(model, Transfer())
    assert trained_names(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("layers", [LAYERS + 1, -2])
def test_more_layers_than_there_are_cannot_be_frozen(layers: int) -> None:
    message = f"transfer.freeze is {layers}; expected 0 to 3, the layers of BertModel, or -1 for all of it"
    with pytest.raises(InputError, match=exactly(message)):
        prepare(backbone("bert"), Transfer(freeze=layers))


def test_model_whose_layers_cannot_be_told_is_refused() -> None:
    model = backbone("bert")
    model.config.num_hidden_layers = 7
    message = (
        "BertModel has 0 lists of 7 layers; expected one, to tell how deep a layer is: "
        "leave out transfer.freeze, transfer.unfreeze_every and optimization.depth_decay"
    )
    with pytest.raises(InputError, match=exactly(message)):
        layer_stack(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Transfer(unfreeze_every=-1),
            "transfer.unfreeze_every is -1; expected 0 (off) or a number of epochs",
        ),
        (
            lambda: Transfer(freeze=2, lora=Lora()),
            (
                "transfer.lora and transfer.freeze are both given, but lora freezes the whole pretrained model: "
                "leave out one of them"
            ),
        ),
        (
            lambda: Transfer(freeze=-1, unfreeze_every=1),
            (
                "transfer.freeze is -1 (all), so that transfer.unfreeze_every has nothing to unfreeze: "
                "leave out one of them"
            ),
        ),
        (
            lambda: Transfer(pretrained=False, lora=Lora()),
            (
                "transfer.lora is given with transfer.pretrained false, and random weights are not worth keeping: "
                "leave out one of them"
            ),
        ),
        (lambda: Lora(rank=0), "lora.rank is 0; expected at least 1: leave lora out to train without"),
        (lambda: Lora(alpha=0), "lora.alpha is 0; expected at least 1, such as twice the rank"),
        (lambda: Lora(dropout=1.0), "lora.dropout is 1; expected 0 or more and less than 1"),
        (
            lambda: Lora(targets=[]),
            "lora.targets is empty; expected names of layers, all-linear, or none for the default",
        ),
        (
            lambda: Optimization(depth_decay=0.0),
            "optimization.depth_decay is 0; expected more than 0 and at most 1 (the same rate for all layers)",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    make: Callable[[], Transfer | Lora | Optimization], message: str
) -> None:
    with pytest.raises(InputError, match=exactly(message)):
        make().check()


def rates(network: TextNetwork, settings: Optimization) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: group["lr"]
        for group in parameter_groups(network, settings)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_rates_fall_from_layer_to_layer(architecture: str) -> None:
    network = TextNetwork(backbone(architecture), HEAD)
    by_name = rates(network, Optimization(learning_rate=1.0, attention_learning_rate=7.0, depth_decay=0.5))
    expected = dict(enumerate([0.125, 0.25, 0.5, 1.0, 1.0]))
    assert by_name.keys() == dict(network.named_parameters()).keys()
    for name, rate in by_name.items():
        inside = name.removeprefix("backbone.")
        is_head = name.startswith("classifier.")
        assert rate == (7.0 if "diffusion_beta" in name else 1.0 if is_head else expected[depth_by_name(inside)]), name


def test_groups_by_depth_keep_vectors_from_decay() -> None:
    network = TextNetwork(backbone("bert"), HEAD)
    groups = parameter_groups(network, Optimization(weight_decay=0.1, depth_decay=0.5))
    assert all((group["weight_decay"] == 0.1) == (one.ndim > 1) for group in groups[:-1] for one in group["params"])


def test_one_rate_for_all_layers_makes_three_groups() -> None:
    assert len(parameter_groups(TextNetwork(backbone("bert"), HEAD), Optimization())) == 3


def test_frozen_parameters_are_in_no_group() -> None:
    network = TextNetwork(backbone("bert"), HEAD)
    prepare(network.backbone, Transfer(freeze=-1))
    for decay in (1.0, 0.5):
        assert rates(network, Optimization(depth_decay=decay)).keys() == trained_names(network)


def test_layers_are_unfrozen_from_the_top_down() -> None:
    depths = [[nn.Parameter(torch.tensor(float(depth)))] for depth in range(5)]
    frozen = [[int(one) for one in still_frozen(depths, reached)] for reached in range(6)]
    assert frozen == [[0, 1, 2, 3], [0, 1, 2], [0, 1], [0], [], []]


# Adapters.


def with_trained_adapters(architecture: str, lora: Lora) -> PreTrainedModel:
    model: PreTrainedModel = backbone(architecture).train(mode=False)
    add_adapters(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    model.train(mode=False)
    return model


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "gpt2", "llama"])
def test_merged_adapters_compute_what_they_computed_apart(architecture: str) -> None:
    model = with_trained_adapters(architecture, Lora(rank=4, alpha=8, dropout=0.1))
    plain = backbone(architecture).train(mode=False)
    with torch.no_grad():
        adapted = hidden(model)
        merge_adapters(model)
        assert_close(hidden(model), adapted, atol=1e-5, rtol=0)
        assert (hidden(plain) - adapted).abs().max() > 1e-2
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_only_adapters_and_hop_weights_train(architecture: str) -> None:
    model = backbone(architecture)
    add_adapters(model, Lora())
    assert trained_names(model) == {
        name for name, _ in model.named_parameters() if "lora_" in name or "diffusion_beta" in name
    }


def test_adapters_change_nothing_before_they_are_trained() -> None:
    model = backbone("gpt2").train(mode=False)
    with torch.no_grad():
        before = hidden(model)
        add_adapters(model, Lora())
        assert_close(hidden(model.train(mode=False)), before, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("bert", ["query", "value"]),
        ("gpt2", ["c_attn"]),
        ("llama", ["q_proj", "v_proj"]),
        ("modernbert", "all-linear"),
    ],
)
def test_default_targets_are_those_of_peft(architecture: str, targets: object) -> None:
    assert resolved(Lora(), backbone(architecture)).targets == targets


def test_targets_can_be_named() -> None:
    model = backbone("bert")
    add_adapters(model, Lora(targets=["intermediate.dense"]))
    adapted = {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    assert adapted == {f"encoder.layer.{layer}.intermediate.dense" for layer in range(LAYERS)}


def test_targets_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(InputError, match=r"^lora\.targets is \['q_proj'\]: Target modules \{'q_proj'\} not found in"):
        add_adapters(backbone("bert"), Lora(targets=["q_proj"]))


def test_adapters_without_peft_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=exactly("transfer.lora needs the package peft: pip install 'suffuse[lora]'")):
        add_adapters(backbone("bert"), Lora())


# Gradient checkpointing.


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "gpt2", "llama"])
@pytest.mark.parametrize("freeze", [0, 1])
def test_checkpointed_gradients_are_the_same(architecture: str, freeze: int) -> None:
    plain, checkpointed = backbone(architecture), backbone(architecture)
    prepare(plain, Transfer(freeze=freeze))
    prepare(checkpointed, Transfer(freeze=freeze, gradient_checkpointing=True))
    calls: list[object] = []
    attention = next(module for module in checkpointed.modules() if hasattr(module, "diffusion_beta"))
    attention.register_forward_pre_hook(lambda *_: calls.append(1))
    losses = []
    for model in (plain, checkpointed):
        torch.manual_seed(3)  # dropout must be that of the first time when a layer is computed again
        network = TextNetwork(model, HEAD).train()
        with torch.no_grad():
            network.classifier.weight.fill_(0.1).mul_(torch.arange(32))
        torch.manual_seed(4)
        logits = network(torch.arange(3, 15).reshape(2, 6), torch.ones(2, 6, dtype=torch.long))
        losses.append(logits.square().mean())
        losses[-1].backward()
    assert_close(losses[1], losses[0], atol=0, rtol=0)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters() if parameter.requires_grad}
    got = {name: parameter.grad for name, parameter in checkpointed.named_parameters() if parameter.requires_grad}
    assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in got.values())
    assert len(calls) == 2  # forward, and again in the backward pass


def test_model_that_cannot_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("bert")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    message = "BertModel has no gradient checkpointing: set transfer.gradient_checkpointing false"
    with pytest.raises(InputError, match=exactly(message)):
        prepare(model, Transfer(gradient_checkpointing=True))


# From scratch.


def test_random_backbone_has_the_architecture_and_needs_no_weights(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)
    torch.manual_seed(7)
    model = random_backbone(str(tmp_path), num_hops=3)
    pretrained = AutoModel.from_pretrained(tiny_model)
    theirs = {name: tensor for name, tensor in pretrained.state_dict().items() if not name.startswith("pooler")}
    ours = model.state_dict()
    assert {name: ours[name].shape for name in theirs} == {name: tensor.shape for name, tensor in theirs.items()}
    assert (ours["encoder.layer.0.output.dense.weight"] - theirs["encoder.layer.0.output.dense.weight"]).abs().max() > 0
    assert [len(beta_kh) for beta_kh in diffusion_parameters(model)] == [2, 2]
