"""A load over time as lines: bins, scales and SVG paths, for page.html.j2 to place."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from suffuse.load_test.figures import LoadResult

MOST_BINS = 120
_WIDTHS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_STEPS = (1, 2, 5)
_CARRIED_S = 5.0
"""A busy server answers late who asks for its workers; their number is that of before."""


@dataclass(frozen=True)
class Bin:
    """Some seconds of a load; rates a second, latencies in ms of answered requests; None where nothing is known."""

    start_s: float
    middle_s: float
    sent: float
    answered: float
    refused: float
    failed: float
    p50_ms: float | None
    p99_ms: float | None
    workers: float | None


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in percent of it from the left or the top, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve: its name, its class in the style sheet, and its SVG path in percent of width and height."""

    name: str
    style: str
    path: str


@dataclass(frozen=True)
class Chart:
    """One picture. `goal_at` is the height of the goal's line, in percent from the top; None where it has none."""

    title: str
    summary: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    goal_at: float | None = None


def bins(result: LoadResult) -> list[Bin]:
    """The load in at most `MOST_BINS` stretches of equal, round length."""
    width_s = next((width for width in _WIDTHS_S if result.duration_s / width <= MOST_BINS), _WIDTHS_S[-1])
    return [
        _bin(part, index * width_s, _workers_at(result, index * width_s, width_s))
        for index, part in enumerate(result.windows(width_s))
    ]


def charts(of_bins: Sequence[Bin], duration_s: float, goal_s: float) -> list[Chart]:
    """Rates, latencies with the goal, and workers where they were read."""
    made = [_rates(of_bins, duration_s), _latencies(of_bins, duration_s, goal_s * 1000)]
    if any(one.workers is not None for one in of_bins):
        made.append(_workers(of_bins, duration_s))
    return made


def _bin(part: LoadResult, start_s: float, workers: float | None) -> Bin:
    return Bin(
        start_s=start_s,
        middle_s=start_s + part.duration_s / 2,
        sent=part.sent_rate,
        answered=part.rate,
        refused=part.refused / part.duration_s,
        failed=part.failed / part.duration_s,
        p50_ms=part.percentile(50) * 1000 if part.answered else None,
        p99_ms=part.percentile(99) * 1000 if part.answered else None,
        workers=workers,
    )


def _workers_at(result: LoadResult, start_s: float, width_s: float) -> float | None:
    """The mean of what was read in that stretch, or what was read last, where that is not long ago."""
    read = list(zip(result.workers.times_s, result.workers.totals, strict=True))
    within = [total for time_s, total in read if start_s <= time_s < start_s + width_s]
    before = [total for time_s, total in read if start_s - _CARRIED_S <= time_s < start_s][-1:]
    known = [total for total in within or before if total is not None]
    return float(np.mean(known)) if known else None


def _rates(of_bins: Sequence[Bin], duration_s: float) -> Chart:
    top, ticks = _linear(max(one.sent for one in of_bins) or 1.0)
    names = ("sent", "answered", "refused", "failed")
    lines = tuple(
        Line(name, name, _path([(one.middle_s, getattr(one, name)) for one in of_bins], duration_s, 0, top))
        for name in names
        if name in ("sent", "answered") or any(getattr(one, name) for one in of_bins)
    )
    highest = max(one.sent for one in of_bins)
    summary = f"up to {highest:.1f} requests a second were sent"
    return Chart("Requests a second", summary, lines, _seconds(duration_s), ticks)


def _latencies(of_bins: Sequence[Bin], duration_s: float, goal_ms: float) -> Chart:
    """On a logarithmic scale: a goal and an overload are a hundred times apart."""
    known = [value for one in of_bins for value in (one.p50_ms, one.p99_ms) if value is not None and value > 0]
    low, high = np.log10(min([*known, goal_ms]) * 0.8), np.log10(max([*known, goal_ms]) * 1.25)
    exponents = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    steps = _STEPS if high - low < 2 else (1,)
    marks = [step * 10.0**exponent for exponent in exponents for step in steps]
    ticks = tuple(
        Tick(_height(np.log10(mark), low, high), f"{mark:g}") for mark in marks if low <= np.log10(mark) <= high
    )
    lines = tuple(
        Line(
            name,
            name,
            _path([(one.middle_s, _log(getattr(one, f"{name}_ms"))) for one in of_bins], duration_s, low, high),
        )
        for name in ("p99", "p50")
    )
    slowest = max((one.p99_ms for one in of_bins if one.p99_ms is not None), default=0.0)
    summary = f"the p99 of a stretch was at most {slowest:.0f} ms; the goal is {goal_ms:g} ms"
    goal_at = _height(np.log10(goal_ms), low, high)
    return Chart("Latency of answered requests, ms", summary, lines, _seconds(duration_s), ticks, goal_at)


def _workers(of_bins: Sequence[Bin], duration_s: float) -> Chart:
    known = [one.workers for one in of_bins if one.workers is not None]
    top, ticks = _linear(max(known), least=1)
    points: list[tuple[float, float | None]] = []
    edges = [*(one.start_s for one in of_bins), duration_s]
    for one, (start_s, end_s) in zip(of_bins, pairwise(edges), strict=True):
        points += [(start_s, one.workers), (end_s, one.workers)]
    summary = f"from {min(known):g} to {max(known):g} workers were ready"
    line = Line("workers", "workers", _path(points, duration_s, 0, top))
    return Chart("Ready workers", summary, (line,), _seconds(duration_s), ticks)


def _path(points: Sequence[tuple[float, float | None]], duration_s: float, low: float, high: float) -> str:
    """Points joined by lines, with a gap where a value is missing; a lone one becomes a short line."""
    parts = []
    for is_known, run in groupby(points, key=lambda point: point[1] is not None):
        if is_known:
            places = [(100 * x / duration_s, _height(y, low, high)) for x, y in run if y is not None]
            if len(places) == 1:
                ((x, y),) = places
                places = [(x - 0.4, y), (x + 0.4, y)]
            parts.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in places))
    return "".join(parts)


def _height(value: float, low: float, high: float) -> float:
    """In percent from the top."""
    return float(100 - 100 * (value - low) / (high - low))


def _log(value: float | None) -> float | None:
    return float(np.log10(value)) if value else None


def _linear(highest: float, least: float = 0) -> tuple[float, tuple[Tick, ...]]:
    """The top of an axis from 0, and its marks, `least` or more apart."""
    step = max(_step(highest, 4), least)
    count = max(1, int(np.ceil(highest / step - 1e-9)))
    return count * step, tuple(Tick(100 - 100 * index / count, f"{index * step:g}") for index in range(count + 1))


def _seconds(duration_s: float) -> tuple[Tick, ...]:
    step = _step(duration_s, 5)
    marks = np.arange(0, duration_s + step * 1e-6, step)
    return tuple(Tick(float(100 * mark / duration_s), f"{mark:g} s") for mark in marks)


def _step(extent: float, parts: int) -> float:
    """A round number that divides an extent into `parts` or fewer."""
    least = max(extent, 1e-9) / parts
    decade = 10.0 ** np.floor(np.log10(least))
    return float(next(step * decade for step in (*_STEPS, 10) if step * decade >= least * (1 - 1e-9)))
