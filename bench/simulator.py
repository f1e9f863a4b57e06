"""Whether the simulator tells the truth: predicted against measured latency and throughput of a real TorchServe.

The bundle is profiled in this process on critics' snippets. One worker of one thread then serves it, and answers
snippets that come by chance (Poisson) at 30, 60 and 85 % of what it can do. They are sent by a process of its own, each
when its time has come, whether others were answered or not, and latency counts from there. The simulator gets the same
arrivals. What a lone client waits beyond the worker's time is the overhead of network and Java, measured beforehand.
`make demo` must have run: it makes the bundle.

    python bench/simulator.py
"""

import asyncio
import contextlib
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from claims import Claim, Goal, median_claim, write
from serving import BUNDLE, started
from suffuse.autoscale.arrivals import Arrivals, FloatArray, IntArray
from suffuse.autoscale.profile import measure
from suffuse.autoscale.rules import Fixed
from suffuse.autoscale.service_time import Profile
from suffuse.autoscale.simulator import Stack, simulate
from suffuse.serving.archive import ArchiveSettings, archive
from traffic import Target, closed_loop, snippets

COMMAND = "python bench/simulator.py"
LOADS = (0.3, 0.6, 0.85)
ROUNDS = 5
SECONDS = 60.0
TEXTS = 512  # as many as a profile reads of a file
CLIENTS_AT_FULL_LOAD = 64
SETTLE_S = 2.0
LARGEST_ERROR = 0.2
SIMULATIONS = 5
"""Of each load, with other service times: the median is the prediction."""


@dataclass(frozen=True)
class Figures:
    """What is predicted and measured."""

    p99_s: float
    rate_per_s: float


def main() -> None:
    """Profile, serve, measure and predict, write the claims."""
    texts = snippets(TEXTS)
    settings = ArchiveSettings(workers=1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        profile = measure(BUNDLE, str(rows), threads=1)
        print(f"profile: error {profile.error:.1%} over {len(profile.measurements)} batches", file=sys.stderr)
        archive(BUNDLE, folder, settings)
        target = started(stack, folder, BUNDLE.name, threads=1)
        sender = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        closed_loop(target, texts, 1, SECONDS / 6)  # warm
        lone_s = float(np.median(closed_loop(target, texts, 1, SECONDS / 6).latencies_s))
        full_per_s = closed_loop(target, texts, CLIENTS_AT_FULL_LOAD, SECONDS / 3).rate
        simulated = simulated_stack(profile, settings, lone_s)
        print(
            f"a lone client waits {lone_s * 1000:.1f} ms, of which {simulated.overhead_s * 1000:.1f} ms overhead; "
            f"at most {full_per_s:.1f} answers a second",
            file=sys.stderr,
        )
        claims = [
            claim
            for load in LOADS
            for claim in compared(load, load * full_per_s, simulated, profile, (sender, target, texts))
        ]
    write("simulator", claims)


def simulated_stack(profile: Profile, settings: ArchiveSettings, lone_s: float) -> Stack:
    """The server as the simulator knows it."""
    delay_s = settings.max_batch_delay_ms / 1000
    alone_s = float(np.median([profile.service.seconds([length]) for length in profile.lengths]))
    return Stack(
        profile.service,
        batch_size=settings.batch_size,
        max_batch_delay_s=delay_s,
        overhead_s=max(0.0, lone_s - alone_s - delay_s),
    )


def compared(
    load: float,
    rate_per_s: float,
    stack: Stack,
    profile: Profile,
    sending: tuple[ProcessPoolExecutor, Target, Sequence[str]],
) -> Iterator[Claim]:
    """Send and simulate the same arrivals `ROUNDS` times and yield the claims of one load."""
    sender, target, texts = sending
    measured: list[Figures] = []
    predicted: list[Figures] = []
    for number in range(ROUNDS):
        times_s, chosen = drawn(rate_per_s, number)
        requests = [target.request(body) for body in target.bodies([texts[index] for index in chosen])]
        latencies_s = sender.submit(open_loop, target.address, requests, times_s.tolist()).result()
        measured.append(figures(times_s, np.array(latencies_s)))
        predicted.append(prediction(Arrivals(times_s, np.array(profile.lengths)[chosen], SECONDS), stack))
        print(f"load {load:.0%}, round {number}: measured {measured[-1]}, predicted {predicted[-1]}", file=sys.stderr)
    where = f"at {load:.0%} load, one worker of one thread"
    for what, name in (("99th percentile of latency", "p99_s"), ("answers a second", "rate_per_s")):
        ratios = np.array([getattr(p, name) / getattr(m, name) for p, m in zip(predicted, measured, strict=True)])
        error = f"error of the predicted {what} (|predicted / measured - 1|), {where}"
        yield median_claim(error, abs(ratios - 1), "share", COMMAND, Goal(LARGEST_ERROR, is_upper=True))
        yield median_claim(f"{what}, predicted over measured, {where}", ratios, "ratio", COMMAND)


def drawn(rate_per_s: float, seed: int) -> tuple[FloatArray, IntArray]:
    """Times of arrival, and which text comes."""
    random = np.random.default_rng(seed)
    times_s = np.sort(random.uniform(0, SECONDS, random.poisson(rate_per_s * SECONDS)))
    return times_s, random.integers(0, TEXTS, len(times_s))


def prediction(arrivals: Arrivals, stack: Stack) -> Figures:
    """The median of several simulations."""
    runs = [simulate(arrivals, stack, Fixed(1), seed=seed) for seed in range(SIMULATIONS)]
    found = [figures(run.times_s, run.latencies_s) for run in runs]
    return Figures(*(float(np.median([getattr(one, name) for one in found])) for name in ("p99_s", "rate_per_s")))


def figures(times_s: FloatArray, latencies_s: FloatArray) -> Figures:
    """Of the requests after the first seconds; the rate is of all, until the last answer."""
    settled = times_s >= SETTLE_S
    rate_per_s = len(times_s) / float((times_s + latencies_s).max())
    return Figures(float(np.quantile(latencies_s[settled], 0.99, method="higher")), rate_per_s)


def open_loop(address: tuple[str, int], requests: Sequence[bytes], times_s: Sequence[float]) -> list[float]:
    """Send each request when its time has come; runs in a process of its own.

    Returns:
        Seconds from when each should have been sent to its answer.

    Raises:
        RuntimeError: a request was not answered with 200.
    """
    return asyncio.run(_send_all(address, requests, times_s))


async def _send_all(address: tuple[str, int], requests: Sequence[bytes], times_s: Sequence[float]) -> list[float]:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    start_s = time.perf_counter()

    async def send(request: bytes, at_s: float) -> float:
        await asyncio.sleep(max(0.0, start_s + at_s - time.perf_counter()))
        reader, writer = free.pop() if free else await asyncio.open_connection(*address)
        writer.write(request)
        await _read_reply(reader)
        end_s = time.perf_counter()
        free.append((reader, writer))
        return end_s - start_s - at_s

    latencies_s = await asyncio.gather(*map(send, requests, times_s))
    for _, writer in free:
        writer.close()
    return latencies_s


async def _read_reply(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise RuntimeError(f"a request failed: {head[:300]!r}")
    await reader.readexactly(int(length.group(1)))


if __name__ == "__main__":
    main()
