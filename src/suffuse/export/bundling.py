"""Write a bundle from a run: all that is needed to answer, each file with its digest, put in place when whole."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import suffuse
from suffuse.bundle import CARD, MANIFEST, TOKENIZER, Bundle, Graph, Limits, Manifest, replace_folder, sha256
from suffuse.errors import BundleError
from suffuse.export.card import card
from suffuse.export.gradients import (
    OUTPUTS,
    Gradients,
    baseline_token_id,
    compare_gradients,
    embedding_size,
    export_gradients,
)
from suffuse.export.graphs import compare, export_graph, rounded_up
from suffuse.tasks import task_to_dict
from suffuse.training.checkpoint import TrainedModel, load_checkpoint
from suffuse.training.fit import best_checkpoint

GRAPH = "predict.onnx"
GRADIENT_GRAPH = "explain.onnx"


def export(run: Path, to: Path, report: Callable[[str], None] = lambda _: None, *, explain: bool = False) -> Bundle:
    """Turn a run into a bundle.

    Args:
        run: a run's folder, whose best checkpoint is taken, or a checkpoint.
        to: folder of the bundle; one that stands there is replaced when the new one is whole.
        report: is told what is being done, a few words each time.
        explain: add the graph that explanations are computed with, which takes a minute and as much room again.

    Raises:
        BundleError: there is no run, its checkpoint cannot be read, or `to` is something else than a bundle.
        ExportError: ONNX Runtime does not compute what torch computes.
    """
    checkpoint = best_checkpoint(run) if run.is_dir() else run
    if not checkpoint.is_file():
        raise BundleError(f"{run}: no checkpoint there; expected the folder of a run, as `suffuse fit` leaves it")
    report("loading the checkpoint")
    trained = load_checkpoint(checkpoint)
    return write_bundle(trained, to, report, explain=explain)


def write_bundle(
    trained: TrainedModel, to: Path, report: Callable[[str], None] = lambda _: None, *, explain: bool = False
) -> Bundle:
    """As `export`, of a model that is loaded already."""
    replace_folder(to, lambda folder: _fill(folder, trained, report, explain=explain))
    return Bundle.open(to)


def _fill(folder: Path, trained: TrainedModel, report: Callable[[str], None], *, explain: bool) -> None:
    report("exporting to ONNX")
    export_graph(trained.network, trained.input_names, trained.tokens.max_tokens, folder / GRAPH)
    report("comparing ONNX Runtime with torch")
    difference = compare(trained.network, folder / GRAPH, trained.tokens.vocabulary_size, trained.tokens.max_tokens)
    report(f"largest difference in logits: {difference:.1e}")
    manifest = _manifest(trained, difference)
    if explain:
        manifest = _with_gradients(folder, trained, manifest, report)
    (folder / TOKENIZER).write_text(trained.tokens.json, "utf-8")
    (folder / CARD).write_text(card(manifest), "utf-8")
    manifest = replace(manifest, files={path.name: sha256(path) for path in sorted(folder.iterdir())})
    (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def _with_gradients(folder: Path, trained: TrainedModel, manifest: Manifest, report: Callable[[str], None]) -> Manifest:
    """Write the graph of gradients, and say in the manifest what it takes."""
    network, path = trained.network, folder / GRADIENT_GRAPH
    report("exporting the gradients to ONNX")
    export_gradients(network, trained.tokens.max_tokens, path)
    difference = compare_gradients(network, path, trained.tokens.vocabulary_size, trained.tokens.max_tokens)
    report(f"largest difference in gradients: {difference:.1e} of the largest")
    graph = Graph(path.name, Gradients(network).input_names, OUTPUTS, rounded_up(difference))
    sizes = {"embedding_size": embedding_size(network), "baseline_token_id": baseline_token_id(network)}
    return replace(manifest, graphs={**manifest.graphs, path.stem: graph}, model={**manifest.model, **sizes})


def _manifest(trained: TrainedModel, difference: float) -> Manifest:
    packages = {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime", "onnxscript")}
    provenance = dict(trained.provenance)
    return Manifest(
        task=task_to_dict(trained.task),
        model=trained.model,
        graphs={"predict": Graph(GRAPH, trained.input_names, ("logits",), rounded_up(difference))},
        limits=Limits(max_tokens=trained.tokens.max_tokens),
        metrics=trained.metrics,
        provenance={**provenance, "packages": {**provenance["packages"], **packages}},
        suffuse=suffuse.__version__,
    )
