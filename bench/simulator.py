"""Whether the simulator tells the truth: predicted against measured latency and throughput of a real TorchServe.

`suffuse profile` measures the demo's bundle on critics' snippets. One worker of one thread then serves it and answers
snippets that come by chance (Poisson), each sent when it is due, at 30, 60 and 85 % of what it can do. The simulator
gets the same arrivals. Of a lone client, beforehand, is learned what the profile cannot know: how long the server's own
counters have a request with the worker, beyond the profile's time, is what handing over takes; what the client waits
beyond that is the overhead of network, Java and client.

The worker has one core of two for itself, and had it for the profile; Java, the sender and all else share the other.
Otherwise the sender, which a real service has elsewhere, would take time from the worker that no simulator knows of.
A round takes two minutes: the same arrivals, sent three times for 30 seconds at 60 % load, had a 99th percentile of
162, 253 and 272 ms, as one busy spell makes or breaks the slowest 21; sent twice for two minutes, 198 and 219 ms.

`make demo` must have run: it makes the bundle. An idle machine with two cores, 21 minutes.

    python bench/simulator.py [--rounds 3]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from claims import Claim, Goal, median_claim, write
from serving import BUNDLE, on_free_ports
from suffuse.autoscale.arrivals import Arrivals, FloatArray, poisson
from suffuse.autoscale.rules import Fixed
from suffuse.autoscale.scrape import server_counters
from suffuse.autoscale.service_time import Profile
from suffuse.autoscale.simulator import Stack, simulate
from suffuse.load_test import LoadConfig, LoadResult, Target, Users, run_load
from suffuse.serving.archive import ArchiveSettings, archive
from suffuse.serving.management import Management
from suffuse.serving.server import Server, ServerConfig
from traffic import snippets

COMMAND = "python bench/simulator.py"
LOADS = (0.3, 0.6, 0.85)
ROUNDS = 3
SECONDS = 120.0
ALONE_S = 10.0
FULL_S = 30.0
ROWS = 512  # as many as a profile reads of a file
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


@dataclass(frozen=True)
class Served:
    """The bundle on a server."""

    target: Target
    rows: Path
    metrics_url: str

    def loaded(self, load: Users | Arrivals) -> LoadResult:
        """What came of a load.

        Raises:
            RuntimeError: a request failed; a bench does not count failures as answers.
        """
        result = run_load(LoadConfig(self.target, load, self.rows))
        if result.answered < len(result):
            raise RuntimeError(f"{len(result) - result.answered} of {len(result)} requests failed: {result.examples}")
        return result

    def alone(self) -> tuple[float, float]:
        """What a lone client waits, and how long its request is with the worker, in seconds, in the mean."""
        with httpx.Client(trust_env=False) as http:
            before = server_counters(http, self.metrics_url, self.target.model)
            waits_s = self.loaded(Users(1, ALONE_S)).latency_s
            after = server_counters(http, self.metrics_url, self.target.model)
        return float(waits_s.mean()), (after.in_hand_s - before.in_hand_s) / (after.arrived - before.arrived)


def main() -> None:
    """Profile, serve, measure and predict, write the claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    settings = ArchiveSettings(workers=1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in snippets(ROWS)), "utf-8")
        of_worker, of_others = two_cores()
        os.sched_setaffinity(0, {of_worker})
        profile = profiled(rows, folder / "profile.json")
        os.sched_setaffinity(0, {of_others})  # what is started from now on has it from here
        archive(BUNDLE, folder, settings)
        served = stack.enter_context(serving(folder, of_worker, rows))
        served.loaded(Users(1, ALONE_S))  # warm
        simulated = simulated_stack(profile, settings, *served.alone())
        full_per_s = served.loaded(Users(CLIENTS_AT_FULL_LOAD, FULL_S)).rate
        print(
            f"the profile's error is {profile.error:.1%}; handing over takes {simulated.handover_s * 1000:.1f} ms, "
            f"{simulated.overhead_s * 1000:.1f} ms are overhead; at most {full_per_s:.1f} answers a second",
            file=sys.stderr,
        )
        claims = [
            claim for load in LOADS for claim in compared(load, load * full_per_s, (simulated, profile), served, rounds)
        ]
    write("simulator", claims)


def two_cores() -> tuple[int, int]:
    """The worker's and that of all others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit(f"got {len(cores)} core; expected two: one for the worker, one for all else")
    return cores[1], cores[0]


def profiled(rows: Path, output: Path) -> Profile:
    """What `suffuse profile` says, on the core that this process has now."""
    command = [
        sys.executable,
        "-m",
        "suffuse.cli",
        "profile",
        str(BUNDLE),
        "--rows",
        str(rows),
        "--output",
        str(output),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Profile.open(output)


@contextlib.contextmanager
def serving(store: Path, core: int, rows: Path) -> Iterator[Served]:
    """One worker of one thread, on a core of its own."""
    config = ServerConfig(
        store,
        (BUNDLE.name,),
        workers=1,
        threads=1,
        authorization=False,
        state=store / "state",
    )
    with Server(on_free_ports(config)) as server:
        with Management(server.management_url) as management:
            (worker,) = management.describe(BUNDLE.name).workers
        for thread in Path(f"/proc/{worker.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        yield Served(Target(server.url, BUNDLE.name), rows, server.metrics_url)


def simulated_stack(profile: Profile, settings: ArchiveSettings, waits_s: float, with_worker_s: float) -> Stack:
    """The server as the simulator knows it, from what a lone client waits and how long the worker has its request."""
    delay_s = settings.max_batch_delay_ms / 1000
    alone_s = float(np.mean([profile.service.seconds([length]) for length in profile.lengths]))
    return Stack(
        profile.service,
        batch_size=settings.batch_size,
        max_batch_delay_s=delay_s,
        queue_limit=1000,
        overhead_s=max(0.0, waits_s - with_worker_s - delay_s),
        handover_s=max(0.0, with_worker_s - alone_s),
    )


def compared(
    load: float, rate_per_s: float, simulated: tuple[Stack, Profile], served: Served, rounds: int
) -> Iterator[Claim]:
    """Send and simulate the same arrivals several times and yield the claims of one load."""
    stack, profile = simulated
    measured: list[Figures] = []
    predicted: list[Figures] = []
    for number in range(rounds):
        arrivals = poisson(rate_per_s, SECONDS, profile.lengths, seed=number)
        result = served.loaded(arrivals)
        measured.append(figures(result.start_s, result.latency_s))
        predicted.append(prediction(arrivals, stack))
        fault = result.generator_fault(measured[-1].p99_s) or ""
        print(
            f"load {load:.0%}, round {number}: measured {measured[-1]}, predicted {predicted[-1]} {fault}",
            file=sys.stderr,
        )
    where = f"at {load:.0%} load, one worker of one thread"
    for what, name in (("99th percentile of latency", "p99_s"), ("answers a second", "rate_per_s")):
        ratios = np.array([getattr(p, name) / getattr(m, name) for p, m in zip(predicted, measured, strict=True)])
        error = f"error of the predicted {what} (|predicted / measured - 1|), {where}"
        yield median_claim(error, abs(ratios - 1), "share", COMMAND, Goal(LARGEST_ERROR, is_upper=True))
        yield median_claim(f"{what}, predicted over measured, {where}", ratios, "ratio", COMMAND)


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


if __name__ == "__main__":
    main()
