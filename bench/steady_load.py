"""A steady load over REST and gRPC while something happens to a stack: nothing is sent twice, each answer is checked.

Its rows are for the model of bench/slow_handler.py, whose answers are known beforehand.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from claims import RESAMPLES, Claim, Goal, resampled_claim
from slow_handler import slow_answer
from suffuse.autoscale.arrivals import poisson
from suffuse.balancing.record import StackRecord
from suffuse.load_test import LoadConfig, LoadResult, Target, start_load

ROWS = 50
LEAD_S = 1.0
"""How long there is load before and after what happens."""

_PADDING = "a warm and funny film that nobody should miss "


@dataclass(frozen=True)
class Rows:
    """Files for a load: rows, and the right answer to each."""

    data: Path
    expected: Path


def write_rows(folder: Path, size: int) -> Rows:
    """Write `ROWS` rows whose texts differ and have `size` bytes."""
    texts = [f"row-{index} {_PADDING * (size // len(_PADDING) + 1)}"[:size] for index in range(ROWS)]
    rows = Rows(folder / f"rows-{size}.jsonl", folder / f"expected-{size}.jsonl")
    rows.data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    rows.expected.write_text("".join(json.dumps(slow_answer(text)) + "\n" for text in texts), "utf-8")
    return rows


def load_on(record: StackRecord, rows: Rows, rate_per_s: float, duration_s: float) -> LoadConfig:
    """Requests at a steady mean rate, half of them over gRPC, through the one port of a stack.

    Args:
        record: of the stack; its first model is asked.
        rows: what is sent.
        rate_per_s: of both transports together.
        duration_s: at most so long.
    """
    token = record.token_file.read_text("utf-8").strip() if record.token_file else None
    target = Target(record.url, record.models[0], grpc_url=record.grpc_url, grpc_share=0.5, token=token)
    arrivals = poisson(rate_per_s, duration_s, (1,))
    return LoadConfig(target, arrivals, rows.data, expected=rows.expected)


def during(load: LoadConfig, happen: Callable[[], None]) -> LoadResult:
    """What came of a load while something happened; it begins a little before, and ends a little after.

    Raises:
        RuntimeError: the load was over before what happened was.
    """
    with start_load(load) as running:
        time.sleep(LEAD_S)
        happen()
        if time.time() - running.started_at > load.load.duration_s:
            raise RuntimeError(f"the load of {load.load.duration_s:g} s ended before what was to happen meanwhile did")
        time.sleep(LEAD_S)
        running.stop()
        return running.wait()


def lost_claim(claim: str, lost: int, load: LoadResult, command: str, goal: Goal | None) -> Claim:
    """How many requests of a load were lost, by whatever is meant by it.

    The interval is that of a rare event's count by Jeffreys' prior: none in one run is not none ever.
    """
    resampled = np.random.default_rng(0).gamma(lost + 0.5, size=RESAMPLES)
    return resampled_claim(claim, lost, resampled, f"of {len(load)}", command, goal)


def p99_claim(claim: str, latency_s: NDArray[np.float64], command: str, goal: Goal | None = None) -> Claim:
    """The 99th percentile of some requests' latencies, (R,), in milliseconds."""
    draw = np.random.default_rng(0)
    resampled = [np.percentile(draw.choice(latency_s, len(latency_s)), 99) * 1000 for _ in range(RESAMPLES)]
    return resampled_claim(claim, float(np.percentile(latency_s, 99)) * 1000, resampled, "ms", command, goal)
