"""The rivals do what their documentation says."""

import re

import pytest

from suffuse.autoscale.policy import Decision, Memory, Rule, Signals
from suffuse.autoscale.rules import CpuRule, Fixed, QueueLengthRule
from suffuse.errors import InputError


def busy(load: float, ready: int, backlog: int = 0, in_flight: int = 0) -> Signals:
    return Signals(load * 10, 0.1, backlog, in_flight, ready, 0)


def follow(rule: Rule, signals: Signals, memory: Memory, start_s: int, seconds: int) -> tuple[list[int], Memory]:
    wished = []
    for second in range(start_s, start_s + seconds):
        decision, memory = rule.decide(signals, memory, float(second))
        wished.append(decision.workers)
    return wished, memory


def test_fixed_number_is_fixed() -> None:
    assert Fixed(3).decide(busy(99, 1), Memory(), 0.0) == (Decision(3, "fixed"), Memory())


def test_fixed_number_below_one_is_refused() -> None:
    with pytest.raises(InputError, match=f"^{re.escape('workers is 0; expected at least 1')}$"):
        Fixed(0)


def test_cpu_rule_decides_every_fifteen_seconds() -> None:
    # Two of four workers busy at a target of half: no change; three and a half: seven.
    rule = CpuRule(1, 20, target_utilization=0.5)

    wished, _ = follow(rule, busy(3.5, 4), Memory(), 0, 16)

    assert wished == [4] * 15 + [7]


def test_cpu_rule_ignores_a_tenth_around_its_target() -> None:
    rule = CpuRule(1, 20, target_utilization=0.5)

    assert set(follow(rule, busy(2.15, 4), Memory(), 0, 40)[0]) == {4}
    assert max(follow(rule, busy(2.25, 4), Memory(), 0, 40)[0]) == 5


def test_cpu_rule_cannot_see_more_than_all_workers_busy() -> None:
    rule = CpuRule(1, 50, target_utilization=0.5)

    wished, _ = follow(rule, busy(30, 4, backlog=500), Memory(), 0, 16)

    assert wished[-1] == 8


def test_cpu_rule_goes_down_when_the_whole_window_wishes_less() -> None:
    rule = CpuRule(1, 20, target_utilization=0.5)
    _, memory = follow(rule, busy(5, 10), Memory(), 0, 16)

    wished, _ = follow(rule, busy(1, 10), memory, 16, 340)

    assert wished[200] == 10
    assert wished[-1] == 2


def test_hpa_at_most_doubles_or_adds_four_at_a_time() -> None:
    rule = QueueLengthRule(1, 100, target_per_worker=1)

    few, _ = follow(rule, busy(1, 1, backlog=90), Memory(), 0, 16)
    many, _ = follow(rule, busy(1, 10, backlog=90), Memory(), 0, 16)

    assert (few[-1], many[-1]) == (5, 20)


def test_queue_rule_counts_requests_that_wait_and_those_in_hand() -> None:
    rule = QueueLengthRule(1, 20, target_per_worker=4)

    wished, _ = follow(rule, busy(1, 4, backlog=18, in_flight=6), Memory(), 0, 16)

    assert wished[-1] == 6


def test_rules_keep_their_bounds_and_ignore_what_is_no_measurement() -> None:
    nothing = Signals(float("nan"), 0.1, 0, 0, 3, 0)

    assert set(follow(CpuRule(2, 6), nothing, Memory(workers=3), 0, 40)[0]) == {3}
    assert set(follow(QueueLengthRule(2, 6), busy(0, 2), Memory(), 0, 400)[0]) == {2}
    assert max(follow(QueueLengthRule(2, 6), busy(0, 5, backlog=10**6), Memory(), 0, 100)[0]) == 6
