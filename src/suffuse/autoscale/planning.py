"""Every rule on the same load: what each costs and whether it keeps the goal."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from random import Random

import numpy as np
from rich.table import Table

from suffuse.autoscale.arrivals import Arrivals, IntArray
from suffuse.autoscale.policy import GOAL_SHARE, Policy, Rule
from suffuse.autoscale.rules import CpuRule, Fixed, QueueLengthRule
from suffuse.autoscale.simulator import Outcome, Stack, simulate

POLICY, CPU, QUEUE = "suffuse", "CPU rule (HPA)", "queue rule (KEDA)"


@dataclass(frozen=True)
class Scenario:
    """What is asked.

    Args:
        arrivals: the load.
        stack: the server.
        policy: the rule of suffuse; its goal and bounds hold for all.
        window_s: the goal is to be kept in windows of this length.
        seed: of service and start-up times.
    """

    arrivals: Arrivals
    stack: Stack
    policy: Policy
    window_s: float = 10.0
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One rule on the load.

    Args:
        name: of the rule.
        outcome: what came of it.
        share_in_goal: of the windows of time, those whose 99th percentile kept the goal.
        meets: whether 99 of 100 requests and 99 of 100 windows kept it; a refused request does not.
    """

    name: str
    outcome: Outcome
    share_in_goal: float
    meets: bool

    @property
    def worker_hours(self) -> float:
        """What it cost."""
        return self.outcome.worker_seconds / 3600

    def as_json(self) -> dict[str, object]:
        """Its figures; a percentile among refused requests is None."""
        return {
            "strategy": self.name,
            "p50_ms": _finite(self.outcome.quantile_s(0.5) * 1000),
            "p99_ms": _finite(self.outcome.quantile_s(0.99) * 1000),
            "share_in_goal": round(self.share_in_goal, 4),
            "refused": self.outcome.refused,
            "worker_hours": round(self.worker_hours, 4),
            "most_workers": int(self.outcome.ready.max()),
            "meets_goal": self.meets,
        }


@dataclass(frozen=True)
class Plan:
    """What `suffuse plan` tells.

    Args:
        scenario: what was asked.
        trials: by name of the rule: the policy, its rivals, fixed numbers in ascending order.
        cheapest: the fewest workers, always there, that meet the goal; None: not even the most allowed do.
    """

    scenario: Scenario
    trials: dict[str, Trial]
    cheapest: int | None

    def as_json(self) -> dict[str, object]:
        """All figures."""
        arrivals = self.scenario.arrivals
        return {
            "goal_p99_ms": self.scenario.policy.goal_p99_s * 1000,
            "requests": len(arrivals),
            "duration_s": round(arrivals.duration_s, 3),
            "rate_per_s": round(arrivals.rate_per_s, 3),
            "cheapest_fixed": self.cheapest,
            "strategies": [trial.as_json() for trial in self.trials.values()],
        }

    def table(self) -> Table:
        """The same for people."""
        table = Table(title=self._title(), caption=self.verdict(), title_justify="left", caption_justify="left")
        table.add_column("strategy", no_wrap=True)
        for name in ("p50 ms", "p99 ms", "in goal", "refused", "worker-hours", "most", "meets goal"):
            table.add_column(name, justify="right")
        for trial in self.trials.values():
            p50, p99 = (_milliseconds(trial.outcome.quantile_s(share)) for share in (0.5, 0.99))
            table.add_row(
                trial.name,
                p50,
                p99,
                f"{trial.share_in_goal:.1%}",
                f"{trial.outcome.refused:,}",
                f"{trial.worker_hours:.3f}",
                str(trial.outcome.ready.max()),
                "yes" if trial.meets else "no",
                style="bold" if trial.name == POLICY else "",
            )
        return table

    def verdict(self) -> str:
        """Which fixed number is the cheapest, and what the policy costs beside it."""
        if self.cheapest is None:
            most = _count(self.scenario.policy.max_workers)
            return f"No fixed number up to {most} meets the goal.{self._hint()}"
        ratio = self.trials[POLICY].worker_hours / self.trials[fixed_name(self.cheapest)].worker_hours
        return (
            f"The cheapest fixed number that meets the goal is {_count(self.cheapest)}; "
            f"suffuse takes {ratio:.2f} x its worker-hours."
        )

    def _hint(self) -> str:
        """Why more workers may not help."""
        stack, goal_s = self.scenario.stack, self.scenario.policy.goal_p99_s
        tokens = self.scenario.arrivals.tokens
        for what, batch in (
            (f"A request of {_long(tokens)} tokens, which 1 in 100 passes,", [_long(tokens)]),
            (f"A full batch of {stack.batch_size} requests of usual length", [_usual(tokens)] * stack.batch_size),
        ):
            seconds = stack.overhead_s + stack.service.draw(batch, Random(self.scenario.seed))
            if seconds > goal_s:
                return f" {what} takes {seconds * 1000:,.0f} ms by itself."
        return ""

    def _title(self) -> str:
        arrivals, goal_ms = self.scenario.arrivals, self.scenario.policy.goal_p99_s * 1000
        return (
            f"{len(arrivals):,} requests in {arrivals.duration_s:,.0f} s, {arrivals.rate_per_s:.1f} a second; "
            f"goal: p99 within {goal_ms:g} ms"
        )


def make_plan(scenario: Scenario, note: Callable[[str], object] = lambda _: None) -> Plan:
    """Try the policy, its rivals, and fixed numbers up to the fewest that meet the goal, and the most allowed.

    Args:
        scenario: what is asked.
        note: told which rule is tried.
    """
    low, high = scenario.policy.min_workers, scenario.policy.max_workers
    rules: dict[str, Rule] = {
        POLICY: scenario.policy,
        CPU: CpuRule(low, high),
        QUEUE: QueueLengthRule(low, high),
    }
    trials: dict[str, Trial] = {}
    for name, rule in rules.items():
        note(name)
        trials[name] = _trial(scenario, name, rule)
    cheapest = None
    for workers in range(1, high + 1):
        if cheapest is None or workers == high:
            name = fixed_name(workers)
            note(name)
            trials[name] = _trial(scenario, name, Fixed(workers))
            if cheapest is None and trials[name].meets:
                cheapest = workers
    return Plan(scenario, trials, cheapest)


def fixed_name(workers: int) -> str:
    """What a fixed number of workers is called in a plan."""
    return f"fixed {workers}"


def _trial(scenario: Scenario, name: str, rule: Rule) -> Trial:
    outcome = simulate(scenario.arrivals, scenario.stack, rule, seed=scenario.seed)
    goal_s = scenario.policy.goal_p99_s
    share = outcome.share_within(goal_s, scenario.window_s)
    return Trial(name, outcome, share, share >= GOAL_SHARE and outcome.quantile_s(GOAL_SHARE) <= goal_s)


def _long(tokens: IntArray) -> int:
    return int(np.quantile(tokens, GOAL_SHARE, method="higher"))


def _usual(tokens: IntArray) -> int:
    return int(np.median(tokens))


def _count(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _finite(value: float) -> float | None:
    return round(value, 3) if isfinite(value) else None


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}" if isfinite(seconds) else "refused"
