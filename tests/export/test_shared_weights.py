"""Graphs that share a file of weights must compute what they did before, wherever their folder is moved to."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from suffuse.bundle import Bundle
from suffuse.errors import BundleError
from suffuse.explain import Explainer
from suffuse.export.graphs import open_graph
from suffuse.export.shared_weights import share_weights
from suffuse.runtime import load
from suffuse.serving.archive import archive

WEIGHTS = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
OTHER = WEIGHTS + 1


@pytest.fixture
def graphs(tmp_path: Path) -> tuple[Path, Path]:
    """One graph that computes x W + 1, and one that computes it too, after x (W + 1) + 1."""
    paths = tmp_path / "first.onnx", tmp_path / "second.onnx"
    for path, matrices in zip(paths, ([WEIGHTS], [OTHER, WEIGHTS]), strict=True):
        names = [f"{path.stem}_{index}" for index, _ in enumerate(matrices)]
        nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_product"]) for name in names]
        nodes += [helper.make_node("Add", [f"{name}_product", "one"], [f"{name}_sum"]) for name in names]
        initializers = [numpy_helper.from_array(matrix, name) for name, matrix in zip(names, matrices, strict=True)]
        initializers.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
        graph = helper.make_graph(
            nodes,
            path.stem,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
            [helper.make_tensor_value_info(f"{name}_sum", TensorProto.FLOAT, ["batch", 32]) for name in names],
            initializers,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return paths


def test_graphs_compute_what_they_did(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    before = [array for path in graphs for array in open_graph(path).run(None, {"x": x})]

    share_weights(graphs, tmp_path / "shared.weights")

    after = [array for path in graphs for array in open_graph(path).run(None, {"x": x})]
    assert all(np.array_equal(first, second) for first, second in zip(before, after, strict=True))
    assert after[0] == pytest.approx(x @ WEIGHTS + 1, abs=1e-4)


def test_each_tensor_is_kept_once_and_small_ones_stay(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    share_weights(graphs, tmp_path / "shared.weights")

    # The second tensor begins at a page of its own.
    assert (tmp_path / "shared.weights").stat().st_size == 4096 + OTHER.nbytes
    assert (tmp_path / "shared.weights").read_bytes()[: WEIGHTS.nbytes] == WEIGHTS.tobytes()
    for path in graphs:
        model = onnx.load(path, load_external_data=False)
        kept = [tensor.name for tensor in model.graph.initializer if tensor.data_location == TensorProto.DEFAULT]
        assert kept == ["one"]


def test_the_same_graphs_give_the_same_bytes(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = [Path(shutil.copy(path, elsewhere)) for path in graphs]

    share_weights(graphs, tmp_path / "shared.weights")
    share_weights(again, elsewhere / "shared.weights")

    for path in (*graphs, tmp_path / "shared.weights"):
        assert (elsewhere / path.name).read_bytes() == path.read_bytes()


def test_a_bundle_holds_the_weights_of_explanations_once(explainable_bundle: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in explainable_bundle.iterdir()}

    assert sizes["explain.weights"] < sizes["predict.onnx"] + 150_000  # each tensor on pages of its own
    graphs = b"".join((explainable_bundle / name).read_bytes() for name in ("attention.onnx", "explain.onnx"))
    embeddings = next(
        tensor.raw_data
        for tensor in onnx.load(explainable_bundle / "predict.onnx").graph.initializer
        if tuple(tensor.dims)[1:] == (32,)
    )
    assert embeddings not in graphs
    assert embeddings in (explainable_bundle / "explain.weights").read_bytes()


def test_weights_that_were_altered_are_refused(explainable_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(explainable_bundle, tmp_path / "bundle")
    content = bytearray((copy / "explain.weights").read_bytes())
    content[100] ^= 1
    (copy / "explain.weights").write_bytes(content)

    with pytest.raises(BundleError, match=r"explain\.weights: altered or truncated"):
        Bundle.open(copy)


def test_an_unpacked_archive_explains_as_its_bundle_does(
    explainable_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = archive(explainable_bundle, tmp_path / "store")
    with zipfile.ZipFile(packed) as file:
        file.extractall(tmp_path / "unpacked")
    monkeypatch.chdir(tmp_path)

    served, kept = (Explainer(load(path, threads=1)) for path in ("unpacked", explainable_bundle))

    assert served("a funny film").to_dict() == kept("a funny film").to_dict()
    assert served.attention("a funny film")[0].to_dict() == kept.attention("a funny film")[0].to_dict()
