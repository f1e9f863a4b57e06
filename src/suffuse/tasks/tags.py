"""Tags of words: which may follow which, the entities that they spell, and the best legal sequence of them.

BIO: B- begins an entity, I- continues it, O is outside. BIOES marks ends too: E- for the last word, S- for an only one.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
BIO = ("B", "I")
BIOES = ("B", "I", "E", "S")

_TAG = re.compile(r"O|[BIES]-\S.*")
_LOWEST = -1e6
"""Bound on a log probability: below it lies only what is forbidden."""


class Entity(NamedTuple):
    """Words from `first` up to `end`, or characters, with a label."""

    first: int
    end: int
    label: str


def is_tag(text: str) -> bool:
    """Whether `text` is O, or one of B-, I-, E-, S- and a label."""
    return _TAG.fullmatch(text) is not None


def tag_label(tag: str) -> str:
    """The label of a tag, empty for O."""
    return tag.partition("-")[2]


def marks_ends(tags: Iterable[str]) -> bool:
    """Whether tags are BIOES rather than BIO."""
    return any(tag[:1] in ("E", "S") for tag in tags)


def complete(tags: Iterable[str]) -> tuple[str, ...]:
    """O, then all tags of the scheme for each label among `tags`, sorted: a rare one may be missing in few rows."""
    given = set(tags)
    labels = {tag_label(tag) for tag in given if tag != OUTSIDE}
    prefixes = BIOES if marks_ends(given) else BIO
    return (OUTSIDE, *sorted(f"{prefix}-{label}" for prefix in prefixes for label in labels))


def fault(tags: Sequence[str], *, ends_marked: bool) -> int | None:
    """Place of the first tag that the scheme does not allow there; ``len(tags)`` where an entity does not end."""
    before = OUTSIDE
    for place, tag in enumerate(tags):
        if not _may_follow(before, tag, ends_marked=ends_marked):
            return place
        before = tag
    return None if _may_follow(before, OUTSIDE, ends_marked=ends_marked) else len(tags)


def is_iob1(tags: Sequence[str]) -> bool:
    """Whether tags are legal in IOB1: I- also begins an entity, and B- only one that touches another of its label.

    Source: Ramshaw and Marcus (1995); files of CoNLL-2002 and 2003 come in it.
    """
    before = OUTSIDE
    for tag in tags:
        if tag.startswith("B-") and tag_label(before) != tag_label(tag):
            return False
        before = tag
    return not marks_ends(tags)


def entities(tags: Iterable[str]) -> list[Entity]:
    """Entities that a sequence spells, in order; an I- or E- that continues nothing begins one, as in IOB1."""
    found: list[Entity] = []
    for place, tag in enumerate(tags):
        label = tag_label(tag)
        if not label:
            continue
        last = found[-1] if found else Entity(-1, -1, "")
        if tag[0] in ("I", "E") and last[1:] == (place, label):
            found[-1] = last._replace(end=place + 1)
        else:
            found.append(Entity(place, place + 1, label))
    return found


def spell(found: Iterable[Entity], starts: Sequence[int], *, ends_marked: bool) -> list[str]:
    """Tags of words that begin at `starts`: those within an entity bear its label."""
    tags = [OUTSIDE] * len(starts)
    for first, end, label in found:
        # A word that begins where the entity does is its first; ends count as they do in ranges.
        low, high = np.searchsorted(starts, (first, end)).tolist()
        for place in range(low, high):
            is_last = ends_marked and place == high - 1
            prefix = ("S" if is_last else "B") if place == low else ("E" if is_last else "I")
            tags[place] = f"{prefix}-{label}"
    return tags


def best_sequences(
    log_probabilities_uc: NDArray[np.float64], lengths: Sequence[int], tags: Sequence[str]
) -> NDArray[np.int64]:
    """The most probable legal tags of many rows at once, by Viterbi's algorithm.

    Args:
        log_probabilities_uc: of each tag for each word; the words of a row follow one another, rows after rows.
        lengths: words of each row, which may be none; their sum is U.
        tags: what the columns stand for, O among them.

    Returns:
        Indices of tags (U,).
    """
    scores_uc = np.maximum(log_probabilities_uc, _LOWEST)
    lengths_r = np.asarray(lengths, dtype=np.int64)
    path_u = scores_uc.argmax(axis=1) if len(scores_uc) else np.zeros(0, dtype=np.int64)
    constraints = _constraints(tuple(tags))
    # Where the most probable tags of each word are legal together, nothing is better: so it is for nearly all rows.
    faulty_r = _faulty(path_u, lengths_r, constraints)
    faulty_u = np.repeat(faulty_r, lengths_r)
    path_u[faulty_u] = _viterbi(scores_uc[faulty_u], lengths_r[faulty_r], constraints)
    return path_u


def _faulty(path_u: NDArray[np.int64], lengths_r: NDArray[np.int64], constraints: "_Constraints") -> NDArray[np.bool_]:
    ends_r = np.cumsum(lengths_r)
    firsts_r = ends_r - lengths_r
    rows_u = np.repeat(np.arange(len(lengths_r)), lengths_r)
    added_u = np.zeros(len(path_u))
    added_u[1:] = constraints.between_cc[path_u[:-1], path_u[1:]]
    full_r = lengths_r > 0
    added_u[firsts_r[full_r]] = constraints.starts_c[path_u[firsts_r[full_r]]]
    added_u[ends_r[full_r] - 1] += constraints.ends_c[path_u[ends_r[full_r] - 1]]
    faulty_r = np.zeros(len(lengths_r), dtype=bool)
    faulty_r[rows_u[added_u < 0]] = True
    return faulty_r


def _viterbi(
    scores_uc: NDArray[np.float64], lengths_r: NDArray[np.int64], constraints: "_Constraints"
) -> NDArray[np.int64]:
    # Longest rows first: those that still have a word at step t are then the first `active[t]` of them.
    order_r = np.argsort(-lengths_r, kind="stable")
    firsts_r = (np.cumsum(lengths_r) - lengths_r)[order_r]
    steps = int(lengths_r.max(initial=0))
    active = np.searchsorted(-lengths_r[order_r], -np.arange(steps), side="left")
    path_u = np.zeros(len(scores_uc), dtype=np.int64)
    if not steps:
        return path_u
    best_rc = scores_uc[firsts_r] + constraints.starts_c
    pointers: list[NDArray[np.int64]] = []
    for step in range(1, steps):
        count = active[step]
        candidates_rcc = best_rc[:count, :, None] + constraints.between_cc
        pointers.append(candidates_rcc.argmax(axis=1))
        best_rc[:count] = candidates_rcc.max(axis=1) + scores_uc[firsts_r[:count] + step]
    current_r = (best_rc + constraints.ends_c).argmax(axis=1)
    for step in range(steps - 1, -1, -1):
        count = active[step]
        path_u[firsts_r[:count] + step] = current_r[:count]
        if step:
            current_r[:count] = pointers[step - 1][np.arange(count), current_r[:count]]
    return path_u


def _may_follow(before: str, tag: str, *, ends_marked: bool) -> bool:
    continues = tag[0] in ("I", "E")
    is_open = before[0] in ("B", "I")
    if continues or (is_open and ends_marked):
        return continues and is_open and tag_label(before) == tag_label(tag)
    return True


class _Constraints(NamedTuple):
    """What is added to a score, 0 or minus infinity: for a tag after another (C, C), a first and a last one (C,)."""

    between_cc: NDArray[np.float64]
    starts_c: NDArray[np.float64]
    ends_c: NDArray[np.float64]


@cache
def _constraints(tags: tuple[str, ...]) -> _Constraints:
    ends_marked = marks_ends(tags)

    def added(befores: Sequence[str], afters: Sequence[str]) -> NDArray[np.float64]:
        allowed = [[_may_follow(a, b, ends_marked=ends_marked) for b in afters] for a in befores]
        return np.where(allowed, 0.0, -np.inf)

    return _Constraints(added(tags, tags), added([OUTSIDE], tags)[0], added(tags, [OUTSIDE])[:, 0])
