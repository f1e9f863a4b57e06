"""Forward and backward of a network as one ONNX graph, so that answers are explained where they are computed.

The graph starts at word embeddings between a baseline and the text, and ends at the gradient of a chosen sum of the
outputs with respect to them. Autograd is traced into plain operators; the network is the trained one, untouched: a hook
puts the embeddings in the place of those that it looks up.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from suffuse.errors import ExportError
from suffuse.export.graphs import (
    FEW_SHAPES,
    MAX_BATCH,
    bare,
    largest_difference,
    open_graph,
    quiet_exporter,
    random_batch,
)
from suffuse.export.written_attention import write_out_attention
from suffuse.export.written_gelu import decompositions
from suffuse.training.models import TextNetwork

OUTPUTS = ("logits", "gradient", "embeddings", "baselines")
OPSET = 20
"""Attention is written out here, so that the faster opset 23 has nothing to be faster with."""


class Gradients(nn.Module):
    """The gradient of a weighted sum of a network's outputs, at word embeddings x = b + scale (e - b) + noise.

    e are the embeddings of the tokens, b those of the baseline's tokens. Positions and token types are those of the
    text at every point of the way.

    Args:
        network: in evaluation mode, float32.
    """

    def __init__(self, network: TextNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of `forward` that this network reads, in order."""
        return (*self.network.input_names, "baseline_ids", "scale", "noise", "target")

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute logits and gradient.

        Args:
            inputs: those of the network, each (B, N); ``baseline_ids`` (B, N); ``scale`` (B,), 1 for the text and 0 for
                the baseline; ``noise`` (B, N, D); ``target``, weights of the logits, of their shape.

        Returns:
            `OUTPUTS`: logits at x, (B, C) or (B, N, C); the gradient of sum(logits * target) at x, (B, N, D); e and b,
            (B, N, D) each.
        """
        words_vd = _word_embeddings(self.network)
        embeddings_bnd = functional.embedding(inputs["input_ids"], words_vd)
        baselines_bnd = functional.embedding(inputs["baseline_ids"], words_vd)
        way_bnd = inputs["scale"][:, None, None] * (embeddings_bnd - baselines_bnd)
        x_bnd = (baselines_bnd + way_bnd + inputs["noise"]).detach().requires_grad_()
        with torch.enable_grad(), self._embedded(x_bnd):
            logits = self.network(**{name: inputs[name] for name in self.network.input_names})
            (gradient_bnd,) = torch.autograd.grad((logits * inputs["target"]).sum(), x_bnd)
        return logits.detach(), gradient_bnd, embeddings_bnd, baselines_bnd

    @contextmanager
    def _embedded(self, x_bnd: Tensor) -> Iterator[None]:
        hook = self.network.backbone.get_input_embeddings().register_forward_hook(lambda *_: x_bnd)
        try:
            yield
        finally:
            hook.remove()


def export_gradients(network: TextNetwork, max_tokens: int, path: Path) -> None:
    """Write `Gradients` of a network as an ONNX graph with dynamic batch and length.

    Args:
        network: in evaluation mode, float32.
        max_tokens: the largest N.
        path: of the file.

    Raises:
        ExportError: torch cannot write it, or ONNX Runtime cannot open it.
    """
    try:
        with quiet_exporter():
            path.write_bytes(_traced(Gradients(network), max_tokens))
        open_graph(path)
    except Exception as error:  # torch and ONNX Runtime have a dozen kinds
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"no graph of gradients can be made of this network ({type(error).__name__}: {reason}); expected one of "
            "BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, GPT-2 or Llama type: export without --explain"
        ) from None


def compare_gradients(network: TextNetwork, path: Path, vocabulary_size: int, max_tokens: int) -> float:
    """Largest difference between the gradients of a graph and those of torch, as a share of the largest gradient.

    Batches from 1 x 1 to 9 x 33 and 1 x 512 (or the model's own limit) of random tokens, at random points between text
    and baseline.

    Args:
        network: as for `export_gradients`.
        path: the graph.
        vocabulary_size: bound on the token ids.
        max_tokens: the largest N.

    Raises:
        ExportError: it is above `MAX_DIFFERENCE`, or no number.
    """
    session = open_graph(path)
    gradients = Gradients(network)
    random = np.random.default_rng(0)

    def difference(rows: int, length: int) -> float:
        inputs = _random_inputs(gradients, random, random_batch(random, rows, length, vocabulary_size))
        computed = session.run(["gradient"], inputs)[0]
        expected = gradients(**{name: torch.from_numpy(array) for name, array in inputs.items()})[1].numpy()
        return float(np.abs(computed - expected).max() / np.abs(expected).max())

    return largest_difference((path, "of the largest gradient"), difference, FEW_SHAPES, max_tokens)


def embedding_size(network: TextNetwork) -> int:
    """D, which in some models is less than the width of the layers."""
    return _word_embeddings(network).shape[1]


def baseline_token_id(network: TextNetwork) -> int:
    """The token that stands for no text: padding; in a model that has none, the end of a text, or its start.

    Source: the references of captum's tutorial on BERT.
    """
    config = network.backbone.config
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        found = getattr(config, name, None)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, int) and 0 <= found < len(_word_embeddings(network)):  # a configuration may be of another
            return found
    return 0


def _word_embeddings(network: TextNetwork) -> Tensor:
    words_vd = network.backbone.get_input_embeddings().weight
    assert isinstance(words_vd, Tensor)  # noqa: S101 - torch's types allow a module here
    return words_vd


def _traced(gradients: Gradients, max_tokens: int) -> bytes:
    write_out_attention(gradients.network.backbone)
    names = gradients.input_names
    example = _example(gradients, max_tokens)

    def compute(*inputs: Tensor) -> tuple[Tensor, ...]:
        return gradients.forward(**dict(zip(names, inputs, strict=True)))

    traced = make_fx(
        compute,
        decomposition_table=decompositions(),
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,  # the weights, which thereby become the graph's own
    )(*example.values())
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    length = torch.export.Dim("length", min=1, max=max_tokens)
    sizes: dict[str, dict[int, Any]] = {name: {0: batch, 1: length} for name in names}
    for name in ("scale", "target") if gradients.network.is_pooled else ("scale",):
        sizes[name] = {0: batch}
    program = torch.export.export(traced, tuple(example.values()), dynamic_shapes=tuple(sizes.values()), strict=False)
    written = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=list(names),
        output_names=list(OUTPUTS),
        dynamic_shapes=tuple(sizes.values()),  # for their names
        opset_version=OPSET,
        verbose=False,
    )
    if written is None:
        raise ExportError("torch.onnx.export returned no program; use the versions in constraints.txt")
    return bare(written.model_proto)


def _example(gradients: Gradients, max_tokens: int) -> dict[str, Tensor]:
    # Sizes that are equal are taken for one and the same: batch and length must be unlike those of the outputs.
    width, outputs = embedding_size(gradients.network), gradients.network.classifier.out_features
    rows, length = [size for size in (5, 7, 11, 13) if size not in (width, outputs) and size <= max_tokens][:2]
    random = np.random.default_rng(0)
    inputs = _random_inputs(gradients, random, random_batch(random, rows, length, vocabulary_size=2))
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def _random_inputs(
    gradients: Gradients, random: np.random.Generator, batch: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[Any]]:
    network = gradients.network
    rows, length = batch["input_ids"].shape
    size = network.classifier.out_features
    outputs = (rows, size) if network.is_pooled else (rows, length, size)
    inputs: dict[str, NDArray[Any]] = {
        **batch,
        "baseline_ids": np.full((rows, length), baseline_token_id(network)),
        "scale": np.asarray(random.random(rows), dtype=np.float32),
        "noise": random.normal(scale=0.01, size=(rows, length, embedding_size(network))).astype(np.float32),
        "target": random.standard_normal(outputs, dtype=np.float32),
    }
    return {name: inputs[name] for name in gradients.input_names}
