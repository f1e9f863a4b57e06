"""GELU with its backward written out is torch's, and its error function is computed once."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from tests.export.families import FAMILIES, MAX_TOKENS, network_of
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from suffuse.export.gradients import export_gradients
from suffuse.export.written_gelu import decompositions
from suffuse.tasks import Level


def with_gradient(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = functional.gelu(x, approximate=approximate)
        (gradient,) = torch.autograd.grad((y * torch.cos(3 * x.detach())).sum(), x)
    return y.detach(), gradient


def traced(x: Tensor, approximate: str) -> torch.fx.GraphModule:
    return make_fx(lambda x: with_gradient(x, approximate), decomposition_table=decompositions())(x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_value_and_gradient_are_those_of_torch(approximate: str) -> None:
    x = torch.cat([torch.linspace(-40, 40, 1001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])

    for found, expected in zip(traced(x, approximate)(x), with_gradient(x, approximate), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_error_function_is_computed_once_a_layer(tmp_path: Path) -> None:
    written, opened = tmp_path / "explain.onnx", tmp_path / "opened.onnx"
    export_gradients(network_of("bert", Level.ROW, 1), MAX_TOKENS, written)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(opened)
    onnxruntime.InferenceSession(str(written), options, providers=["CPUExecutionProvider"])

    nodes = Counter(node.op_type for node in onnx.load(opened).graph.node)

    assert nodes["Erf"] == FAMILIES["bert"]["num_hidden_layers"]
    assert not [name for name in nodes if "Gelu" in name]


def test_gelu_by_tanh_stays_one_operator() -> None:
    names = [str(node.target) for node in traced(torch.ones(3), "tanh").graph.nodes]

    assert "aten.gelu.default" in names
