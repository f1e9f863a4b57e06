"""The bundle's graph of gradients, called with as many points at once as a processor computes fastest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.batching import collate, token_batches
from suffuse.bundle import Bundle, require_graph
from suffuse.runtime.predictor import MICRO_BATCH_TOKENS
from suffuse.tasks import Run

GRAPH = "explain"
"""Its name in the manifest; its inputs and outputs are those of `suffuse.export.gradients.Gradients`."""

GRADIENT_TOKENS = 256
"""Padded tokens whose gradients are computed at once: backwards the intermediate results of all are kept, so that
large batches pay less than in predictions. In a MiniLM of six layers eight points of 22 tokens took 0.7 times as long
together as one by one, eight of 252 tokens 1.1 times."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A window, and the weighted sum of its logits that is explained.

    Args:
        inputs: ``input_ids``, ``baseline_ids`` and what else the graph takes of a window, (N,) each.
        weights: of the logits, float32, (C,) or (N, C).
        value: the sum, as the answer was read from it.
    """

    inputs: Mapping[str, NDArray[np.int64]]
    weights: NDArray[np.float32]
    value: float

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


@dataclass(frozen=True)
class Points:
    """Where the gradient of a subject is taken.

    Args:
        subject: what is explained.
        scales_p: the place of each point on the way, 0 for the baseline and 1 for the text.
        noise_pnd: added to each; by default none.
    """

    subject: Subject
    scales_p: Array
    noise_pnd: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Slope:
    """How steep a subject's sum is at several points.

    Args:
        gradient_nd: its gradient, the mean over the points, (N, D).
        embeddings_nd: of the tokens, (N, D).
        baselines_nd: of the baseline's tokens, (N, D).
    """

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
        require_graph(bundle, GRAPH, "explanations are")
        self.width = int(bundle.manifest.model["embedding_size"])
        self._filler_id = int(bundle.manifest.model["baseline_token_id"])  # behind shorter texts, masked
        self._run = run

    def slopes(self, asked: Sequence[Points]) -> list[Slope]:
        """Compute at points between baseline and text; those of all subjects together, as many at once as pay.

        Args:
            asked: at least one point for each.

        Returns:
            One for each subject, in the order asked.
        """
        owners = [(index, place) for index, points in enumerate(asked) for place in range(len(points.scales_p))]
        lengths = [len(asked[index].subject) for index, _ in owners]
        ends: dict[int, tuple[Array, Array]] = {}
        sums = [np.zeros((len(points.subject), self.width)) for points in asked]
        for batch in token_batches(lengths, GRADIENT_TOKENS):
            outputs = self._run(GRAPH, self._batch([(asked[owners[row][0]], owners[row][1]) for row in batch]))
            for place, row in enumerate(batch):
                (index, _), length = owners[row], lengths[row]
                sums[index] += outputs["gradient"][place, :length]
                ends[index] = outputs["embeddings"][place, :length], outputs["baselines"][place, :length]
        return [
            Slope(
                sums[index] / len(points.scales_p),
                ends[index][0].astype(np.float64),
                ends[index][1].astype(np.float64),
            )
            for index, points in enumerate(asked)
        ]

    def baselines(self, subjects: Sequence[Subject]) -> Array:
        """Each subject's sum for its baseline, (S,): predictions, which cost less than gradients."""
        windows = [{**subject.inputs, "input_ids": subject.inputs["baseline_ids"]} for subject in subjects]
        values = np.zeros(len(subjects))
        for batch in token_batches([len(subject) for subject in subjects], MICRO_BATCH_TOKENS):
            logits = self._run("predict", collate([windows[row] for row in batch], self._filler_id))["logits"]
            for place, row in enumerate(batch):
                weights = subjects[row].weights
                values[row] = (logits[place][: len(weights)].astype(np.float64) * weights).sum()
        return values

    def _batch(self, points: Sequence[tuple[Points, int]]) -> dict[str, NDArray[Any]]:
        """Inputs of the graph for points of subjects, padded to the longest."""
        inputs: dict[str, NDArray[Any]] = {
            **collate([asked.subject.inputs for asked, _ in points], self._filler_id),
            "scale": np.array([asked.scales_p[place] for asked, place in points], dtype=np.float32),
        }
        length = inputs["input_ids"].shape[1]
        weights = [asked.subject.weights for asked, _ in points]
        inputs["target"] = np.stack([_padded(weight, length) if weight.ndim > 1 else weight for weight in weights])
        inputs["noise"] = np.zeros((len(points), length, self.width), np.float32)
        for row, (asked, place) in enumerate(points):
            if asked.noise_pnd is not None:
                inputs["noise"][row, : len(asked.subject)] = asked.noise_pnd[place]
        return inputs


def _padded(weights_nc: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    return np.pad(weights_nc, ((0, length - len(weights_nc)), (0, 0)))
