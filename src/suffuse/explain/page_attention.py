"""Attention made small enough to lie in a page: a byte for each weight, of as many tokens as there is room for."""

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.explain.attention import AttentionMaps
from suffuse.explain.colours import step_class, step_of

MOST_CELLS = 1_500_000
"""Weights of one text, all its windows, layers and heads together; plain and diffused they are 4 MB of page."""
MOST_WINDOWS = 4
"""Of one text that are shown."""
STRONGEST = 3
"""Tokens named for each token in the table of what it rests on."""


@dataclass(frozen=True)
class Cell:
    """A number of a table, and the class that colours it."""

    value: float
    style: str


@dataclass(frozen=True)
class Traced:
    """A token, and where its last state came from over all layers: the strongest first."""

    token: str
    sources: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ShownAttention:
    """The attention of one text as the page shows it.

    Args:
        content: for the page's script, JSON-able: windows with tokens, and weights as bytes in base64.
        beta: a table (L, H) for each hop beyond the first.
        traced: each token of the first window and what it rests on, by rollout.
        notes: what is not shown, as sentences.
    """

    content: dict[str, Any]
    beta: tuple[tuple[tuple[Cell, ...], ...], ...]
    traced: tuple[Traced, ...]
    notes: tuple[str, ...]


def shown_attention(maps: Sequence[AttentionMaps]) -> ShownAttention:
    """Cut the attention of a text to what a page has room for.

    Args:
        maps: of each window, at least one.
    """
    kept = maps[:MOST_WINDOWS]
    layers, heads = maps[0].plain.shape[:2]
    room = math.isqrt(MOST_CELLS // (layers * heads * len(kept)))
    notes = []
    if len(maps) > len(kept):
        notes.append(f"Of {len(maps)} windows the first {len(kept)} are shown.")
    longest = max(len(one.tokens) for one in kept)
    if longest > room:
        notes.append(f"Of up to {longest} tokens in a window the first {room} are shown; the rest has its share too.")
    content = {"layers": layers, "heads": heads, "windows": [_window(one, room) for one in kept]}
    return ShownAttention(content, _beta(maps[0].beta), _traced(kept[0]), tuple(notes))


def _window(maps: AttentionMaps, room: int) -> dict[str, Any]:
    moved_lh = maps.moved()
    return {
        "tokens": list(maps.tokens[:room]),
        "plain": _bytes(maps.plain[..., :room, :room]),
        "diffused": _bytes(maps.diffused[..., :room, :room]) if maps.beta.shape[-1] else None,
        "beta": [[round(float(beta), 4) for beta in beta_k] for beta_k in maps.beta.reshape(moved_lh.size, -1)],
        "first": int(moved_lh.argmax()),
    }


def _bytes(weights_lhnn: NDArray[np.float32]) -> dict[str, Any]:
    """Each head from its lowest weight, or 0, to its highest in 255 steps."""
    flat_hm = weights_lhnn.reshape(weights_lhnn.shape[0] * weights_lhnn.shape[1], -1).astype(np.float64)
    low_h = np.minimum(flat_hm.min(axis=1), 0.0)
    high_h = np.maximum(flat_hm.max(axis=1), low_h + 1e-6)
    quantised_hm = np.rint((flat_hm - low_h[:, None]) / (high_h - low_h)[:, None] * 255).astype(np.uint8)
    return {
        "low": [round(low, 5) for low in low_h.tolist()],
        "high": [round(high, 5) for high in high_h.tolist()],
        "bytes": b64encode(quantised_hm.tobytes()).decode("ascii"),
    }


def _beta(beta_lhk: NDArray[np.float32]) -> tuple[tuple[tuple[Cell, ...], ...], ...]:
    strongest = float(np.abs(beta_lhk).max(initial=0.0))
    return tuple(
        tuple(
            tuple(Cell(beta, step_class(step_of(beta, strongest))) for beta in row)
            for row in beta_lhk[..., hop].tolist()
        )
        for hop in range(beta_lhk.shape[-1])
    )


def _traced(maps: AttentionMaps) -> tuple[Traced, ...]:
    return tuple(
        Traced(token, tuple((maps.tokens[place], float(row_n[place])) for place in np.argsort(-row_n)[:STRONGEST]))
        for token, row_n in zip(maps.tokens, maps.rollout(), strict=True)
    )
