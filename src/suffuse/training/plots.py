"""A training as a picture: loss, score, learning rates and hop weights by step, side by side."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from suffuse.training.module import ATTENTION_RATE, BETA, RATE, SCORE

POINTS = 200
"""Of a curve, each the mean of what it stands for: more cannot be told apart."""
# Colours that differ for every kind of sight (Okabe and Ito, https://jfly.uni-koeln.de/color/), and markers for print.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#B0B0B0"
LAYERS = LinearSegmentedColormap.from_list("layers", colormaps["viridis"](np.linspace(0, 0.85, 64)))
"""Without the yellow, which is too light on white."""
DASHES = ("-", "--", ":", "-.")
_BETA = re.compile(rf"{BETA}(\d+)_hop(\d+)")

Logged = Sequence[Mapping[str, str]]
"""Lines of metrics.csv: a step, and whatever was logged then; other columns are empty."""
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_training(rows: Logged, path: Path, metric: str) -> None:
    """Write an SVG; the same rows give the same bytes.

    Args:
        rows: of metrics.csv, as `TextModule` logs them.
        path: of the picture.
        metric: name of the score.
    """
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _draw_loss(axes, rows),
        lambda axes: _draw_score(axes, rows, metric),
        lambda axes: _draw_rates(axes, rows),
    ]
    hop_weights = _hop_weights(rows)
    if hop_weights:
        panels.append(lambda axes: _draw_hop_weights(axes, hop_weights))
    with rc_context({"svg.hashsalt": "suffuse", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        # White also where the page around it is dark: black on nothing would be gone there.
        layout = ConstrainedLayoutEngine(wspace=0.06)
        figure = Figure(figsize=(2.9 * len(panels), 2.6), layout=layout, facecolor="white")
        for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(axes)
            axes.set_xlabel("optimizer step")
            axes.grid(visible=True, color="#E5E5E5", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.margins(y=0.08)
            axes.set_xlim(0, 1.04 * (1 + max(int(row["step"]) for row in rows)))
        figure.savefig(path, metadata={"Date": None, "Title": "Training: loss, score, learning rates, hop weights"})


def _draw_loss(axes: Axes, rows: Logged) -> None:
    axes.plot(*_curve(rows, "train_loss"), color=GREY, linewidth=1.0, label="training")
    axes.plot(*_curve(rows, "val_loss"), color=BLUE, marker="o", markersize=3.5, label="validation")
    axes.set(title="Loss", ylabel="nats per decision")
    axes.legend(frameon=False)


def _draw_score(axes: Axes, rows: Logged, metric: str) -> None:
    steps, scores = _curve(rows, SCORE)
    axes.plot(steps, scores, color=BLUE, marker="o", markersize=3.5)
    if len(steps):
        best = int(np.argmax(scores))
        axes.plot(steps[best], scores[best], "o", markersize=8, fillstyle="none", color=ORANGE)
    axes.set(title="Validation score (best ringed)", ylabel=metric)


def _draw_rates(axes: Axes, rows: Logged) -> None:
    for name, label, color in ((RATE, "network", BLUE), (ATTENTION_RATE, "hop weights", ORANGE)):
        steps, rates = _curve(rows, name)
        shown = rates > 0  # the last one is 0, which has no logarithm
        if shown.any():
            axes.plot(steps[shown], rates[shown], color=color, label=label)
    axes.set(title="Learning rate", ylabel="per step (log scale)", yscale="log")
    if axes.lines:
        axes.legend(frameon=False)


def _draw_hop_weights(axes: Axes, curves: Mapping[tuple[int, int], Curve]) -> None:
    layers = max(layer for layer, _ in curves) + 1
    scale = Normalize(1, max(layers, 2))
    for (layer, hop), (steps, beta) in curves.items():
        axes.plot(
            np.append(0.0, steps),  # from 0, where every hop weight starts
            np.append(0.0, beta),
            color=LAYERS(scale(layer + 1)),
            linestyle=DASHES[(hop - 2) % len(DASHES)],
            marker=".",
            markersize=4,
            linewidth=1.0,
            label=f"hop {hop}" if layer == 0 else None,
        )
    colours = axes.figure.colorbar(ScalarMappable(scale, LAYERS), ax=axes, label="layer")
    colours.locator = MaxNLocator(6, integer=True)
    colours.update_ticks()
    if len(curves) > layers:
        axes.legend(frameon=False)
    axes.set(title="Hop weights by layer", ylabel="beta, mean over heads")


def _hop_weights(rows: Logged) -> dict[tuple[int, int], Curve]:
    names = {name: _BETA.fullmatch(name) for name in rows[0]}
    return {(int(found[1]), int(found[2])): _curve(rows, name) for name, found in names.items() if found}


def _curve(rows: Logged, name: str) -> Curve:
    """Steps from 1 on, and values, averaged where there are more than `POINTS`."""
    pairs = [(float(row["step"]) + 1, float(row[name])) for row in rows if row.get(name)]
    points = np.array(pairs).reshape(-1, 2)
    parts = np.array_split(points, min(len(points), POINTS)) if len(points) else []
    means = np.array([part.mean(axis=0) for part in parts]).reshape(-1, 2)
    return means[:, 0], means[:, 1]
