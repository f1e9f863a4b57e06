"""What of a network's outputs an answer rests on, and where its tokens stand in the texts: what an explanation asks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from suffuse.errors import RowError, brief, nearest

MOST_SHOWN = 12
"""Names in an error message: a message is sent back, and may be one of hundreds."""


@dataclass(frozen=True)
class Target:
    """A number that can be explained: a weighted sum of the logits of all windows of a row.

    Args:
        name: what it stands for, such as a label.
        weights: for each window those of its logits, float32 of their shape.
        span: start and end of what it is about, in characters, where that is a part of a text.
    """

    name: str
    weights: Sequence[NDArray[np.float32]]
    span: tuple[int, int] | None = None


def check_target(name: str, known: Sequence[str]) -> None:
    """Refuse a target that a task does not have.

    Raises:
        RowError: `name` is not among `known`; the nearest that is gets named.
    """
    if name in known:
        return
    more = f" and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else ""
    raise RowError(
        f"target {brief(name)} is unknown; expected one of {', '.join(known[:MOST_SHOWN])}{more}{nearest(name, known)}",
        code="unknown_target",
    )


def token_places(encoding: Encoding) -> NDArray[np.int64]:
    """For each token which text it is of, and its start and end there in characters, (N, 3); -1 for special tokens."""
    places_n3 = np.full((len(encoding), 3), -1, dtype=np.int64)
    for place, (sequence, offsets) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
        if sequence is not None:
            places_n3[place] = sequence, *offsets
    return places_n3
