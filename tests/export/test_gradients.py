"""A graph of gradients must compute what autograd computes at any size, and be refused where it does not."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.families import network_of

from suffuse.bundle import Bundle
from suffuse.errors import ExportError
from suffuse.export import Gradients, compare_gradients, export_gradients
from suffuse.export import gradients as gradients_module
from suffuse.export.gradients import baseline_token_id, embedding_size
from suffuse.export.graphs import open_graph
from suffuse.tasks import Level
from suffuse.training import TextNetwork


@pytest.fixture(scope="module", params=["gpt2, tokens, 1 hop", "llama, rows, 2 hops"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextNetwork, Path]:
    """A network and its graph."""
    family, level, num_hops = {
        "gpt2, tokens, 1 hop": ("gpt2", Level.TOKEN, 1),
        "llama, rows, 2 hops": ("llama", Level.ROW, 2),
    }[request.param]
    network = network_of(family, level, num_hops)
    path = tmp_path_factory.mktemp("gradients") / "explain.onnx"
    export_gradients(network, 64, path)
    return network, path


def test_graph_computes_what_autograd_computes(exported: tuple[TextNetwork, Path]) -> None:
    network, path = exported

    assert 0 < compare_gradients(network, path, vocabulary_size=50, max_tokens=64) <= 1e-5


@pytest.mark.parametrize("exported", ["gpt2, tokens, 1 hop"], indirect=True)
def test_same_network_gives_the_same_bytes(exported: tuple[TextNetwork, Path], tmp_path: Path) -> None:
    network, path = exported

    export_gradients(network, 64, tmp_path / "again.onnx")

    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_bundle_has_it_when_asked_and_says_what_it_takes(explainable_bundle: Path) -> None:
    manifest = Bundle.open(explainable_bundle).manifest
    graph = manifest.graphs["explain"]

    assert graph.file == "explain.onnx"
    assert graph.inputs == (
        "input_ids", "attention_mask", "token_type_ids", "baseline_ids", "scale", "noise", "target",
    )  # fmt: skip
    assert graph.outputs == ("logits", "gradient", "embeddings", "baselines")
    assert 0 < graph.max_difference <= 1e-5
    assert (manifest.model["embedding_size"], manifest.model["baseline_token_id"]) == (32, 0)


def test_a_bundle_answers_the_same_with_it_and_without(explainable_bundle: Path, tiny_bundle: Path) -> None:
    assert (explainable_bundle / "predict.onnx").read_bytes() == (tiny_bundle / "predict.onnx").read_bytes()
    assert not (tiny_bundle / "explain.onnx").exists()


def test_graph_names_its_sizes(explainable_bundle: Path) -> None:
    session = open_graph(explainable_bundle / "explain.onnx")
    shapes = {graph_input.name: graph_input.shape for graph_input in session.get_inputs()}

    assert shapes["input_ids"] == ["batch", "length"]
    assert shapes["noise"] == ["batch", "length", 32]
    assert shapes["target"] == ["batch", 2]


def test_graph_holds_no_trace_of_where_it_was_made(explainable_bundle: Path) -> None:
    content = (explainable_bundle / "explain.onnx").read_bytes()

    assert b"stack_trace" not in content
    assert b".py" not in content


def test_graph_that_differs_is_refused(explainable_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("bert", Level.ROW, 1)
    network.classifier = torch.nn.Linear(32, 2)
    monkeypatch.setattr(gradients_module, "FEW_SHAPES", ((1, 3),))

    with pytest.raises(ExportError) as caught:
        compare_gradients(network, explainable_bundle / "explain.onnx", vocabulary_size=50, max_tokens=64)

    assert re.fullmatch(
        r"explain\.onnx: ONNX Runtime and torch differ by [\d.e+]+ of the largest gradient at 1 x 3; expected at most "
        r"0\.0001; the export is wrong, so no bundle was written",
        str(caught.value),
    )


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("electra", Level.ROW, 1)
    monkeypatch.setattr(TextNetwork, "forward", lambda *_, **__: 1 / 0)

    with pytest.raises(ExportError) as caught:
        export_gradients(network, 64, tmp_path / "explain.onnx")

    assert str(caught.value) == (
        "no graph of gradients can be made of this network (ZeroDivisionError: division by zero); expected one of "
        "BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, GPT-2 or Llama type: export without --explain"
    )


def test_gradients_leave_the_network_as_it_was() -> None:
    network = network_of("electra", Level.ROW, 1)
    gradients = Gradients(network)
    ids_bn = torch.tensor([[1, 2, 3]])
    inputs = {
        "input_ids": ids_bn,
        "attention_mask": torch.ones_like(ids_bn),
        "token_type_ids": torch.zeros_like(ids_bn),
    }
    before = network(**inputs)

    at_text, gradient_bnd, *_ = gradients(
        **inputs,
        baseline_ids=torch.zeros_like(ids_bn),
        scale=torch.ones(1),
        noise=torch.zeros(1, 3, embedding_size(network)),
        target=torch.eye(5)[:1],
    )

    assert torch.allclose(at_text, before)
    assert torch.equal(network(**inputs), before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert np.abs(gradient_bnd.numpy()).max() > 0


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"pad_token_id": 3, "eos_token_id": 4}, 3),
        ({"pad_token_id": None, "eos_token_id": 4, "bos_token_id": 5}, 4),
        ({"pad_token_id": None, "eos_token_id": [7, 8]}, 7),
        ({"pad_token_id": None, "eos_token_id": None, "bos_token_id": 5}, 5),
        ({"pad_token_id": None, "eos_token_id": None, "bos_token_id": None}, 0),
        ({"pad_token_id": -1, "eos_token_id": 50256, "bos_token_id": 49}, 49),
    ],
)
def test_baseline_is_padding_or_what_comes_nearest(ids: dict[str, Any], expected: int) -> None:
    network = network_of("gpt2", Level.ROW, 1, **ids)

    assert baseline_token_id(network) == expected
