"""How faithful a bundle's methods were measured to be, as charts for a page: means with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MEASURES = {
    "comprehensiveness": "how far the answer falls without its strongest words; more is better",
    "sufficiency": "how far it falls with its strongest words alone; less is better",
    "aopc": "area under the fall as words are removed, strongest first; more is better",
    "aopc_over_random": "that area over the one in random order; above 1 is better than chance",
    "aopc_over_occlusion": "that area over the one in the order that exact removal of single words gives",
    "stability": "rank correlation of scores under small edits; 1 is the most",
}
"""Each measure that is shown, and what it says."""


@dataclass(frozen=True)
class Whisker:
    """A method's mean with its interval, and their places on the axis in percent."""

    method: str
    is_best: bool
    mean: float
    low: float
    high: float
    mean_at: float
    low_at: float
    high_at: float


@dataclass(frozen=True)
class Chart:
    """One measure of all methods, from `start` to `end`; 0 is at `zero_at` percent."""

    name: str
    meaning: str
    start: float
    end: float
    zero_at: float
    whiskers: tuple[Whisker, ...]


@dataclass(frozen=True)
class Curve:
    """A method's fall of the answer at each share of words removed; `points` places them in percent, as SVG does."""

    method: str
    is_best: bool
    falls: tuple[float, ...]
    points: str


@dataclass(frozen=True)
class Curves:
    """The curves of all methods, from `low` to `high`; 0 is at `zero_at` percent from the top."""

    shares: tuple[float, ...]
    low: float
    high: float
    zero_at: float
    lines: tuple[Curve, ...]


@dataclass(frozen=True)
class Measured:
    """All measures; `charts` is empty where none was taken, `curves` None where they were not kept."""

    rows: int
    charts: tuple[Chart, ...]
    curves: Curves | None


def measured(faithfulness: Mapping[str, Any]) -> Measured:
    """Charts of what the manifest has under ``evaluation.faithfulness``, which may be nothing."""
    methods = faithfulness.get("methods", {})
    charts = []
    for name, meaning in MEASURES.items():
        triples = {method: values[name] for method, values in methods.items() if values.get(name) is not None}
        if triples:
            charts.append(_chart(name, meaning, triples, faithfulness.get("best", "")))
    return Measured(faithfulness.get("rows", 0), tuple(charts), _curves(faithfulness))


def _curves(faithfulness: Mapping[str, Any]) -> Curves | None:
    falls: dict[str, list[float]] = {
        name: values["curve"] for name, values in faithfulness.get("methods", {}).items() if values.get("curve")
    }
    if not falls:
        return None
    shares = faithfulness["shares"]
    every = [fall for curve in falls.values() for fall in curve]
    low, high = min(0.0, *every), max(0.0, *every)

    def height(fall: float) -> float:
        return 100 * (high - fall) / ((high - low) or 1.0)

    lines = tuple(
        Curve(
            method,
            method == faithfulness.get("best"),
            tuple(curve),
            " ".join(f"{100 * share:g},{height(fall):.2f}" for share, fall in zip(shares, curve, strict=True)),
        )
        for method, curve in falls.items()
    )
    return Curves(tuple(shares), low, high, height(0.0), lines)


def _chart(name: str, meaning: str, triples: Mapping[str, Sequence[float]], best: str) -> Chart:
    lows, highs = [min(triple) for triple in triples.values()], [max(triple) for triple in triples.values()]
    start, end = min(0.0, *lows), max(0.0, *highs)
    width = (end - start) or 1.0

    def place(value: float) -> float:
        return 100 * (value - start) / width

    whiskers = tuple(
        Whisker(method, method == best, mean, low, high, place(mean), place(low), place(high))
        for method, (mean, low, high) in triples.items()
    )
    return Chart(name.replace("_", " "), meaning, start, end, place(0.0), whiskers)
