"""Loads and rules for bench/autoscale.py, and one rule under one load on a running stack."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suffuse.autoscale.arrivals import Arrivals, FloatArray, read_trace
from suffuse.autoscale.beside import AutoscalerProcess
from suffuse.autoscale.controller import Controller
from suffuse.autoscale.log import DecisionLog
from suffuse.autoscale.meter import MeasuredTime
from suffuse.autoscale.policy import Rule
from suffuse.autoscale.rules import CpuRule, Fixed, QueueLengthRule
from suffuse.autoscale.signals import BalancerSource, Probe, endpoints
from suffuse.autoscale.simulator import Stack as SimulatedStack
from suffuse.autoscale.simulator import simulate
from suffuse.balancing.stack import Stack
from suffuse.load_test import LoadConfig, Target, run_load
from suffuse.serving.management import Management

MODEL = "slow"
SERVICE_MS = 40.0
GOAL_S = 0.5
LEAST, MOST = 1, 6
FIRST = 2
"""Workers at the start of a rule that scales."""
LEAD_S = 10.0
"""The load begins so long before anything counts, at its first rate: a rule shall not be measured while it starts."""
DURATION_S = 120.0
STEP_PER_S = (5.0, 50.0)
PEAK_PER_S = 75.0
"""Of the trace: it keeps four workers busy for 80 % of their time."""
BINS, SMOOTHED_BINS = 60, 9
"""Of constant rate, and how many of a trace are averaged."""
OVERHEAD_S, HANDING_OVER_S = 0.006, 0.003
"""Of a request on this stack, and of a worker for each batch: for the simulation that finds the cheapest number."""
SAMPLE_S = 0.25
TIMEOUT_S = 30.0
"""Of a request."""
SUFFUSE, CPU, QUEUE, ONE, CHEAPEST, MAX = "suffuse", "cpu", "queue", "one", "cheapest", "max"
RULES = (SUFFUSE, CHEAPEST, ONE, MAX, CPU, QUEUE)
SCENARIOS = ("step", "trace")


@dataclass(frozen=True)
class Scenario:
    """A load.

    Args:
        name: one of `SCENARIOS`.
        title: what it is, in words.
        arrivals: the lead-in, then `DURATION_S` that count.
        rises_at_s: when a step comes, which nobody could foresee; None: nothing is excused.
    """

    name: str
    title: str
    arrivals: Arrivals
    rises_at_s: float | None = None

    @property
    def cheapest(self) -> int:
        """The fewest workers, always there, that meet the goal in a simulation."""
        stack = SimulatedStack(
            _Constant(SERVICE_MS / 1000 + HANDING_OVER_S), batch_size=1, overhead_s=OVERHEAD_S, max_batch_delay_s=0.001
        )
        for workers in range(LEAST, MOST):
            outcome = simulate(self.arrivals, stack, Fixed(workers))
            if share_in_goal(outcome.times_s - LEAD_S, outcome.latencies_s).mean() >= 0.99:
                return workers
        return MOST


@dataclass(frozen=True)
class _Constant:
    seconds: float

    def draw(self, tokens: object, random: object) -> float:  # noqa: ARG002 - of Service
        return self.seconds


@dataclass(frozen=True, eq=False)
class Trial:
    """What came of a rule under a load; times are in seconds from when it counts.

    Args:
        scenario: its name.
        rule: one of `RULES`.
        start_s: when each request was due, (R,).
        waits_s: from there to its answer; infinite where it was refused or failed, (R,).
        failed: requests that were neither answered rightly nor refused.
        refused: requests that were refused.
        sampled_s: when workers were counted, (S,).
        ready: workers that took requests, (S,).
        paid: the same and those that started, (S,).
        rises_at_s: as in `Scenario`.
    """

    scenario: str
    rule: str
    start_s: FloatArray
    waits_s: FloatArray
    failed: int
    refused: int
    sampled_s: FloatArray
    ready: FloatArray
    paid: FloatArray
    rises_at_s: float

    @property
    def worker_seconds(self) -> float:
        """Of workers that are there or start, while it counts."""
        edges = np.clip(np.append(self.sampled_s, DURATION_S), 0.0, DURATION_S)
        return float((self.paid * np.diff(edges)).sum())

    @property
    def excused_s(self) -> tuple[float, float]:
        """From when more workers were asked for after the step until the first of them is ready; (0, 0) without."""
        after = self.sampled_s >= self.rises_at_s
        before = self.ready[~after][-1] if not after.all() else self.ready[0]
        asked = self.sampled_s[after & (self.paid > before)]
        came = self.sampled_s[after & (self.ready > before)]
        return (float(asked[0]), float(came[0])) if len(asked) and len(came) else (0.0, 0.0)

    @property
    def in_goal(self) -> FloatArray:
        """1 or 0 for each second with requests, the excused ones aside."""
        since_s, until_s = self.excused_s
        counted = (self.start_s < since_s) | (self.start_s >= until_s)
        return share_in_goal(self.start_s[counted], self.waits_s[counted])

    def percentile_s(self, q: float) -> float:
        """Of the waits of all requests while it counts."""
        return float(np.percentile(self.waits_s[self.start_s >= 0], q, method="inverted_cdf"))

    def save(self, folder: Path) -> None:
        """Write FOLDER/SCENARIO-RULE.npz, for the picture."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{self.scenario}-{self.rule}.npz", **vars(self))

    @classmethod
    def open(cls, path: Path) -> "Trial":
        """What `save` wrote."""
        with np.load(path) as file:
            return cls(**{name: file[name] if file[name].ndim else file[name].item() for name in file.files})


