"""From a checkpoint to a bundle: ONNX graphs, proven to compute what torch computes, tokenizer, manifest, card."""

from suffuse.export.attention import Attention, compare_attention, export_attention
from suffuse.export.bundling import export, write_bundle
from suffuse.export.gradients import Gradients, compare_gradients, export_gradients
from suffuse.export.graphs import MAX_DIFFERENCE, compare, export_graph

__all__ = [
    "MAX_DIFFERENCE",
    "Attention",
    "Gradients",
    "compare",
    "compare_attention",
    "compare_gradients",
    "export",
    "export_attention",
    "export_gradients",
    "export_graph",
    "write_bundle",
]
