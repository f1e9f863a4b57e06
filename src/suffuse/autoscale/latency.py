"""How long one row takes by its length, for the model card: in this process, without a server."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from suffuse.autoscale.profile import SizedRow, prose_rows
from suffuse.runtime import Predictor, load

MOST_REPEATS, LEAST_REPEATS = 500, 100
SECONDS = 5.0
"""Of repeats for one length; fewer than `MOST_REPEATS` where they would take longer."""
WARM_UP = 5
_PROCESSORS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a row of so many tokens takes: in half of all cases, and in 99 of 100."""

    tokens: int
    p50_ms: float
    p99_ms: float
    repeats: int


def latency_by_length(
    bundle: str | Path,
    *,
    clock: Callable[[], float] = time.perf_counter,
    note: Callable[[str], object] = lambda _: None,
) -> list[Latency]:
    """Measure rows of prose of 8, 16, 32 and more tokens up to the model's longest input, on one thread.

    Args:
        bundle: folder that ``suffuse export`` wrote.
        clock: in seconds.
        note: told how far it is.

    Raises:
        BundleError: the folder is no bundle.
    """
    predictor = load(bundle, threads=1)
    measured = []
    for one in prose_rows(predictor):
        note(f"rows of {one.tokens} tokens")
        measured.append(_measured(predictor, one, clock))
    return measured


def machine() -> str:
    """The processor and ONNX Runtime, and nothing that tells one host from another."""
    lines = _PROCESSORS.read_text("utf-8").splitlines() if _PROCESSORS.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.machine())}, onnxruntime {version('onnxruntime')}"


def _measured(predictor: Predictor, one: SizedRow, clock: Callable[[], float]) -> Latency:
    for _ in range(WARM_UP):
        predictor(one.row)
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or (len(seconds) < MOST_REPEATS and sum(seconds) < SECONDS):
        start_s = clock()
        predictor(one.row)
        seconds.append(clock() - start_s)
    p50_ms, p99_ms = (1000 * np.quantile(seconds, [0.5, 0.99])).tolist()
    return Latency(one.tokens, round(p50_ms, 3), round(p99_ms, 3), len(seconds))