def share_in_goal(start_s: FloatArray, waits_s: FloatArray) -> FloatArray:
    """For each second from 0 on in which requests came, whether 99 of 100 of them kept the goal: 1 or 0, (W,)."""
    seconds = np.floor(start_s)
    of_second = [waits_s[seconds == second] for second in np.unique(seconds[seconds >= 0])]
    p99_s = np.array([np.percentile(waits, 99, method="inverted_cdf") for waits in of_second])
    return (p99_s <= GOAL_S).astype(np.float64)


def step_scenario() -> Scenario:
    """A third of the time low, a third ten times as high, and back."""
    low, high = STEP_PER_S
    title = f"a step from {low:g} to {high:g} requests a second and back"
    return Scenario("step", title, drawn(np.repeat([low, high, low], BINS // 3)), DURATION_S / 3)


def trace_scenario(path: Path) -> Scenario:
    """The rates of a trace, smoothed, its clock sped up to `DURATION_S`, its peak set to `PEAK_PER_S`."""
    trace = read_trace(path)
    trace = trace.faster(trace.duration_s / DURATION_S)
    counts, _ = np.histogram(trace.times_s, BINS, range=(0.0, DURATION_S))
    padded = np.pad(counts.astype(np.float64), SMOOTHED_BINS // 2, mode="edge")
    smooth = np.convolve(padded, np.full(SMOOTHED_BINS, 1 / SMOOTHED_BINS), "valid")
    rates = smooth / smooth.max() * PEAK_PER_S
    title = f"the swing of a trace, from {rates.min():.0f} to {rates.max():.0f} requests a second"
    return Scenario("trace", title, drawn(rates))


def drawn(rates_per_s: FloatArray, seed: int = 0) -> Arrivals:
    """A Poisson process with these rates one after the other, and the lead-in before."""
    random = np.random.default_rng(seed)
    width_s = DURATION_S / len(rates_per_s)
    edges_s = np.append(0.0, LEAD_S + width_s * np.arange(len(rates_per_s) + 1))
    counts = random.poisson(np.append(rates_per_s[0], rates_per_s) * np.diff(edges_s))
    times_s = np.sort(random.uniform(np.repeat(edges_s[:-1], counts), np.repeat(edges_s[1:], counts)))
    return Arrivals(times_s, np.ones(len(times_s), dtype=np.int64), LEAD_S + DURATION_S)


def run_trial(scenario: Scenario, rule: str, stack: Stack, rows: Path, logs: Path) -> Trial:
    """Let a rule scale the stack's workers while the load runs.

    Args:
        scenario: the load.
        rule: one of `RULES`.
        stack: runs, with one instance.
        rows: a file of them.
        logs: a folder for the decisions.
    """
    log = logs / f"{scenario.name}-{rule}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    fixed = {ONE: LEAST, MAX: MOST, CHEAPEST: scenario.cheapest}.get(rule)
    server = stack.record.instances[0].management_url
    with Management(server) as management:
        set_workers(management, fixed or FIRST)
        with contextlib.ExitStack() as running:
            if fixed is None:
                running.enter_context(scaling(rule, server, stack.metrics_url, log))
            counted = running.enter_context(Counted(management))
            token = stack.token_file.read_text("utf-8").strip()
            result = run_load(
                LoadConfig(Target(stack.url, MODEL, token=token, timeout_s=TIMEOUT_S), scenario.arrivals, rows)
            )
    return Trial(
        scenario=scenario.name,
        rule=rule,
        start_s=result.start_s - LEAD_S,
        waits_s=result.waits_s,
        failed=result.failed,
        refused=result.refused,
        sampled_s=np.array(counted.times) - result.started_at - LEAD_S,
        ready=np.array(counted.ready, dtype=np.float64),
        paid=np.array(counted.paid, dtype=np.float64),
        rises_at_s=np.inf if scenario.rises_at_s is None else scenario.rises_at_s,
    )


def set_workers(management: Management, workers: int) -> None:
    """Have exactly so many, all ready."""
    management.scale(MODEL, workers)
    wait_until(lambda: [worker.ready for worker in management.describe(MODEL).workers] == [True] * workers)


def wait_until(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Ask again and again.

    Raises:
        RuntimeError: it does not hold after `limit_s` seconds.
    """
    deadline_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"what was waited for has not come in {limit_s:g} s")
        time.sleep(0.1)


@contextlib.contextmanager
def scaling(rule: str, server: str, balancer: str, log: Path) -> Iterator[None]:
    """A controller with this rule at work: for suffuse the one that users have, for a rival the same with its rule."""
    if rule == SUFFUSE:
        running: contextlib.AbstractContextManager[object] = AutoscalerProcess(
            [server], [], (LEAST, MOST), GOAL_S * 1000, log, options=("--balancer", balancer)
        )
    else:
        rival = CpuRule(LEAST, MOST) if rule == CPU else QueueLengthRule(LEAST, MOST)
        running = controlled_by(rival, server, balancer, log)
    with running:
        wait_until(log.is_file)
        yield


@contextlib.contextmanager
def controlled_by(rule: Rule, server: str, balancer: str, log: Path) -> Iterator[None]:
    """Suffuse's controller with another rule, in a thread."""
    stop = threading.Event()
    with (
        Probe(endpoints([server])[0], MODEL) as probe,
        BalancerSource([probe], balancer, MODEL) as source,
    ):
        controller = Controller(MODEL, source, MeasuredTime(), rule, {server: probe}, [DecisionLog(log).observe])
        thread = threading.Thread(target=controller.run, args=(stop,), name="controller")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Counted(threading.Thread):
    """Counts a server's workers while it is a context; times are in seconds since 1970."""

    def __init__(self, management: Management) -> None:
        super().__init__(name="counts workers")
        self._management = management
        self._over = threading.Event()
        self.times: list[float] = []
        self.ready: list[int] = []
        self.paid: list[int] = []

    def run(self) -> None:
        """Count; for `start`."""
        while not self._over.is_set():
            state = self._management.describe(MODEL)
            self.times.append(time.time())
            self.ready.append(state.ready_workers)
            self.paid.append(max(state.min_workers, len(state.workers)))
            self._over.wait(SAMPLE_S)

    def __enter__(self) -> "Counted":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
