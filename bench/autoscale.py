"""What scaling by suffuse keeps and costs on a real stack, beside fixed numbers of workers and two rules of Kubernetes.

One TorchServe behind HAProxy, as `suffuse serve --instances 1` starts them, serves a model that takes 40 ms a request
and no processor (bench/slow_handler.py), so that two cores suffice for 6 workers. Requests come by chance, each sent
when it is due; the goal is that 99 of 100 are answered within 500 ms, second by second. Two loads:

- step: 5 requests a second, at once 50, and back. What comes between the first worker's being asked for and its being
  ready is not counted against a rule: nobody could foresee it.
- trace: the rates of a real hour (data/traces), smoothed, in two minutes, its peak set to 75 requests a second. All is
  counted. It is left out, with a word, where the file is absent.

The rules: `suffuse autoscale` in a process of its own; a Kubernetes HPA on processor use and one on the queue as KEDA
has it, with their own pace of 15 s (suffuse.autoscale.rules), by the same controller; always 1 worker (under the step
alone: the trace would only overload it all the time), always 6, and always the fewest that meet the goal. Those are
found by simulation and then measured; one fewer would be busy for all of its time or more. Workers that start are paid
for as well.

    python bench/autoscale.py [--scenarios step trace] [--rules suffuse cheapest one max cpu queue] [--draw]

What is not run keeps its claims. `--draw` only draws docs/autoscaling.svg anew. An idle machine, 25 minutes.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from autoscale_picture import draw
from autoscale_trials import (
    CHEAPEST,
    CPU,
    DURATION_S,
    GOAL_S,
    MAX,
    MODEL,
    MOST,
    ONE,
    QUEUE,
    RULES,
    SCENARIOS,
    SERVICE_MS,
    SUFFUSE,
    TIMEOUT_S,
    Scenario,
    Trial,
    run_trial,
    step_scenario,
    trace_scenario,
)
from claims import ROOT, Claim, Goal, earlier, median_claim, resampled_claim, write
from slow_handler import slow_archive
from suffuse.balancing.config import Limits
from suffuse.balancing.instances import in_flight
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.serving.settings import ServerConfig
from traffic import snippets

COMMAND = "python bench/autoscale.py"
TRACE = ROOT / "data" / "traces" / "azure-conversation-2023.csv"
TRIALS = ROOT / "runs" / "bench-autoscale"
PICTURE = ROOT / "docs" / "autoscaling.svg"
PORT = 27080
ROWS = 2000
RESAMPLES = 2000
NAMES = {
    SUFFUSE: "suffuse autoscale",
    CPU: "HPA on processor use",
    QUEUE: "HPA on the queue, as KEDA",
    ONE: "always 1 worker",
    MAX: f"always {MOST} workers",
}
SHARE, LOST, COST = Goal(0.99, is_upper=False), Goal(0, is_upper=True), Goal(1.15, is_upper=True)


def main() -> None:
    """Run the trials, write the claims, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        claims = earlier("autoscale")
        claims |= {claim.claim: claim for claim in measured(options.scenarios, options.rules)}
        write("autoscale", list(claims.values()))
    trials = [Trial.open(path) for path in TRIALS.glob("*.npz")]
    draw([trial for name in SCENARIOS for trial in trials if trial.scenario == name], PICTURE)


def measured(scenarios: Sequence[str], rules: Sequence[str]) -> Iterator[Claim]:
    """Run each rule under each load on one stack, and yield the claims."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        rows = scratch / "rows.jsonl"
        texts = (f"row{number} {text}" for number, text in enumerate(snippets(ROWS)))
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        with Stack(stack_config(scratch)) as stack:
            for scenario, rule in planned(scenarios, rules):
                trial = run_trial(scenario, rule, stack, rows, TRIALS)
                trial.save(TRIALS)
                yield from claims_of(trial, scenario)


def planned(scenarios: Sequence[str], rules: Sequence[str]) -> Iterator[tuple[Scenario, str]]:
    """What is to be run."""
    if "step" in scenarios:
        yield from ((step_scenario(), rule) for rule in rules)
    if "trace" not in scenarios:
        return
    if not TRACE.is_file():
        print(f"the trace is left out: {TRACE.relative_to(ROOT)} is absent", file=sys.stderr)
        return
    yield from ((trace_scenario(TRACE), rule) for rule in rules if rule != ONE)


def stack_config(scratch: Path) -> StackConfig:
    """One instance, with the limits that `suffuse serve` sets."""
    store = scratch / "store"
    slow_archive(store, MODEL, service_ms=SERVICE_MS)
    server = ServerConfig(store, (MODEL,), config=ROOT / "config.properties", threads=1)
    limits = Limits(in_flight=in_flight(server, MOST))
    return StackConfig(
        server,
        instances=1,
        port=PORT,
        metrics_port=PORT + 1,
        limits=limits,
        most_workers=MOST,
        state=scratch / "state",
    )


def claims_of(trial: Trial, scenario: Scenario) -> list[Claim]:
    """What is told of a trial; goals are for suffuse, the first also for the number that it is compared with."""
    name = (
        f"always {scenario.cheapest} workers, the fewest by simulation" if trial.rule == CHEAPEST else NAMES[trial.rule]
    )
    is_ours = trial.rule == SUFFUSE
    where = f"{scenario.title}: {name}"
    resampled = np.random.default_rng(0).choice(trial.in_goal, size=(RESAMPLES, len(trial.in_goal))).mean(axis=1)
    since_s, until_s = trial.excused_s
    cost = trial.worker_seconds / (scenario.cheapest * DURATION_S)
    print(
        f"{scenario.name}, {trial.rule}: {len(trial.start_s)} requests, excused {since_s:.1f} to {until_s:.1f} s, "
        f"{trial.worker_seconds:.0f} worker-seconds",
        file=sys.stderr,
    )
    return [
        resampled_claim(
            f"seconds whose 99th percentile is within {GOAL_S * 1000:g} ms, {where}",
            float(trial.in_goal.mean()),
            resampled,
            "share",
            COMMAND,
            SHARE if trial.rule in (SUFFUSE, CHEAPEST) else None,
        ),
        median_claim(f"requests that failed, {where}", [trial.failed], "requests", COMMAND, LOST if is_ours else None),
        median_claim(
            f"requests that were refused, {where}", [trial.refused], "requests", COMMAND, LOST if is_ours else None
        ),
        median_claim(
            f"worker-seconds over those of always {scenario.cheapest} workers, {where}",
            [cost],
            "ratio",
            COMMAND,
            COST if is_ours else None,
        ),
        *(
            median_claim(f"{share}th percentile of latency, {where}", [_ms(trial.percentile_s(share))], "ms", COMMAND)
            for share in (50, 99)
        ),
    ]


def _ms(seconds: float) -> float:
    """In milliseconds; what was never answered counts as the longest that a client waits."""
    return 1000 * min(seconds, TIMEOUT_S)


if __name__ == "__main__":
    main()
