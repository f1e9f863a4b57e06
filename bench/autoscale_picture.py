"""The picture of bench/autoscale.py: arrivals, workers and latency over time, a column for each load."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from autoscale_trials import CHEAPEST, CPU, DURATION_S, GOAL_S, QUEUE, SUFFUSE, Trial
from suffuse.autoscale.planning import CPU as PLANNED_CPU
from suffuse.autoscale.planning import POLICY
from suffuse.autoscale.planning import QUEUE as PLANNED_QUEUE
from suffuse.autoscale.plot import GOAL_COLOR, LOAD_COLOR, STYLES

LABELS = {
    SUFFUSE: "suffuse autoscale",
    CHEAPEST: "fewest fixed workers that meet the goal",
    CPU: "HPA on processor use",
    QUEUE: "HPA on the queue (KEDA)",
}
TITLES = {"step": "ten times the load, and back", "trace": "the swing of a trace"}
DRAWN = {CPU: STYLES[PLANNED_CPU], QUEUE: STYLES[PLANNED_QUEUE], CHEAPEST: STYLES["fixed"], SUFFUSE: STYLES[POLICY]}
"""In this order, so that suffuse is on top."""
STARTING_COLOR = "#DCE9F3"
WINDOW_S = 2.0
"""Of the latency's curve; the goal is kept or not second by second."""


def draw(trials: Sequence[Trial], path: Path) -> None:
    """Write the picture; the same trials give the same bytes.

    Args:
        trials: grouped by scenario.
        path: of the file; its suffix says the format.
    """
    columns = [list(group) for _, group in groupby(trials, key=lambda trial: trial.scenario)]
    with rc_context({"svg.hashsalt": "suffuse", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 7), layout="constrained")
        axes = figure.subplots(3, len(columns), sharex="col", sharey="row", squeeze=False)
        for column, group in enumerate(columns):
            _draw_column(list(axes[:, column]), group)
        for axis, label in zip(
            axes[:, 0], ("requests a second", "ready workers", "p99 in ms\n(gaps: refused)"), strict=True
        ):
            axis.set_ylabel(label)
        for axis in axes[:2, 0]:  # when all is drawn: the columns share their scale
            axis.set_ylim(0, None)
        shown: dict[str, Artist] = {}  # by label: a rule need not be in every column
        for axis in axes[2]:
            handles, labels = axis.get_legend_handles_labels()
            shown |= dict(zip(labels, handles, strict=True))
        handles, labels = list(reversed(shown.values())), list(reversed(shown))
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _draw_column(axes: Sequence[Axes], trials: Sequence[Trial]) -> None:
    load, workers, latency = axes
    by_rule = {trial.rule: trial for trial in trials}
    counts, edges = np.histogram(trials[0].start_s, np.arange(0, DURATION_S + 1))
    load.stairs(counts, edges, fill=True, color=LOAD_COLOR, alpha=0.6)
    load.set_title(TITLES[trials[0].scenario])
    since_s, until_s = by_rule[SUFFUSE].excused_s if SUFFUSE in by_rule else (0.0, 0.0)
    if until_s > since_s:
        latency.axvspan(since_s, until_s, color=STARTING_COLOR, linewidth=0, label="suffuse's first new worker starts")
    latency.axhline(GOAL_S * 1000, color=GOAL_COLOR, linewidth=1, label=f"goal {GOAL_S * 1000:g} ms")
    for rule, style in DRAWN.items():
        if rule in by_rule:
            trial = by_rule[rule]
            workers.step(trial.sampled_s, trial.ready, where="post", **style)  # type: ignore[arg-type]
            latency.plot(*_p99_ms(trial), label=LABELS[rule], **style)  # type: ignore[arg-type]
    workers.yaxis.set_major_locator(MaxNLocator(integer=True))
    latency.set(xlabel="seconds", yscale="log", xlim=(0, DURATION_S))
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_minor_formatter(NullFormatter())
    for axis in axes:
        axis.grid(visible=True, color="#E5E5E5", linewidth=0.6)
        axis.set_axisbelow(True)


def _p99_ms(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the windows and the 99th percentile in each; nothing where more than 1 of 100 were refused."""
    numbers = np.floor(trial.start_s / WINDOW_S)
    chosen = np.unique(numbers[numbers >= 0])
    p99_s = [np.percentile(trial.waits_s[numbers == number], 99, method="inverted_cdf") for number in chosen]
    return (chosen + 0.5) * WINDOW_S, np.where(np.isfinite(p99_s), np.multiply(p99_s, 1000), np.nan)
