"""The attention of a network as an ONNX graph: what attends to what, plain and over all hops, by layer and head."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from suffuse.diffusion import attention_matrices
from suffuse.export.graphs import FEW_SHAPES, export_graph, largest_difference, open_graph, random_batch
from suffuse.training.models import TextNetwork, last_token, mean_of_tokens

BETA_DIGITS = 6
"""Decimals of the weights of hops in the manifest."""


class Attention(nn.Module):
    """The attention that a network applies to a text.

    Args:
        network: in evaluation mode, float32.
    """

    def __init__(self, network: TextNetwork) -> None:
        super().__init__()
        self.network = network
        self.output_names = ("plain", "diffused", *(("pooled",) if network.is_pooled else ()))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Compute attention.

        Args:
            input_ids: (B, N).
            attention_mask: (B, N), 1 where a token is real.
            token_type_ids: (B, N), where the network reads them.

        Returns:
            `output_names`: A and A + sum beta_k (A^k - A^{k-1}) of L layers, (B, L, H, N, N) each; where the network
            answers by row, the weight with which each token's last state enters the answer, (B, N).
        """
        with attention_matrices(self.network.backbone) as matrices:
            self.network(input_ids, attention_mask, token_type_ids)
        plain_blhnn = torch.stack([layer.plain_bhnm for layer in matrices], dim=1)
        diffused_blhnn = torch.stack([layer.effective_bhnm for layer in matrices], dim=1)
        return plain_blhnn, diffused_blhnn, *self._pooled(attention_mask)

    def _pooled(self, mask_bn: Tensor) -> tuple[Tensor, ...]:
        if not self.network.is_pooled:
            return ()
        pool = last_token if self.network.is_causal else mean_of_tokens
        rows, length = mask_bn.shape
        return (pool(torch.eye(length).expand(rows, -1, -1), mask_bn),)


def hop_weights(network: TextNetwork) -> list[list[list[float]]]:
    """Weights of the hops 2..K by layer and head, L x H x (K-1), rounded."""
    token = torch.ones(1, 1, dtype=torch.long)
    with torch.no_grad(), attention_matrices(network.backbone) as matrices:
        network(**dict.fromkeys(network.input_names, token))
    return [
        [[round(beta, BETA_DIGITS) for beta in head] for head in layer.beta_kh.detach().T.tolist()]
        for layer in matrices
    ]


def export_attention(network: TextNetwork, max_tokens: int, path: Path) -> None:
    """Write `Attention` of a network as an ONNX graph with dynamic batch and length.

    Args:
        network: in evaluation mode, float32.
        max_tokens: the largest N.
        path: of the file.

    Raises:
        ExportError: torch cannot write it, or ONNX Runtime cannot open it.
    """
    attention = Attention(network)
    export_graph(attention, network.input_names, max_tokens, path, attention.output_names)


def compare_attention(network: TextNetwork, path: Path, vocabulary_size: int, max_tokens: int) -> float:
    """Largest difference between the outputs of a graph of attention and those of torch, at queries that are real.

    Batches from 1 x 1 to 9 x 33 and 1 x 512 (or the model's own limit) of random tokens, padded to different lengths.
    What padding attends to is left out: in a window of local attention that may be nothing, and is then undefined.

    Args:
        network: as for `export_attention`.
        path: the graph.
        vocabulary_size: bound on the token ids.
        max_tokens: the largest N.

    Raises:
        ExportError: it is above `MAX_DIFFERENCE`, or no number.
    """
    session = open_graph(path)
    attention = Attention(network)
    random = np.random.default_rng(0)

    def difference(rows: int, length: int) -> float:
        batch = random_batch(random, rows, length, vocabulary_size)
        inputs = {name: batch[name] for name in network.input_names}
        computed = session.run(attention.output_names, inputs)
        with torch.no_grad():
            expected = attention(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        real_bn = batch["attention_mask"] == 1
        return max(
            _difference(array - tensor.numpy(), real_bn) for array, tensor in zip(computed, expected, strict=True)
        )

    return largest_difference((path, "in attention"), difference, FEW_SHAPES, max_tokens)


def _difference(difference: NDArray[np.float32], real_bn: NDArray[np.bool_]) -> float:
    """The largest of some: of matrices (B, L, H, N, N) at queries that are real, of weights (B, N) anywhere."""
    counted = np.moveaxis(difference, 3, 1)[real_bn] if difference.ndim == 5 else difference
    return float(np.abs(counted).max())
