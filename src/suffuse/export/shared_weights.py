"""One file of weights for several graphs of one network, so that explaining costs a bundle one more copy, not two."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx

LEAST_BYTES = 1024
"""Smaller tensors stay in their graph: sizes and constants, which ONNX Runtime wants at hand."""
_PAGE_BYTES = 4096  # as ONNX advises, so that the file can be mapped into memory


def share_weights(graphs: Sequence[Path], to: Path) -> None:
    """Move the weights of graphs into one file, each tensor once; ONNX Runtime finds it beside a graph by itself.

    Args:
        graphs: files of ONNX graphs, rewritten in place.
        to: the file of weights, in the folder of the graphs.
    """
    places: dict[bytes, int] = {}
    with to.open("wb") as weights:
        for path in graphs:
            model = onnx.load(path)
            for tensor in model.graph.initializer:
                if len(tensor.raw_data) < LEAST_BYTES:
                    continue
                digest = hashlib.sha256(tensor.raw_data).digest()
                if digest not in places:
                    weights.seek(-weights.tell() % _PAGE_BYTES, 1)
                    places[digest] = weights.tell()
                    weights.write(tensor.raw_data)
                _point(tensor, to.name, places[digest])
            path.write_bytes(model.SerializeToString(deterministic=True))


def _point(tensor: onnx.TensorProto, file: str, offset: int) -> None:
    """Have a tensor's content be found in a file."""
    content = {"location": file, "offset": str(offset), "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in content.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
