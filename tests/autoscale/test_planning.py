"""A plan names the cheapest number of workers, and says of each rule what it costs."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from suffuse.autoscale.arrivals import Arrivals, poisson, swing
from suffuse.autoscale.planning import CPU, POLICY, QUEUE, Plan, Scenario, make_plan
from suffuse.autoscale.plot import draw
from suffuse.autoscale.policy import Policy
from suffuse.autoscale.simulator import Stack
from suffuse.errors import InputError


class Constant:
    """50 ms for each request."""

    def draw(self, tokens: Sequence[int], *_: object) -> float:
        return 0.05 * len(tokens)


STACK = Stack(Constant(), batch_size=2)
SWING = Scenario(swing(2, 60, 300, (32,)), STACK, Policy(1, 8, 0.4))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(SWING)


def test_cheapest_number_is_the_first_that_meets_the_goal(plan: Plan) -> None:
    fixed = {name: trial.meets for name, trial in plan.trials.items() if name.startswith("fixed")}

    # 60 a second at 50 ms are three busy workers.
    assert plan.cheapest == 4
    assert fixed == {"fixed 1": False, "fixed 2": False, "fixed 3": False, "fixed 4": True, "fixed 8": True}


def test_policy_keeps_the_goal_where_the_rules_do_not_for_fewer_worker_hours_than_a_fixed_number(plan: Plan) -> None:
    assert plan.trials[POLICY].meets
    assert not plan.trials[CPU].meets
    assert not plan.trials[QUEUE].meets
    assert plan.trials[POLICY].worker_hours < plan.trials["fixed 4"].worker_hours


def test_worker_hours_of_a_fixed_number_are_its_workers_times_the_time(plan: Plan) -> None:
    assert plan.trials["fixed 8"].worker_hours == pytest.approx(8 * 300 / 3600, rel=0.01)


def test_goal_is_not_met_where_most_requests_come_in_the_one_bad_window() -> None:
    times_s = np.sort(np.append(np.arange(200) * 10.0, np.full(60, 1000.0)))
    burst = Arrivals(times_s, np.full(len(times_s), 32), 2000.0)

    lone = make_plan(replace(SWING, arrivals=burst, policy=Policy(1, 1, 0.4))).trials["fixed 1"]

    assert lone.share_in_goal >= 0.99
    assert not lone.meets


def test_goal_below_the_service_time_has_no_number_and_says_why() -> None:
    plan = make_plan(replace(SWING, policy=Policy(1, 2, 0.04)))

    assert plan.cheapest is None
    assert plan.verdict() == (
        "No fixed number up to 2 workers meets the goal. "
        "A request of 32 tokens, which 1 in 100 passes, takes 53 ms by itself."
    )


def test_batch_that_takes_longer_than_the_goal_is_named() -> None:
    plan = make_plan(replace(SWING, policy=Policy(1, 2, 0.09)))

    assert plan.verdict() == (
        "No fixed number up to 2 workers meets the goal. "
        "A full batch of 2 requests of usual length takes 103 ms by itself."
    )


def test_json_has_every_rule_and_null_for_percentiles_among_the_refused() -> None:
    flood = replace(
        SWING, arrivals=poisson(200, 10, (32,)), policy=Policy(1, 1, 0.4), stack=replace(STACK, queue_limit=5)
    )

    content = json.loads(json.dumps(make_plan(flood).as_json(), allow_nan=False))

    assert content["cheapest_fixed"] is None
    assert [row["strategy"] for row in content["strategies"]] == [POLICY, CPU, QUEUE, "fixed 1"]
    assert content["strategies"][0]["p99_ms"] is None
    assert content["strategies"][0]["refused"] > 1000
    assert content["goal_p99_ms"] == 400


def test_table_shows_every_rule_and_the_verdict(plan: Plan) -> None:
    console = Console(file=StringIO(), width=100)

    console.print(plan.table())

    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert all(name in shown for name in plan.trials)
    assert "The cheapest fixed number that meets the goal is 4 workers" in shown


def test_picture_shows_the_goal_and_four_rules_and_is_always_the_same(plan: Plan, tmp_path: Path) -> None:
    draw(plan, tmp_path / "first.svg")
    draw(plan, tmp_path / "deep" / "second.svg")

    first = (tmp_path / "first.svg").read_text("utf-8")
    assert all(f"<!-- {name} -->" in first for name in (POLICY, CPU, QUEUE, "fixed 4", "goal 400 ms"))
    assert first == (tmp_path / "deep" / "second.svg").read_text("utf-8")


def test_picture_of_a_plan_without_an_answer_shows_the_most_workers(tmp_path: Path) -> None:
    draw(make_plan(replace(SWING, policy=Policy(1, 2, 0.04))), tmp_path / "plan.svg")

    assert "<!-- fixed 2 -->" in (tmp_path / "plan.svg").read_text("utf-8")


def test_picture_of_an_unknown_kind_is_refused(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.doc"
    message = f"{path}: the name of a picture ends in .svg, .png, .pdf; got '.doc'"

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        draw(plan, path)
