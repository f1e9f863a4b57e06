"""What each token attends to, by layer and head: plain, over all hops, and followed from layer to layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.bundle import Bundle, require_graph
from suffuse.errors import RowError
from suffuse.runtime import Predictor
from suffuse.tasks import Row, Run, Tokens

GRAPH = "attention"
"""Its name in the manifest; its inputs and outputs are those of `suffuse.export.attention.Attention`."""
MAX_TOKENS = 256
"""Of a row, all its windows together, whose attention is handed out: it grows with the square of a window. 256 tokens
in 12 layers of 12 heads are 75 MB, and no eye takes in more."""
DIGITS = 4
"""Decimals in JSON."""
BLANK = "␣"
"""Shown for a token that is white space alone."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class AttentionMaps:
    """Attention among the N tokens of one window, in L layers of H heads.

    Rows are the tokens that attend, columns those attended to. Each row sums to one, and in plain attention no entry is
    below zero; in diffused attention one may be, where a power of A has a negative weight, as with a beta below 0.

    Args:
        tokens: as people read them: the part of the text, or the name of the special token.
        places: for each token which text of the row it is of, and its start and end there in characters, (N, 3); -1 for
            special tokens.
        plain: A, (L, H, N, N).
        diffused: A + sum beta_k (A^k - A^{k-1}), what the model applies, (L, H, N, N).
        beta: weights of the hops 2..K, (L, H, K-1).
        pooled: with what weight each token's last state enters the answer, (N,), summing to one: all alike in an
            encoder, the last alone in a decoder; none where the model answers token by token.
    """

    tokens: tuple[str, ...]
    places: NDArray[np.int64]
    plain: Array
    diffused: Array
    beta: Array
    pooled: Array | None = None

    def rollout(self) -> NDArray[np.float64]:
        """`rollout` of the diffused attention, (N, N)."""
        return rollout(self.diffused)

    def plain_rollout(self) -> NDArray[np.float64]:
        """`rollout` of the plain attention, (N, N)."""
        return rollout(self.plain)

    def moved(self) -> NDArray[np.float64]:
        """How much of its attention a token moves elsewhere by the hops beyond the first, mean over tokens, (L, H).

        Half the sum of |diffused - plain| over a row (total variation): 0 where nothing moves; 1 where all does.
        """
        moved_lhn = np.abs(self.diffused - self.plain).sum(axis=-1, dtype=np.float64) / 2
        mean_lh: NDArray[np.float64] = moved_lhn.mean(axis=-1)
        return mean_lh

    def to_dict(self, digits: int = DIGITS) -> dict[str, Any]:
        """As JSON has it, numbers rounded: nested lists of the shapes above, ``pooled`` where there is one."""
        arrays: dict[str, NDArray[Any]] = {
            "plain": self.plain,
            "diffused": self.diffused,
            "beta": self.beta,
            "moved": self.moved(),
            "plain_rollout": self.plain_rollout(),
            "rollout": self.rollout(),
            **({} if self.pooled is None else {"pooled": self.pooled}),
        }
        return {
            "tokens": list(self.tokens),
            "places": self.places.tolist(),
            # In double precision, or the rounded numbers would be spelt with all the digits of a float32.
            **{name: array.astype(np.float64).round(digits).tolist() for name, array in arrays.items()},
        }


def rollout(attention_lhnn: NDArray[Any]) -> NDArray[np.float64]:
    """How much of each token's first state is in each token's last, if attention were all that mixes them.

    The product over the layers of 0.5 A + 0.5 I, where A is the mean over heads and I stands for the residual
    connection. Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (2020), arXiv 2005.00928.

    Args:
        attention_lhnn: attention by layer and head; rows sum to one.

    Returns:
        (N, N): last states by row, first by column; rows sum to one.
    """
    mean_lnn = attention_lhnn.mean(axis=1, dtype=np.float64)
    mixed_nn = np.eye(mean_lnn.shape[-1])
    for attention_nn in mean_lnn:
        mixed_nn = (attention_nn @ mixed_nn + mixed_nn) / 2
    return mixed_nn


@dataclass(frozen=True)
class Attention:
    """What the graph says of one window; as in `AttentionMaps`."""

    plain: Array
    diffused: Array
    pooled: Array | None


class AttentionGraph:
    """The attention of a bundle's network.

    Args:
        bundle: its bundle.
        run: computes a graph of it.

    Raises:
        BundleError: the bundle has no such graph.
    """

    def __init__(self, bundle: Bundle, run: Run) -> None:
        require_graph(bundle, GRAPH, "attention is")
        self.beta_lhk: Array = np.array(bundle.manifest.model["beta"], dtype=np.float32)
        self._run = run

    def __call__(self, inputs: Mapping[str, NDArray[np.int64]]) -> Attention:
        """Compute the attention in one window.

        Args:
            inputs: those of the window, (N,) each.
        """
        outputs = self._run(GRAPH, _batch(inputs))
        pooled = outputs["pooled"][0] if "pooled" in outputs else None
        return Attention(outputs["plain"][0], outputs["diffused"][0], pooled)


def attention_maps(predictor: Predictor, row: str | Row) -> list[AttentionMaps]:
    """The attention in each window of a row.

    Args:
        predictor: its bundle must hold the graph of attention.
        row: as for the predictor.

    Raises:
        BundleError: the bundle has no such graph.
        RowError: the row cannot be answered, or has more than `MAX_TOKENS` tokens.
    """
    graph = AttentionGraph(predictor.bundle, predictor.run)
    task = predictor.task
    checked = task.check(row)
    windows = task.encode([checked], predictor.tokens)
    if (tokens := sum(map(len, windows))) > MAX_TOKENS:
        raise RowError(
            f"the row has {tokens:,} tokens; expected at most {MAX_TOKENS} to show attention among, which grows with "
            "their square: give a shorter text",
            code="too_long",
        )
    maps = []
    for window, places_n3 in zip(windows, task.located(checked, predictor.tokens), strict=True):
        names = _names(window.inputs["input_ids"].tolist(), places_n3, task.texts(checked), predictor.tokens)
        computed = graph(window.inputs)
        maps.append(AttentionMaps(names, places_n3, computed.plain, computed.diffused, graph.beta_lhk, computed.pooled))
    return maps


def _batch(inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """A batch of one window, without padding."""
    inputs = {**inputs, "attention_mask": np.ones_like(inputs["input_ids"])}
    return {name: array[None] for name, array in inputs.items()}


def _names(ids: Sequence[int], places_n3: NDArray[np.int64], texts: Sequence[str], tokens: Tokens) -> tuple[str, ...]:
    """What people read for each token."""
    return tuple(
        tokens.name(token_id) if text < 0 else texts[text][start:end].strip() or BLANK
        for token_id, (text, start, end) in zip(ids, places_n3.tolist(), strict=True)
    )
