"""A network as an ONNX graph: exported with any batch and length, stripped of all that is not computed, compared."""

import itertools
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from suffuse.errors import ExportError

MAX_DIFFERENCE = 1e-4
"""Largest difference between ONNX Runtime and torch that an export may have: in logits, and where the largest logit of
a batch is above 1, as a share of it. What 32 bits round off grows with it: with 30 layers and logits of 10, torch is
1e-4 off from itself in 64 bits."""
OPSETS = (23, 20)
"""Tried in this order. 23 has attention as one node and is the faster (bench/attention_cost.py), but ONNX Runtime 1.32
does not open, or not run, what torch 2.13 writes there for rotary positions, as in Llama and ModernBERT."""
MAX_BATCH = 4096
_EXAMPLE_SHAPE = (2, 13)  # no 1, which would be taken for fixed; no size of a head, which would be taken for the same
_BATCHES = (1, 5, 32)
_LENGTHS = (1, 7, 130, 512)
FEW_SHAPES = ((1, 1), (2, 7), (9, 33), (1, 512))
"""Rows and tokens at which graphs are compared that take long."""


def export_graph(
    network: nn.Module,
    input_names: Sequence[str],
    max_tokens: int,
    path: Path,
    output_names: Sequence[str] = ("logits",),
) -> None:
    """Write a network as an ONNX graph with dynamic batch and length; the same network gives the same bytes.

    Args:
        network: in evaluation mode; takes `input_names`, each (B, N) integers, and returns `output_names`.
        input_names: ``input_ids``, ``attention_mask`` and others.
        max_tokens: the largest N.
        path: of the file.
        output_names: of what the network returns.

    Raises:
        ExportError: at none of `OPSETS` does torch write a graph that ONNX Runtime opens and runs.
    """
    failures = []
    for opset in OPSETS:
        try:
            path.write_bytes(bare(_exported(network, (input_names, output_names), max_tokens, opset)))
            batch = random_batch(np.random.default_rng(0), 3, min(7, max_tokens), vocabulary_size=2)
            open_graph(path).run(None, {name: batch[name] for name in input_names})  # some open and do not run
        except Exception as error:  # torch and ONNX Runtime have a dozen kinds
            failures.append(f"opset {opset}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        else:
            return
    raise ExportError(
        f"no ONNX graph can be made of this network ({'; '.join(failures)}); expected one of BERT, RoBERTa, "
        "DistilBERT, ELECTRA, ModernBERT, GPT-2 or Llama type: take such a model, and the versions in constraints.txt"
    )


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """A session on the processor, quiet."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(network: nn.Module, path: Path, vocabulary_size: int, max_tokens: int) -> float:
    """Largest difference, as `MAX_DIFFERENCE` measures it, between a graph in ONNX Runtime and its network in torch.

    Batches from 1 x 1 to 32 x 512 (or the model's own limit) of random tokens, padded to different lengths, with both
    token types.

    Args:
        network: as for `export_graph`.
        path: the graph.
        vocabulary_size: bound on the token ids.
        max_tokens: the largest N.

    Raises:
        ExportError: it is above `MAX_DIFFERENCE`, or no number.
    """
    session = open_graph(path)
    names = [graph_input.name for graph_input in session.get_inputs()]
    random = np.random.default_rng(0)

    def difference(rows: int, length: int) -> float:
        inputs = random_batch(random, rows, length, vocabulary_size)
        computed = session.run(None, {name: inputs[name] for name in names})[0]
        with torch.no_grad():
            logits: Tensor = network(**{name: torch.from_numpy(inputs[name]) for name in names})
        expected = logits.numpy()
        return float(np.abs(computed - expected).max() / max(1.0, np.abs(expected).max()))

    what = "in logits (as a share of the largest, where that is above 1)"
    return largest_difference((path, what), difference, itertools.product(_BATCHES, _LENGTHS), max_tokens)


def largest_difference(
    what: tuple[Path, str], difference: Callable[[int, int], float], shapes: Iterable[tuple[int, int]], max_tokens: int
) -> float:
    """The largest of what ONNX Runtime and torch differ by, at batches of several shapes.

    Args:
        what: the graph, and ``in`` which of its outputs, for the error.
        difference: of a batch of so many rows and tokens.
        shapes: rows and tokens.
        max_tokens: of the network; longer shapes are cut to it.

    Raises:
        ExportError: one is above `MAX_DIFFERENCE`, or no number.
    """
    largest = 0.0
    for rows, length in sorted({(rows, min(length, max_tokens)) for rows, length in shapes}):
        found = difference(rows, length)
        if not found <= MAX_DIFFERENCE:  # also where it is NaN
            raise ExportError(
                f"{what[0].name}: ONNX Runtime and torch differ by {found:.2g} {what[1]} at {rows} x {length}; "
                f"expected at most {MAX_DIFFERENCE:g}; the export is wrong, so no bundle was written"
            )
        largest = max(largest, found)
    return largest


def rounded_up(value: float) -> float:
    """The next of 1, 2, 5 x 10^k: a measured difference varies with the machine in its digits, a bound hardly."""
    if value == 0:
        return 0.0
    power = math.floor(math.log10(value))
    factor = next(factor for factor in (1, 2, 5, 10) if value <= factor * 10.0**power)
    return float(f"{factor}e{power}")


def random_batch(
    random: np.random.Generator, rows: int, length: int, vocabulary_size: int
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Random inputs of every kind, (rows, length) each, padded to different lengths, with both token types."""
    lengths_b = random.integers(1, length + 1, size=rows)
    lengths_b[0] = length
    positions_n = np.arange(length)
    return {
        "input_ids": random.integers(0, vocabulary_size, size=(rows, length)),
        "attention_mask": (positions_n < lengths_b[:, None]).astype(np.int64),
        "token_type_ids": (positions_n >= lengths_b[:, None] // 2).astype(np.int64),
    }


def _exported(
    network: nn.Module, names: tuple[Sequence[str], Sequence[str]], max_tokens: int, opset: int
) -> onnx.ModelProto:
    input_names, output_names = names
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    length = torch.export.Dim("length", min=1, max=max_tokens)
    # A tensor each: the exporter would take one tensor for one input, whatever its names.
    example = {name: torch.ones(_EXAMPLE_SHAPE, dtype=torch.long) for name in input_names}
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (),
            kwargs=example,
            dynamo=True,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes={name: {0: batch, 1: length} for name in input_names},
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program; use the versions in constraints.txt")
    return program.model_proto


def bare(model: onnx.ModelProto) -> bytes:
    """The bytes of a graph without stack traces, names of source files and other notes of the exporter."""
    graph = model.graph
    nodes = (*graph.node, *(node for function in model.functions for node in function.node))
    values = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    noted: tuple[Any, ...] = (model, graph, *model.functions, *nodes, *values)
    for part in noted:
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on its own insides."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
