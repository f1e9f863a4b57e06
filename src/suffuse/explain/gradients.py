"""The bundle's graph of gradients, called with as many points at once as a processor computes fastest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.bundle import Bundle
from suffuse.errors import BundleError
from suffuse.runtime.predictor import MICRO_BATCH_TOKENS
from suffuse.tasks import Run

GRAPH = "explain"
"""Its name in the manifest; its inputs and outputs are those of `suffuse.export.gradients.Gradients`."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A window, and the weighted sum of its logits that is explained.

    Args:
        inputs: ``input_ids``, ``baseline_ids`` and what else the graph takes of a window, (N,) each.
        weights: of the logits, float32, (C,) or (N, C).
    """

    inputs: Mapping[str, NDArray[np.int64]]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


@dataclass(frozen=True)
class Slope:
    """What a subject's sum is at several points, and how steep.

    Args:
        values_p: the sum at each point, (P,).
        gradient_nd: its gradient, the mean over the points, (N, D).
        embeddings_nd: of the tokens, (N, D).
        baselines_nd: of the baseline's tokens, (N, D).
    """

    values_p: Array
    gradient_nd: Array
    embeddings_nd: Array
    baselines_nd: Array


class GradientGraph:
    """Gradients of a bundle's network.

    Args:
        bundle: its bundle.
        run: computes a graph of it.

    Raises:
        BundleError: the bundle has no such graph.
    """

    def __init__(self, bundle: Bundle, run: Run) -> None:
        if GRAPH not in bundle.manifest.graphs:
            raise BundleError(
                f"{bundle.path}: it has no {GRAPH}.onnx, which explanations are computed with; "
                f"make it from the run: suffuse export RUN --to {bundle.path} --explain"
            )
        self.width = int(bundle.manifest.model["embedding_size"])
        self._run = run

    def slope(self, subject: Subject, scales_p: Array, noise_pnd: NDArray[np.float32] | None = None) -> Slope:
        """Compute at points between baseline and text.

        Args:
            subject: what is explained.
            scales_p: the place of each point on the way, 0 for the baseline and 1 for the text.
            noise_pnd: added to each; by default none.
        """
        size = max(1, MICRO_BATCH_TOKENS // len(subject))
        values: list[Array] = []
        gradient_nd = np.zeros((len(subject), self.width))
        outputs: Mapping[str, NDArray[Any]] = {}
        for first in range(0, len(scales_p), size):
            points = slice(first, first + size)
            count = len(scales_p[points])
            noise = np.zeros((count, *gradient_nd.shape), np.float32) if noise_pnd is None else noise_pnd[points]
            outputs = self._run(GRAPH, _batch(subject, scales_p[points], noise))
            values.append((outputs["logits"].astype(np.float64) * subject.weights).reshape(count, -1).sum(axis=1))
            gradient_nd += outputs["gradient"].sum(axis=0, dtype=np.float64)
        return Slope(
            np.concatenate(values),
            gradient_nd / len(scales_p),
            outputs["embeddings"][0].astype(np.float64),
            outputs["baselines"][0].astype(np.float64),
        )


def _batch(subject: Subject, scales_p: Array, noise_pnd: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    count = len(scales_p)
    arrays: dict[str, NDArray[Any]] = {
        **subject.inputs,
        "target": subject.weights,
        "attention_mask": np.ones(len(subject), np.int64),
    }
    repeated = {name: np.repeat(array[None], count, axis=0) for name, array in arrays.items()}
    return {**repeated, "scale": scales_p.astype(np.float32), "noise": noise_pnd}
