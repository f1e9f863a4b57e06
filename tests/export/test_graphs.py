"""A graph must compute what its network computes at any size, hold nothing else, and be refused where it does not."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.export.families import random_network
from torch import Tensor, nn
from transformers import AutoConfig

from suffuse.errors import ExportError
from suffuse.export.graphs import MAX_DIFFERENCE, OPSETS, compare, export_graph, open_graph, rounded_up
from suffuse.tasks import Head, Level, Loss
from suffuse.training import TextNetwork

WIDTH: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
ENCODER: dict[str, Any] = {"model_type": "bert", "vocab_size": 50, "max_position_embeddings": 64, **WIDTH}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 50, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64},
    "llama": {"model_type": "llama", "vocab_size": 50, "num_key_value_heads": 2, **WIDTH},
}


def network_of(settings: dict[str, Any], level: Level = Level.ROW) -> TextNetwork:
    """A network with random weights, those of the hops included."""
    config = AutoConfig.for_model(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return random_network(config, Head(3, level, Loss.SOFTMAX), num_hops=2)


@pytest.fixture(scope="module")
def encoder() -> TextNetwork:
    return network_of(ENCODER)


@pytest.fixture(scope="module")
def graph(encoder: TextNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "predict.onnx"
    export_graph(encoder, encoder.input_names, 64, path)
    return path


def test_graph_computes_what_torch_computes(encoder: TextNetwork, graph: Path) -> None:
    assert 0 < compare(encoder, graph, vocabulary_size=50, max_tokens=64) <= 1e-5


@pytest.mark.parametrize("architecture", DECODERS)
def test_decoders_are_exported_too(architecture: str, tmp_path: Path) -> None:
    network = network_of(DECODERS[architecture])

    export_graph(network, network.input_names, 64, tmp_path / "predict.onnx")

    assert compare(network, tmp_path / "predict.onnx", vocabulary_size=50, max_tokens=64) <= 1e-5


def test_every_input_counts(encoder: TextNetwork, graph: Path) -> None:
    session = open_graph(graph)
    inputs = {name: np.ones((1, 6), dtype=np.int64) for name in encoder.input_names}
    plain = session.run(None, inputs)[0]

    for name in encoder.input_names:
        changed = {**inputs, name: np.array([[1, 1, 0, 0, 1, 1]], dtype=np.int64)}
        assert np.abs(session.run(None, changed)[0] - plain).max() > 1e-4, name


def test_graph_is_of_the_first_opset_and_names_its_sizes(graph: Path) -> None:
    model = onnx.load(graph)

    assert [opset.version for opset in model.opset_import if not opset.domain] == [OPSETS[0]]
    assert [size.dim_param for size in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]


def test_graph_holds_no_trace_of_where_it_was_made(graph: Path) -> None:
    content = graph.read_bytes()

    assert b"stack_trace" not in content
    assert b".py" not in content


def test_same_network_gives_the_same_bytes(encoder: TextNetwork, graph: Path, tmp_path: Path) -> None:
    export_graph(encoder, encoder.input_names, 64, tmp_path / "again.onnx")

    assert (tmp_path / "again.onnx").read_bytes() == graph.read_bytes()


class Undecided(nn.Module):
    """A network whose way depends on its input, which a graph cannot hold."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids.float() if int(input_ids.sum()) > 3 else -input_ids.float()


def test_network_that_cannot_be_a_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export_graph(Undecided().eval(), ["input_ids"], 64, tmp_path / "predict.onnx")

    message = str(caught.value)
    assert re.match(r"no ONNX graph can be made of this network \(opset 23: \w+: .+; opset 20: \w+: .+\); ", message)
    assert "\n" not in message


class Shifted(nn.Module):
    """A network whose logits are off by a constant."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network = network
        self.by = by

    def forward(self, **inputs: Tensor) -> Tensor:
        shifted: Tensor = self.network(**inputs) + self.by
        return shifted


@pytest.mark.parametrize(("by", "shown"), [(0.25, "0.25"), (float("nan"), "nan")])
def test_graph_that_differs_is_refused(encoder: TextNetwork, tmp_path: Path, by: float, shown: str) -> None:
    silent = copy.deepcopy(encoder)
    silent.classifier.weight.data.zero_()
    export_graph(silent, encoder.input_names, 64, tmp_path / "predict.onnx")
    message = (
        f"predict.onnx: ONNX Runtime and torch differ by {shown} in logits (as a share of the largest, where that is "
        "above 1) at 1 x 1; expected at most 0.0001; the export is wrong, so no bundle was written"
    )
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        compare(Shifted(silent, by), tmp_path / "predict.onnx", vocabulary_size=50, max_tokens=64)


def test_large_logits_may_differ_by_a_share_of_the_largest(encoder: TextNetwork, tmp_path: Path) -> None:
    large = copy.deepcopy(encoder)
    large.classifier.weight.data *= 1000
    export_graph(large, encoder.input_names, 64, tmp_path / "predict.onnx")
    assert compare(Shifted(large, 5e-3), tmp_path / "predict.onnx", 50, 64) < MAX_DIFFERENCE
    with pytest.raises(ExportError):
        compare(Shifted(large, 5.0), tmp_path / "predict.onnx", 50, 64)


@pytest.mark.parametrize(
    ("value", "bound"), [(0.0, 0.0), (1e-7, 1e-7), (1.1e-7, 2e-7), (3e-6, 5e-6), (7.7e-5, 1e-4), (1.0, 1.0)]
)
def test_bound_is_the_next_of_one_two_five(value: float, bound: float) -> None:
    assert rounded_up(value) == bound
    assert rounded_up(MAX_DIFFERENCE) == MAX_DIFFERENCE
