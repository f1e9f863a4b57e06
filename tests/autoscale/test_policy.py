"""What the policy promises, for any signals and any memory, and the steps it takes for chosen ones."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.autoscale.policy import Decision, Memory, Policy, Signals
from suffuse.errors import InputError

POLICY = Policy(min_workers=2, max_workers=12, goal_p99_s=0.5)
IDLE = Signals(0.0, 0.04, 0, 0, ready=2, starting=0)
BUSY = Signals(60.0, 0.04, 0, 3, ready=4, starting=0)

any_number = st.floats(allow_nan=True, allow_infinity=True)
any_count = st.integers(-(10**9), 10**9)
any_signals = st.builds(Signals, any_number, any_number, any_number, any_number, any_count, any_count)
rates = st.floats(0, 500)
services = st.floats(0, 2)
backlogs = st.integers(0, 500)
counts = st.integers(0, 20)
some_signals = st.builds(Signals, rates, services, backlogs, backlogs, counts, counts)
times = st.none() | st.floats(-1e6, 1e6)
memories = st.builds(
    Memory, workers=st.none() | any_count, low_since_s=times, low_peak=st.integers(-50, 50), asked_at_s=times
)
policies = st.builds(
    Policy,
    min_workers=st.integers(1, 5),
    max_workers=st.integers(5, 40),
    goal_p99_s=st.floats(0.01, 5),
    utilization=st.floats(0.1, 1),
    spare=st.integers(0, 3),
    start_s=st.floats(0, 20),
    down_after_s=st.floats(0, 30),
    drain_share=st.floats(0.1, 1),
)


def follow(policy: Policy, signals: Signals, memory: Memory, seconds: int) -> list[int]:
    """What is wished in each second of constant signals."""
    wished = []
    for second in range(seconds):
        decision, memory = policy.decide(signals, memory, float(second))
        wished.append(decision.workers)
    return wished


@settings(deadline=None, max_examples=300)
@given(policy=policies, signals=any_signals, memory=memories, now_s=st.floats(-1e6, 1e6))
def test_bounds_are_kept_whatever_is_measured_and_remembered(
    policy: Policy, signals: Signals, memory: Memory, now_s: float
) -> None:
    decision, after = policy.decide(signals, memory, now_s)

    assert policy.min_workers <= decision.workers <= policy.max_workers
    assert after.workers == decision.workers


@settings(deadline=None, max_examples=200)
@given(
    policy=policies,
    signals=some_signals,
    memory=memories,
    more_rate=st.floats(0, 200),
    more_backlog=st.integers(0, 200),
    now_s=st.floats(0, 100),
)
def test_more_load_never_wishes_fewer(
    policy: Policy, signals: Signals, memory: Memory, more_rate: float, more_backlog: int, now_s: float
) -> None:
    more = replace(
        signals,
        arrival_rate_per_s=signals.arrival_rate_per_s + more_rate,
        backlog=signals.backlog + more_backlog,
    )

    less, _ = policy.decide(signals, memory, now_s)

    assert policy.decide(more, memory, now_s)[0].workers >= less.workers


@settings(deadline=None, max_examples=80)
@given(signals=st.builds(Signals, rates, services, st.just(0), counts, counts, counts), memory=memories)
def test_constant_load_ends_in_one_number_from_any_state(signals: Signals, memory: Memory) -> None:
    # 12 workers at most: half of those too many go each 8 seconds, and the last of them one by one.
    wished = follow(POLICY, signals, memory, 100)

    assert set(wished[60:]) == {follow(POLICY, signals, Memory(), 100)[-1]}


@settings(deadline=None, max_examples=80)
@given(signals=st.builds(Signals, rates, services, st.just(0), counts, counts, counts), memory=memories)
def test_constant_load_moves_the_number_one_way_only(signals: Signals, memory: Memory) -> None:
    wished = follow(POLICY, signals, memory, 100)

    assert wished in (sorted(wished), sorted(wished, reverse=True))


@settings(deadline=None, max_examples=80)
@given(signals=some_signals, memory=memories)
def test_what_is_needed_is_wished_at_once(signals: Signals, memory: Memory) -> None:
    needed = POLICY.needed(signals, POLICY.start_s)

    decision, _ = POLICY.decide(replace(signals, starting=0), replace(memory, asked_at_s=None), 0.0)

    assert decision.workers >= needed.workers


@settings(deadline=None, max_examples=80)
@given(signals=some_signals.filter(lambda signals: signals.backlog > 0), memory=memories, now_s=st.floats(0, 1e6))
def test_workers_never_go_while_requests_wait(signals: Signals, memory: Memory, now_s: float) -> None:
    current, _ = POLICY.decide(replace(IDLE, arrival_rate_per_s=float("nan")), memory, now_s)

    decision, _ = POLICY.decide(signals, memory, now_s)

    assert decision.workers >= current.workers


def test_workers_that_could_have_gone_stay_until_no_request_waits() -> None:
    memory = Memory(workers=9, low_since_s=0.0)

    held, memory = POLICY.decide(replace(BUSY, backlog=1), memory, 60.0)
    released, _ = POLICY.decide(BUSY, memory, 60.5)

    assert (held, released) == (Decision(9, "draining"), Decision(7, "lower"))


@pytest.mark.parametrize(
    "broken",
    [
        {"arrival_rate_per_s": float("nan")},
        {"service_s": float("inf")},
        {"backlog": -1},
        {"in_flight": float("nan")},
        {"ready": -3},
    ],
)
def test_signals_that_are_no_measurements_change_nothing(broken: dict[str, float]) -> None:
    decision, _ = POLICY.decide(replace(BUSY, **broken), Memory(workers=7), 0.0)  # type: ignore[arg-type]  # by design

    assert decision == Decision(7, "unreadable")


def test_load_asks_for_head_room() -> None:
    # 60 a second x 0.04 s = 2.4 busy workers; at 70 % of their time 3.43, so 4.
    assert POLICY.needed(BUSY, 6.0) == Decision(4, "spare")
    assert replace(POLICY, spare=0).needed(BUSY, 6.0) == Decision(4, "load")


def test_tight_goal_asks_for_more_than_head_room() -> None:
    tight = replace(POLICY, goal_p99_s=0.05, spare=0)

    assert tight.needed(BUSY, 6.0) == Decision(7, "goal")


def test_goal_below_the_service_time_is_left_to_head_room() -> None:
    assert replace(POLICY, goal_p99_s=0.03, spare=0).needed(BUSY, 6.0) == Decision(4, "load")


def test_idle_server_keeps_a_spare_worker() -> None:
    assert replace(POLICY, min_workers=1, spare=2).needed(IDLE, 6.0) == Decision(3, "spare")


def test_bounds_are_named_as_the_reason() -> None:
    assert replace(POLICY, min_workers=9).needed(BUSY, 6.0) == Decision(9, "minimum")
    assert POLICY.needed(replace(BUSY, arrival_rate_per_s=1e5), 6.0) == Decision(12, "maximum")


def test_queue_that_grows_asks_for_what_empties_it_when_workers_are_there() -> None:
    # In 6 s, 0.4 worker too few add 2.4 worker-seconds to the 1.2 of now; 3.6 within 0.25 s are 14.4 workers.
    signals = replace(BUSY, ready=2, backlog=30)

    assert replace(POLICY, max_workers=40).needed(signals, 6.0) == Decision(17, "backlog")


def test_queue_that_ready_workers_empty_before_others_start_asks_for_none() -> None:
    signals = replace(BUSY, ready=4, backlog=100)

    assert POLICY.needed(signals, until_ready_s=6.0) == Decision(4, "spare")
    assert POLICY.needed(signals, until_ready_s=0.0) == Decision(12, "maximum")


def test_same_backlog_is_not_asked_for_twice_while_workers_start() -> None:
    policy = replace(POLICY, max_workers=100)
    signals = replace(BUSY, ready=2, backlog=30)
    first, memory = policy.decide(signals, Memory(), 100.0)
    wished = set()
    for tick in range(1, 12):
        # The queue grows as foreseen: 60 a second come, 50 go.
        later = replace(signals, backlog=30 + 5 * tick, starting=first.workers - 2)
        decision, memory = policy.decide(later, memory, 100.0 + 0.5 * tick)
        wished.add(decision.workers)

    assert wished == {first.workers}


def test_asking_for_more_meanwhile_does_not_put_off_the_time_when_workers_are_expected() -> None:
    policy = replace(POLICY, max_workers=100)
    signals = replace(BUSY, ready=2, backlog=30)
    _, memory = policy.decide(signals, Memory(), 0.0)
    more, memory = policy.decide(replace(signals, backlog=80, starting=15), memory, 3.0)

    # The queue grows as foreseen, and the first workers are due in a second.
    later, _ = policy.decide(replace(signals, backlog=100, starting=18), memory, 5.0)

    assert (more, later) == (Decision(20, "backlog"), Decision(20, "backlog"))


def test_fresh_memory_takes_the_workers_that_are_there() -> None:
    # A controller that was started anew finds five workers and two that start.
    decision, _ = POLICY.decide(replace(IDLE, ready=5, starting=2), Memory(), 0.0)

    assert decision == Decision(7, "cooling")


def test_workers_go_after_fewer_have_sufficed_for_long_enough() -> None:
    decisions = [Decision(9, "")]
    memory = Memory(workers=9)
    for second in range(34):
        decision, memory = POLICY.decide(BUSY, memory, float(second))
        decisions.append(decision)

    # Four are needed: half of the five too many go after 8 s, and so on.
    assert [decisions[second + 1].workers for second in (7, 8, 15, 16, 17, 24, 25, 26, 33)] == [
        9, 7, 7, 7, 6, 6, 6, 5, 5,
    ]  # fmt: skip
    assert (decisions[8].reason, decisions[9].reason) == ("cooling", "lower")


def test_need_that_comes_back_starts_the_wait_again() -> None:
    memory = Memory(workers=4)
    for second in range(7):
        _, memory = POLICY.decide(IDLE, memory, float(second))
    _, memory = POLICY.decide(BUSY, memory, 7.0)

    assert POLICY.decide(IDLE, memory, 8.5)[0] == Decision(4, "cooling")


def test_step_down_spares_those_that_were_needed_meanwhile() -> None:
    half = replace(BUSY, arrival_rate_per_s=130.0)  # 5.2 busy workers: 8 are needed
    _, memory = POLICY.decide(IDLE, Memory(workers=12), 0.0)
    _, memory = POLICY.decide(half, memory, 4.0)

    assert POLICY.decide(IDLE, memory, 9.0)[0] == Decision(10, "lower")


def test_clock_that_went_back_does_not_keep_workers_for_ever() -> None:
    memory = Memory(workers=4, low_since_s=1e9)

    wished = follow(POLICY, IDLE, memory, 30)

    assert wished[-1] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"min_workers": 5, "max_workers": 2},
            "min_workers is 5 and max_workers 2; expected 1 <= min_workers <= max_workers",
        ),
        ({"min_workers": 0}, "min_workers is 0 and max_workers 12; expected 1 <= min_workers <= max_workers"),
        ({"goal_p99_s": 0.0}, "goal_p99_s is 0; expected more than 0"),
        ({"variability": float("nan")}, "variability is nan; expected more than 0"),
        ({"utilization": 1.5}, "utilization is 1.5; expected more than 0, at most 1"),
        ({"drain_share": 0.0}, "drain_share is 0; expected more than 0, at most 1"),
        ({"spare": -1}, "spare is -1; expected 0 or more"),
        ({"down_after_s": float("inf")}, "down_after_s is inf; expected 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        replace(POLICY, **changes)  # type: ignore[arg-type]  # values of several types
