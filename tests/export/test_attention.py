"""A graph of attention must say what the network attends to: by torch, by transformers, and by the definition."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.export.families import network_of
from transformers import AutoModel

from suffuse.bundle import Bundle
from suffuse.diffusion import diffusion_parameters
from suffuse.errors import ExportError
from suffuse.export import Attention, compare_attention, export_attention
from suffuse.export import attention as attention_module
from suffuse.export.attention import hop_weights
from suffuse.export.graphs import open_graph
from suffuse.tasks import Level
from suffuse.training import TextNetwork
from suffuse.training.checkpoint import load_checkpoint
from suffuse.training.fit import best_checkpoint

CASES = {
    f"{architecture}, {level.value}s, {num_hops} hops": (architecture, level, num_hops)
    for architecture in ("bert", "bert with heads of 16", "gpt2")
    for level, num_hops in ((Level.ROW, 1), (Level.TOKEN, 2), (Level.ROW, 3))
}


def inputs_of(network: TextNetwork) -> dict[str, NDArray[np.int64]]:
    """Three rows, the last two padded."""
    ids_bn = np.random.default_rng(1).integers(1, 50, size=(3, 9))
    mask_bn = (np.arange(9) < np.array([9, 5, 1])[:, None]).astype(np.int64)
    inputs = {"input_ids": ids_bn, "attention_mask": mask_bn, "token_type_ids": np.zeros_like(ids_bn)}
    return {name: inputs[name] for name in network.input_names}


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextNetwork, Path]:
    """A network and its graph."""
    network = network_of(*CASES[request.param])
    path = tmp_path_factory.mktemp("attention") / "attention.onnx"
    export_attention(network, 64, path)
    return network, path


def computed(network: TextNetwork, path: Path) -> dict[str, NDArray[np.float32]]:
    names = Attention(network).output_names
    return dict(zip(names, open_graph(path).run(names, inputs_of(network)), strict=True))


def test_graph_computes_what_torch_computes(exported: tuple[TextNetwork, Path]) -> None:
    network, path = exported

    assert 0 < compare_attention(network, path, vocabulary_size=50, max_tokens=64) <= 1e-5


def test_rows_sum_to_one(exported: tuple[TextNetwork, Path]) -> None:
    outputs = computed(*exported)

    for name in ("plain", "diffused"):
        assert outputs[name].shape == (3, 2, 4, 9, 9)
        np.testing.assert_allclose(outputs[name].sum(axis=-1), 1.0, atol=1e-5)
    assert outputs["plain"].min() >= 0


@pytest.mark.parametrize("exported", ["bert, rows, 1 hops", "gpt2, rows, 1 hops"], indirect=True)
def test_plain_attention_is_that_of_transformers(exported: tuple[TextNetwork, Path]) -> None:
    network, path = exported
    inputs = {name: torch.from_numpy(array) for name, array in inputs_of(network).items()}
    reference = AutoModel.from_config(network.backbone.config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    reference.load_state_dict(network.backbone.state_dict(), strict=False)

    with torch.no_grad():
        expected = torch.stack(reference.eval()(**inputs, output_attentions=True).attentions, dim=1).numpy()

    found = computed(network, path)["plain"]
    real_bn = inputs["attention_mask"].bool().numpy()
    np.testing.assert_allclose(np.moveaxis(found, 3, 1)[real_bn], np.moveaxis(expected, 3, 1)[real_bn], atol=1e-5)


def test_diffused_attention_is_that_of_the_definition(exported: tuple[TextNetwork, Path]) -> None:
    network, path = exported
    outputs = computed(network, path)
    beta_lhk = np.array(hop_weights(network))

    power = outputs["plain"].astype(np.float64)
    expected = power.copy()
    for hop in range(beta_lhk.shape[2]):
        further = outputs["plain"] @ power
        expected += beta_lhk[:, :, hop, None, None] * (further - power)
        power = further

    np.testing.assert_allclose(outputs["diffused"], expected, atol=1e-5)
    assert (np.abs(outputs["diffused"] - outputs["plain"]).max() > 0.01) == (beta_lhk.shape[2] > 0)


@pytest.mark.parametrize("exported", ["bert, rows, 1 hops", "gpt2, rows, 1 hops"], indirect=True)
def test_one_hop_is_plain_attention(exported: tuple[TextNetwork, Path]) -> None:
    outputs = computed(*exported)

    assert np.array_equal(outputs["plain"], outputs["diffused"])


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        ("bert, rows, 3 hops", [[1 / 9] * 9, [0.2] * 5 + [0] * 4, [1] + [0] * 8]),
        ("gpt2, rows, 3 hops", [[0] * 8 + [1], [0] * 4 + [1] + [0] * 4, [1] + [0] * 8]),
    ],
    indirect=["exported"],
)
def test_it_says_which_tokens_an_answer_is_read_from(
    exported: tuple[TextNetwork, Path], expected: list[list[float]]
) -> None:
    np.testing.assert_allclose(computed(*exported)["pooled"], expected, atol=1e-6)


@pytest.mark.parametrize("exported", ["bert, tokens, 2 hops"], indirect=True)
def test_nothing_is_pooled_where_each_token_has_an_answer(exported: tuple[TextNetwork, Path]) -> None:
    assert set(computed(*exported)) == {"plain", "diffused"}


@pytest.mark.parametrize("exported", ["gpt2, rows, 3 hops"], indirect=True)
def test_same_network_gives_the_same_bytes(exported: tuple[TextNetwork, Path], tmp_path: Path) -> None:
    network, path = exported

    export_attention(network, 64, tmp_path / "again.onnx")

    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert b".py" not in path.read_bytes()


@pytest.mark.parametrize("exported", ["bert, rows, 1 hops"], indirect=True)
def test_what_attention_does_not_depend_on_is_left_out(exported: tuple[TextNetwork, Path]) -> None:
    network, path = exported

    all_bytes = sum(parameter.nbytes for parameter in network.parameters())
    encoder: Any = network.backbone.encoder
    last = encoder.layer[-1]
    unused = sum(
        p.nbytes for part in (last.intermediate, last.output, last.attention.output) for p in part.parameters()
    )
    assert path.stat().st_size < all_bytes - unused + 60_000
    assert unused > 16_000


@pytest.mark.parametrize("exported", ["bert, rows, 1 hops"], indirect=True)
def test_graph_that_differs_is_refused(exported: tuple[TextNetwork, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "FEW_SHAPES", ((1, 3),))
    other = network_of("bert", Level.ROW, 3)

    with pytest.raises(ExportError) as caught:
        compare_attention(other, exported[1], vocabulary_size=50, max_tokens=64)

    assert re.fullmatch(
        r"attention\.onnx: ONNX Runtime and torch differ by [\d.]+ in attention at 1 x 3; expected at most 0\.0001; "
        r"the export is wrong, so no bundle was written",
        str(caught.value),
    )


def test_a_bundle_has_it_beside_the_gradients(explainable_bundle: Path, tiny_run: Path) -> None:
    manifest = Bundle.open(explainable_bundle).manifest
    graph = manifest.graphs["attention"]

    assert graph.file == "attention.onnx"
    assert graph.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert graph.outputs == ("plain", "diffused", "pooled")
    assert 0 < graph.max_difference <= 1e-5
    network = load_checkpoint(best_checkpoint(tiny_run)).network
    learned_lhk = [beta_kh.detach().numpy().T for beta_kh in diffusion_parameters(network)]
    assert np.array(manifest.model["beta"]) == pytest.approx(np.stack(learned_lhk), abs=1e-6)
    assert np.abs(learned_lhk).max() > 1e-3
