"""The graphs that explanations are computed with must be right for every family that the docs name."""

from pathlib import Path

import pytest
from tests.export.families import FAMILIES, MAX_TOKENS, VOCABULARY, network_of

from suffuse.export import compare_attention, compare_gradients, export_attention, export_gradients
from suffuse.export.graphs import compare, export_graph
from suffuse.tasks import Level


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_autograd(family: str, tmp_path: Path) -> None:
    network = network_of(family, Level.ROW, 2)
    path = tmp_path / "explain.onnx"

    export_gradients(network, MAX_TOKENS, path)

    assert 0 < compare_gradients(network, path, VOCABULARY, MAX_TOKENS) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_that_of_torch(family: str, tmp_path: Path) -> None:
    network = network_of(family, Level.TOKEN, 2)
    path = tmp_path / "attention.onnx"

    export_attention(network, MAX_TOKENS, path)

    assert 0 < compare_attention(network, path, VOCABULARY, MAX_TOKENS) <= 1e-5


def test_a_graph_that_opens_and_does_not_run_is_written_at_another_opset(tmp_path: Path) -> None:
    network = network_of("modernbert", Level.ROW, 2)
    path = tmp_path / "predict.onnx"

    export_graph(network, network.input_names, MAX_TOKENS, path)

    assert compare(network, path, VOCABULARY, MAX_TOKENS) <= 1e-5
