"""Write a bundle from a run: all that is needed to answer, each file with its digest, put in place when whole."""

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import suffuse
from suffuse.bundle import CARD, MANIFEST, TOKENIZER, Bundle, Graph, Limits, Manifest, replace_folder, sha256
from suffuse.card import PLOT, card
from suffuse.errors import BundleError
from suffuse.export.explanations import add_explanations
from suffuse.export.graphs import compare, export_graph, rounded_up
from suffuse.tasks import Tokens, task_to_dict
from suffuse.training.checkpoint import TrainedModel, load_checkpoint
from suffuse.training.fit import best_checkpoint
from suffuse.training.run_folder import PLOT as RUN_PLOT

GRAPH = "predict.onnx"


def export(run: Path, to: Path, report: Callable[[str], None] = lambda _: None, *, explain: bool = False) -> Bundle:
    """Turn a run into a bundle.

    Args:
        run: a run's folder, whose best checkpoint is taken, or a checkpoint.
        to: folder of the bundle; one that stands there is replaced when the new one is whole.
        report: is told what is being done, a few words each time.
        explain: add the graphs that explanations are computed with, which takes minutes and as much room again.

    Raises:
        BundleError: there is no run, its checkpoint cannot be read, or `to` is something else than a bundle.
        ExportError: ONNX Runtime does not compute what torch computes.
    """
    checkpoint = best_checkpoint(run) if run.is_dir() else run
    if not checkpoint.is_file():
        raise BundleError(f"{run}: no checkpoint there; expected the folder of a run, as `suffuse fit` leaves it")
    report("loading the checkpoint")
    trained = load_checkpoint(checkpoint)
    plot = checkpoint.parent.parent / RUN_PLOT
    return write_bundle(trained, to, report, explain=explain, plot=plot if plot.is_file() else None)


def write_bundle(
    trained: TrainedModel,
    to: Path,
    report: Callable[[str], None] = lambda _: None,
    *,
    explain: bool = False,
    plot: Path | None = None,
) -> Bundle:
    """As `export`, of a model that is loaded already.

    Args:
        trained: the model.
        to: as for `export`.
        report: as for `export`.
        explain: as for `export`.
        plot: a picture of the training, for the card.
    """

    def fill(folder: Path) -> None:
        if plot:
            shutil.copyfile(plot, folder / PLOT)
        _fill(folder, trained, report, explain=explain)

    replace_folder(to, fill)
    return Bundle.open(to)


def _fill(folder: Path, trained: TrainedModel, report: Callable[[str], None], *, explain: bool) -> None:
    report("exporting to ONNX")
    export_graph(trained.network, trained.input_names, trained.tokens.max_tokens, folder / GRAPH)
    report("comparing ONNX Runtime with torch")
    difference = compare(trained.network, folder / GRAPH, trained.tokens.vocabulary_size, trained.tokens.max_tokens)
    report(f"largest difference in logits: {difference:.1e}")
    manifest = _manifest(trained, difference)
    if explain:
        manifest = add_explanations(folder, trained, manifest, report)
    (folder / TOKENIZER).write_text(trained.tokens.json, "utf-8")
    manifest = replace(manifest, files=_digests(folder))
    (folder / CARD).write_text(card(manifest), "utf-8")
    manifest = replace(manifest, files=_digests(folder))
    (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def _manifest(trained: TrainedModel, difference: float) -> Manifest:
    packages = {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime", "onnxscript")}
    provenance = dict(trained.provenance)
    return Manifest(
        task=task_to_dict(trained.task),
        model={**trained.model, "lowercases": _lowercases(trained.tokens)},
        graphs={"predict": Graph(GRAPH, trained.input_names, ("logits",), rounded_up(difference))},
        limits=Limits(max_tokens=trained.tokens.max_tokens),
        metrics=trained.metrics,
        provenance={**provenance, "packages": {**provenance["packages"], **packages}},
        suffuse=suffuse.__version__,
        evaluation=trained.evaluation,
    )


def _lowercases(tokens: Tokens) -> bool:
    """Whether capital letters make no difference to the model."""
    capitals, small = tokens.encode([ascii_uppercase, ascii_lowercase])
    return bool(capitals.ids == small.ids)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}
