"""Three times as many requests as two instances can take, for a minute, at times that do not heed the answers.

Those that are accepted must be answered soon, the others refused at once and told when to come again; memory must not
grow, and nothing may end. The limits of the balancer come of the goal: in all as many requests as are answered within
it may be with an instance or wait, half of them over REST and half over gRPC, since those are counted apart.

    python bench/overload.py
"""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

from claims import RESAMPLES, Claim, Goal, resampled_claim, write
from slow_handler import slow_archive
from steady_load import load_on, lost_claim, p99_claim, write_rows
from suffuse.balancing.config import Limits
from suffuse.balancing.record import StackRecord
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.load_test import LoadResult, run_load
from suffuse.serving.settings import ServerConfig

COMMAND = "python bench/overload.py"
MODEL = "slow"
SERVICE_MS = 50.0
GOAL_MS = 500.0
REFUSED_WITHIN_MS = 100.0
INSTANCES = 2
CAPACITY_PER_S = INSTANCES * 1000 / SERVICE_MS
OVERLOAD = 3
SECONDS = 60.0
IN_FLIGHT = 2
"""Requests of one transport that an instance has: one in work, one that follows without a pause."""

PORT = 26080
WINDOW_S = 10.0
SAMPLE_S = 0.5


@dataclass
class Samples:
    """What was seen beside the load; lists grow as it goes on.

    Args:
        times_s: when memory was read, seconds since 1970.
        resident_bytes: of all processes of the stack together, at those times.
        replies: to requests of our own that were refused.
    """

    times_s: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    replies: list[httpx.Response] = field(default_factory=list)


def main() -> None:
    """Start the stack, overload it, write the claims."""
    backlog = round(GOAL_MS / 1000 * CAPACITY_PER_S / 2)
    limits = Limits(in_flight=IN_FLIGHT, queue=backlog - INSTANCES * IN_FLIGHT)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        slow_archive(folder / "store", MODEL, service_ms=SERVICE_MS)
        server = ServerConfig(folder / "store")
        config = StackConfig(server, INSTANCES, port=PORT, metrics_port=PORT + 2, limits=limits, state=folder / "state")
        with Stack(config) as stack:
            processes = psutil.Process().children(recursive=True)
            load, samples = overload(stack.record, folder, processes)
            ended = sum(not process.is_running() for process in processes)
    for kind, examples in load.examples.items():
        print(f"{kind}: {'; '.join(examples)}", file=sys.stderr)
    write("overload", [*claims_of_requests(load), *claims_of_stack(load, samples, ended)])


def overload(record: StackRecord, folder: Path, processes: list[psutil.Process]) -> tuple[LoadResult, Samples]:
    """Make the load, and look at the stack meanwhile."""
    config = load_on(record, write_rows(folder, 200), OVERLOAD * CAPACITY_PER_S, SECONDS)
    samples, over = Samples(), threading.Event()
    watch = threading.Thread(target=_watch, args=(record, config.target.token, processes, samples, over))
    watch.start()
    try:
        return run_load(config), samples
    finally:
        over.set()
        watch.join()


def claims_of_requests(load: LoadResult) -> Iterator[Claim]:
    """How soon they were answered or refused."""
    what = f"{OVERLOAD} times the load that {INSTANCES} instances can take, for {SECONDS:g} s"
    accepted_s = load.latency_s[load.outcome == "ok"]
    name = f"p99 of accepted requests, goal {GOAL_MS:g} ms: {what}"
    yield p99_claim(name, accepted_s, COMMAND, Goal(2 * GOAL_MS, is_upper=True))
    for transport, refusal in (("rest", "429"), ("grpc", "RESOURCE_EXHAUSTED")):
        of = load.of(transport)
        refused_s = of.latency_s[of.outcome == "refused"]
        name = f"p99 of the time to a refusal ({refusal}): {what}"
        yield p99_claim(name, refused_s, COMMAND, Goal(REFUSED_WITHIN_MS, is_upper=True))
    name = f"requests neither answered nor refused: {what}"
    yield lost_claim(name, load.failed, load, COMMAND, Goal(0, is_upper=True))
    rates = np.random.default_rng(0).poisson(load.answered, RESAMPLES) / load.duration_s / CAPACITY_PER_S
    name = f"answers a second over the most that there can be: {what}"
    yield resampled_claim(name, load.rate / CAPACITY_PER_S, rates, "ratio", COMMAND)


def claims_of_stack(load: LoadResult, samples: Samples, ended: int) -> Iterator[Claim]:
    """What the load did to the stack, and what refusals said."""
    what = f"{OVERLOAD} times the load"
    told = np.array(["retry-after" in reply.headers for reply in samples.replies], dtype=np.float64)
    if len(told) == 0:
        raise RuntimeError("none of our own requests was refused; the stack was not overloaded")
    all_of_them = Goal(1, is_upper=False)
    name = f"refusals over REST that say Retry-After: {what}"
    share = float(told.mean())
    yield resampled_claim(name, share, [share], f"share of {len(told)}", COMMAND, all_of_them)
    times_s = np.array(samples.times_s) - load.started_at
    resident_bytes = np.array(samples.resident_bytes, dtype=np.float64)
    early = resident_bytes[(times_s >= WINDOW_S) & (times_s < 2 * WINDOW_S)]
    late = resident_bytes[(times_s >= SECONDS - WINDOW_S) & (times_s < SECONDS)]
    draw = np.random.default_rng(0)
    resampled = [
        np.median(draw.choice(late, len(late))) / np.median(draw.choice(early, len(early))) for _ in range(RESAMPLES)
    ]
    ratio = float(np.median(late) / np.median(early))
    name = f"resident memory of the stack, last 10 s over the second 10 s: {what}"
    yield resampled_claim(name, ratio, resampled, "ratio", COMMAND, Goal(1.05, is_upper=True))
    none = Goal(0, is_upper=True)
    yield resampled_claim(f"processes that ended: {what}", ended, [ended], "processes", COMMAND, none)


def _watch(
    record: StackRecord, token: str | None, processes: list[psutil.Process], samples: Samples, over: threading.Event
) -> None:
    """Twice a second, read the memory and send a request of our own."""
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=record.url, headers=headers, trust_env=False, timeout=10) as client:
        while not over.wait(SAMPLE_S):
            samples.times_s.append(time.time())
            samples.resident_bytes.append(sum(map(_resident_bytes, processes)))
            reply = client.post(f"/predictions/{MODEL}", json={"text": "row-0"})
            if reply.is_error:
                samples.replies.append(reply)


def _resident_bytes(process: psutil.Process) -> int:
    """Nothing where it has ended, which is counted elsewhere."""
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


if __name__ == "__main__":
    main()
