"""A plan as a picture: the load, the workers and the latency over time, one under the other."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from suffuse.autoscale.planning import CPU, POLICY, QUEUE, Plan, Trial, fixed_name
from suffuse.errors import InputError

SUFFIXES = (".svg", ".png", ".pdf")
# Colours that differ for every kind of sight (Okabe and Ito, https://jfly.uni-koeln.de/color/), and dashes for print.
STYLES = {
    POLICY: {"color": "#0072B2", "linestyle": "-", "linewidth": 1.8, "zorder": 4},
    "fixed": {"color": "#000000", "linestyle": "--", "linewidth": 1.2, "zorder": 3},
    CPU: {"color": "#D55E00", "linestyle": "-.", "linewidth": 1.2, "zorder": 2},
    QUEUE: {"color": "#009E73", "linestyle": ":", "linewidth": 1.6, "zorder": 2},
}
LOAD_COLOR, GOAL_COLOR = "#7F7F7F", "#CC79A7"
POINTS = 360
"""Of a curve: more cannot be told apart."""


def check_path(path: Path) -> None:
    """Refuse, before long work, a name that `draw` could not write.

    Raises:
        InputError: the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the name of a picture ends in {', '.join(SUFFIXES)}; got {path.suffix!r}")


def draw(plan: Plan, path: Path) -> None:
    """Write the picture; the same plan gives the same bytes.

    Args:
        plan: what to show: the policy, its rivals, and the cheapest fixed number that meets the goal.
        path: of the file; its suffix says the format.
    """
    check_path(path)
    with rc_context({"svg.hashsalt": "suffuse", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 6.6), layout="constrained")
        load, workers, latency = figure.subplots(3, 1, sharex=True)
        _draw_load(load, plan)
        for trial, style in _shown(plan):
            _draw_workers(workers, trial, style)
            _draw_latency(latency, trial, style, _window_s(plan))
        goal_ms = plan.scenario.policy.goal_p99_s * 1000
        latency.axhline(goal_ms, color=GOAL_COLOR, linewidth=1, label=f"goal {goal_ms:g} ms")
        workers.set(ylabel="ready workers", ylim=(0, None))
        workers.yaxis.set_major_locator(MaxNLocator(integer=True))
        latency.set(ylabel="p99 in ms\n(gaps: refused)", xlabel="seconds", yscale="log")
        latency.set_xlim(0, plan.scenario.arrivals.duration_s)
        latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        latency.yaxis.set_major_formatter("{x:g}")
        latency.yaxis.set_minor_formatter(NullFormatter())
        for axes in (load, workers, latency):
            axes.grid(visible=True, color="#E5E5E5", linewidth=0.6)
            axes.set_axisbelow(True)
        handles, labels = latency.get_legend_handles_labels()  # the curve drawn last, on top, is named first
        handles, labels = [handles[-2], *handles[:-2], handles[-1]], [labels[-2], *labels[:-2], labels[-1]]
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _shown(plan: Plan) -> list[tuple[Trial, dict[str, object]]]:
    fixed = fixed_name(plan.cheapest or plan.scenario.policy.max_workers)
    styles: dict[str, dict[str, object]] = {CPU: STYLES[CPU], QUEUE: STYLES[QUEUE], fixed: STYLES["fixed"]}
    return [(plan.trials[name], style) for name, style in (styles | {POLICY: STYLES[POLICY]}).items()]


def _window_s(plan: Plan) -> float:
    """The goal's window, or a longer one where there would be too many."""
    return max(plan.scenario.window_s, plan.scenario.arrivals.duration_s / POINTS)


def _draw_load(axes: Axes, plan: Plan) -> None:
    arrivals = plan.scenario.arrivals
    windows = max(1, min(POINTS, int(arrivals.duration_s)))
    counts, edges = np.histogram(arrivals.times_s, bins=windows, range=(0, arrivals.duration_s))
    axes.stairs(counts / np.diff(edges), edges, fill=True, color=LOAD_COLOR, alpha=0.6)
    axes.set(ylabel="requests a second", ylim=(0, None))


def _draw_workers(axes: Axes, trial: Trial, style: dict[str, object]) -> None:
    outcome = trial.outcome
    edges = np.append(outcome.change_times_s, outcome.duration_s)
    axes.step(edges, np.append(outcome.ready, outcome.ready[-1]), where="post", **style)  # type: ignore[arg-type]


def _draw_latency(axes: Axes, trial: Trial, style: dict[str, object], window_s: float) -> None:
    starts_s, p99_s = trial.outcome.windows(window_s)
    p99_ms = np.where(np.isfinite(p99_s), p99_s * 1000, np.nan)
    axes.plot(starts_s + window_s / 2, p99_ms, label=trial.name, **style)  # type: ignore[arg-type]
