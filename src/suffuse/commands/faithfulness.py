"""`suffuse explain BUNDLE --evaluate ROWS`: how far each method can be trusted, written into the bundle."""

import json
import random
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from suffuse.errors import InputError, RowError

if TYPE_CHECKING:
    from rich.table import Table

    from suffuse.rows import PlacedRow
    from suffuse.tasks import Row, Task

COLUMNS = {
    "comprehensiveness": "compre-\nhensive",
    "sufficiency": "suffi-\ncient",
    "aopc": "area of\ncurve",
    "aopc_over_random": "over\nrandom",
    "aopc_over_occlusion": "over oc-\nclusion",
    "stability": "stable",
}
"""What a terminal shows, in 80 columns."""


def measure(settings: Namespace) -> None:
    """Measure all methods on rows of a file, print the figures, and make the best method the bundle's default.

    Args:
        settings: of the command: ``bundle``, ``texts`` (the file), ``rows`` (how many of it), ``json``, ``threads``.

    Raises:
        BundleError: the bundle has no explain.onnx.
        DataError: the file cannot be read, or no row of it has words to put in order.
        InputError: all rows are bad, `rows` is below 1, or there are several files.
    """
    from rich.console import Console
    from rich.progress import Progress

    from suffuse.bundle import amend
    from suffuse.explain.choice import EVALUATION
    from suffuse.explain.evaluation import evaluate
    from suffuse.rows import read_rows
    from suffuse.runtime import load

    source, *others = settings.texts
    if others:
        raise InputError(f"explain --evaluate takes one file of rows; got {len(settings.texts)}")
    if settings.rows < 1:
        raise InputError(f"rows is {settings.rows}; expected at least 1, such as 200")
    predictor = load(settings.bundle, settings.threads or None)
    bad: list[RowError] = []
    placed = read_rows(source, on_bad=bad.append)
    rows = sample(predictor.task, placed, settings.rows, bad)
    if not rows:
        raise InputError(f"all {len(bad)} rows are bad; the first: {bad[0]}")
    if bad:
        sys.stderr.write(f"{len(bad)} bad rows left out; the first: {bad[0]}\n")
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        figures = evaluate(predictor, progress.track(rows, description="measuring")).to_dict()
    if settings.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console(file=sys.stdout, highlight=False).print(table(figures))
    amend(settings.bundle, **{EVALUATION: figures})


def sample(task: "Task", placed: "Iterable[PlacedRow]", size: int, bad: list[RowError]) -> "Sequence[Row]":
    """So many rows of any number, each as likely as another, always the same ones; files are often in some order.

    Args:
        task: checks the rows.
        placed: rows with their places.
        size: how many to take.
        bad: is given the errors of rows that cannot be answered.
    """
    chance = random.Random(0)  # the same rows each time
    kept: list[tuple[int, Row]] = []
    good = 0
    for where, row in placed:
        try:
            checked = task.check(row)
        except RowError as error:
            bad.append(error.at(where))
            continue
        # Algorithm R: row n of the good ones takes the place of one that is kept with probability size / n.
        place = good if good < size else chance.randrange(good + 1)
        if place < size:
            kept[place : place + 1] = [(good, checked)]
        good += 1
    return [row for _, row in sorted(kept, key=lambda numbered: numbered[0])]


def table(figures: dict[str, Any]) -> "Table":
    """Figures for a terminal, a method a line, the best one marked."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(
        title=f"{figures['rows']} rows; explanations are by {figures['best']} from now on",
        caption="± half of the 95 % interval; sufficient: low is good; cost: in predictions",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("method", no_wrap=True)
    for heading in (*COLUMNS.values(), "cost"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for method, measured in figures["methods"].items():
        cost = "-" if measured["cost"] is None else f"{measured['cost'][0]:.1f}"
        cells = [*(_with_interval(measured[name]) for name in COLUMNS), cost]
        shown.add_row(method, *cells, style="bold" if method == figures["best"] else "")
    return shown


def _with_interval(triple: Sequence[float] | None) -> str:
    if triple is None:
        return "-"
    value, low, high = triple
    half = f"{(high - low) / 2:.2f}".removeprefix("0")
    return f"{value:.2f}\n±{half}"
