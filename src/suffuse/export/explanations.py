"""The graphs that explanations are computed with, and what the manifest says of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from suffuse.bundle import Graph, Manifest
from suffuse.export.attention import Attention, compare_attention, export_attention, hop_weights
from suffuse.export.gradients import (
    OUTPUTS,
    Gradients,
    baseline_token_id,
    compare_gradients,
    embedding_size,
    export_gradients,
)
from suffuse.export.graphs import rounded_up
from suffuse.export.shared_weights import share_weights
from suffuse.training.checkpoint import TrainedModel

GRADIENT_GRAPH = "explain.onnx"
ATTENTION_GRAPH = "attention.onnx"
WEIGHTS = "explain.weights"


def add_explanations(
    folder: Path, trained: TrainedModel, manifest: Manifest, report: Callable[[str], None]
) -> Manifest:
    """Write the graphs of gradients and of attention, with one file of weights for both.

    Args:
        folder: of the bundle.
        trained: what it is made of.
        manifest: of the bundle so far.
        report: is told what is being done, a few words each time.

    Returns:
        The manifest with both graphs, and in ``model`` what they are called with.

    Raises:
        ExportError: torch cannot write them, or ONNX Runtime does not compute what torch computes.
    """
    network, sizes = trained.network, (trained.tokens.vocabulary_size, trained.tokens.max_tokens)
    gradients, attention = folder / GRADIENT_GRAPH, folder / ATTENTION_GRAPH
    report("exporting the gradients to ONNX")
    export_gradients(network, trained.tokens.max_tokens, gradients)
    report("exporting the attention to ONNX")
    export_attention(network, trained.tokens.max_tokens, attention)
    share_weights((gradients, attention), folder / WEIGHTS)
    report("comparing ONNX Runtime with torch")
    difference = compare_gradients(network, gradients, *sizes)
    report(f"largest difference in gradients: {difference:.1e} of the largest")
    attention_difference = compare_attention(network, attention, *sizes)
    report(f"largest difference in attention: {attention_difference:.1e}")
    graphs = {
        gradients.stem: Graph(gradients.name, Gradients(network).input_names, OUTPUTS, rounded_up(difference)),
        attention.stem: Graph(
            attention.name, network.input_names, Attention(network).output_names, rounded_up(attention_difference)
        ),
    }
    model = {
        "embedding_size": embedding_size(network),
        "baseline_token_id": baseline_token_id(network),
        "beta": hop_weights(network),
    }
    return replace(manifest, graphs={**manifest.graphs, **graphs}, model={**manifest.model, **model})
