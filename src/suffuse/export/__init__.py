"""From a checkpoint to a bundle: ONNX graphs, proven to compute what torch computes, tokenizer, manifest, card."""

from suffuse.export.bundling import export
from suffuse.export.graphs import MAX_DIFFERENCE, compare, export_graph

__all__ = ["MAX_DIFFERENCE", "compare", "export", "export_graph"]
