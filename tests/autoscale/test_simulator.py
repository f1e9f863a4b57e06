"""The simulator against queueing theory where there is some, and against what must hold where there is none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.autoscale.arrivals import Arrivals, poisson
from suffuse.autoscale.policy import Decision, Memory, Policy, Rule, Signals
from suffuse.autoscale.queueing import CONSTANT, mean_wait_s, wait_quantile_s
from suffuse.autoscale.rules import Fixed
from suffuse.autoscale.simulator import Outcome, Stack, simulate
from suffuse.errors import InputError

SERVICE_S = 0.05


class Constant:
    """Every request takes equally long, also in a batch."""

    def draw(self, tokens: Sequence[int], _: Random) -> float:
        return SERVICE_S * len(tokens)


class Exponential:
    """Service times without memory."""

    def draw(self, _: Sequence[int], random: Random) -> float:
        return random.expovariate(1 / SERVICE_S)


class Batched:
    """A batch takes as long as one request."""

    def draw(self, *_: object) -> float:
        return SERVICE_S


@dataclass
class Watched:
    """A rule that notes what it is shown."""

    rule: Rule
    seen: list[tuple[float, Signals]] = field(default_factory=list)

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        self.seen.append((now_s, signals))
        return self.rule.decide(signals, memory, now_s)


@dataclass(frozen=True)
class Scheduled:
    """So many workers from each time on."""

    workers: dict[float, int]

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        assert signals.readable
        return Decision(next(n for at_s, n in reversed(self.workers.items()) if now_s >= at_s), "scheduled"), memory


SINGLE = Stack(Constant(), batch_size=1, max_batch_delay_s=0, queue_limit=10**6, overhead_s=0)


def at(*times_s: float) -> Arrivals:
    return Arrivals(np.array(times_s), np.full(len(times_s), 8), max(1.0, times_s[-1]))


def waits(outcome: Outcome) -> np.ndarray:
    return outcome.latencies_s - SERVICE_S


@pytest.mark.parametrize(("workers", "load"), [(1, 0.7), (3, 2.4)])
def test_mean_wait_with_exponential_service_is_erlangs(workers: int, load: float) -> None:
    arrivals = poisson(load / SERVICE_S, 60_000 * SERVICE_S / load, (8,), seed=1)

    outcome = simulate(arrivals, replace(SINGLE, service=Exponential()), Fixed(workers), seed=1)

    mean_s = outcome.latencies_s.mean() - SERVICE_S
    assert mean_s == pytest.approx(mean_wait_s(workers, load, SERVICE_S), rel=0.1)


def test_mean_wait_with_constant_service_is_pollaczek_and_khinchines() -> None:
    arrivals = poisson(0.8 / SERVICE_S, 60_000 * SERVICE_S / 0.8, (8,), seed=1)

    outcome = simulate(arrivals, SINGLE, Fixed(1))

    assert waits(outcome).mean() == pytest.approx(mean_wait_s(1, 0.8, SERVICE_S, CONSTANT), rel=0.1)


def test_tail_of_the_wait_is_near_the_formula_that_the_policy_uses() -> None:
    arrivals = poisson(3.2 / SERVICE_S, 60_000 * SERVICE_S / 3.2, (8,), seed=1)

    outcome = simulate(arrivals, SINGLE, Fixed(4))

    expected_s = wait_quantile_s(0.99, 4, 3.2, SERVICE_S, CONSTANT)
    assert np.quantile(waits(outcome), 0.99) == pytest.approx(expected_s, rel=0.2)


def test_littles_law_holds() -> None:
    watched = Watched(Fixed(3))
    arrivals = poisson(48, 600, (8,), seed=2)

    outcome = simulate(arrivals, replace(SINGLE, poll_s=0.037), watched)

    in_system = np.mean([signals.backlog + signals.in_flight for _, signals in watched.seen[1:]])
    assert in_system == pytest.approx(arrivals.rate_per_s * outcome.latencies_s.mean(), rel=0.05)


@settings(deadline=None, max_examples=40)
@given(
    rate=st.floats(1, 400),
    workers=st.integers(1, 4),
    batch_size=st.integers(1, 16),
    delay_s=st.sampled_from([0.0, 0.001, 0.2]),
    queue_limit=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_every_request_is_answered_or_refused(
    rate: float, workers: int, batch_size: int, delay_s: float, queue_limit: int, seed: int
) -> None:
    stack = Stack(Batched(), batch_size, delay_s, queue_limit, overhead_s=0)
    arrivals = poisson(rate, 5, (8,), seed)

    outcome = simulate(arrivals, stack, Scheduled({0: workers, 1: 3, 2: 1, 3: 2}), seed=seed)

    answered = outcome.latencies_s[np.isfinite(outcome.latencies_s)]
    assert len(answered) + outcome.refused == len(arrivals)
    assert (answered >= SERVICE_S * 0.999).all()


def test_no_request_waits_while_a_worker_is_idle() -> None:
    watched = Watched(Fixed(3))

    simulate(poisson(55, 200, (8,)), replace(SINGLE, poll_s=0.031), watched)

    waiting = [signals for _, signals in watched.seen[1:] if signals.backlog]
    assert len(waiting) > 100
    assert all(signals.in_flight == 3 for signals in waiting)


def test_same_seed_gives_the_same_and_another_seed_another_outcome() -> None:
    arrivals = poisson(40, 60, (8,))
    stack = replace(SINGLE, service=Exponential())
    first, same, other = (simulate(arrivals, stack, Policy(1, 8, 0.2), seed=seed) for seed in (1, 1, 2))

    assert (first.latencies_s == same.latencies_s).all()
    assert (first.change_times_s == same.change_times_s).all()
    assert (first.latencies_s != other.latencies_s).any()


def test_lone_request_waits_the_whole_batch_delay() -> None:
    stack = Stack(Batched(), batch_size=4, max_batch_delay_s=0.1, overhead_s=0.003)

    assert simulate(at(0.2), stack, Fixed(1)).latencies_s == pytest.approx([0.1 + SERVICE_S + 0.003])


def test_handing_over_keeps_the_worker_busy_and_overhead_does_not() -> None:
    stack = replace(SINGLE, handover_s=0.01, overhead_s=0.003)

    latencies_s = simulate(at(0, 0), stack, Fixed(1)).latencies_s

    busy_s = SERVICE_S + 0.01
    assert latencies_s == pytest.approx([busy_s + 0.003, 2 * busy_s + 0.003])


def test_batch_starts_when_it_is_full() -> None:
    stack = Stack(Batched(), batch_size=3, max_batch_delay_s=0.1, overhead_s=0)

    latencies_s = simulate(at(0, 0.01, 0.02, 0.03), stack, Fixed(1)).latencies_s

    # The fourth waits for the worker until 0.07, and there for others.
    assert latencies_s == pytest.approx([0.07, 0.06, 0.05, 0.07 + 0.1 + SERVICE_S - 0.03])


def test_one_worker_at_a_time_collects_a_batch() -> None:
    stack = Stack(Batched(), batch_size=3, max_batch_delay_s=0.1, overhead_s=0)

    assert simulate(at(0, 0.05), stack, Fixed(2)).latencies_s == pytest.approx([0.15, 0.1])


def test_request_beyond_the_queue_is_refused() -> None:
    outcome = simulate(at(0, 0.01, 0.02, 0.03, 0.2), replace(SINGLE, queue_limit=2), Fixed(1))

    assert np.isinf(outcome.latencies_s).tolist() == [False, False, False, True, False]
    assert outcome.refused == 1
    assert outcome.quantile_s(0.99) == np.inf


def test_workers_take_their_time_to_start_and_cost_from_the_moment_they_are_asked_for() -> None:
    stack = replace(SINGLE, start_s=(4.0, 4.0), poll_s=1.0)
    arrivals = poisson(2, 20, (8,))

    outcome = simulate(arrivals, stack, Scheduled({0: 1, 2: 3, 10: 1}))

    assert outcome.ready.tolist() == [1, 2, 3, 2, 1]
    assert outcome.change_times_s == pytest.approx([0, 6, 6, 10, 10])
    assert outcome.worker_seconds == pytest.approx(outcome.duration_s + 2 * 8)


def test_worker_that_is_not_wanted_any_more_finishes_its_batch() -> None:
    stack = replace(SINGLE, poll_s=0.02)

    outcome = simulate(at(0, 0.01, 0.011), stack, Scheduled({0: 2, 0.02: 1}))

    # Both are busy at 0.02; the first ends at 0.05 and leaves, the other takes the third request at 0.06.
    assert outcome.latencies_s == pytest.approx([0.05, 0.05, 0.06 + 0.05 - 0.011])
    assert outcome.ready.tolist() == [2, 1]


def test_rule_sees_what_a_controller_would_see() -> None:
    watched = Watched(Scheduled({0: 1, 1.5: 3}))

    simulate(at(*np.linspace(0, 3, 121)), replace(SINGLE, start_s=(9, 9)), watched)

    now_s, signals = watched.seen[4]
    assert now_s == pytest.approx(2.0)
    # 40 a second for 2 s, of which 20 a second are answered; two workers were asked for at 1.5 s.
    assert signals.arrival_rate_per_s == pytest.approx(40, rel=0.05)
    assert signals.service_s == pytest.approx(SERVICE_S)
    assert signals.backlog + signals.in_flight == pytest.approx(41, abs=2)
    assert (signals.ready, signals.starting) == (1, 2)


def test_policy_meets_a_goal_that_its_first_workers_alone_do_not() -> None:
    arrivals = poisson(60, 300, (8,))
    alone = simulate(arrivals, SINGLE, Fixed(2))

    outcome = simulate(arrivals, SINGLE, Policy(1, 10, 0.3))

    assert alone.share_within(0.3) < 0.1
    assert outcome.share_within(0.3) > 0.9


def test_windows_of_time_have_their_own_percentile() -> None:
    outcome = Outcome(
        times_s=np.array([0.0, 9.0, 25.0]),
        latencies_s=np.array([0.1, 0.3, np.inf]),
        worker_seconds=1.0,
        change_times_s=np.array([0.0]),
        ready=np.array([1]),
        duration_s=26.0,
    )

    starts_s, p99_s = outcome.windows(10.0)

    assert (starts_s.tolist(), p99_s.tolist()) == ([0.0, 20.0], [0.3, np.inf])
    assert outcome.share_within(0.3) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"queue_limit": 0}, "queue_limit is 0; expected at least 1"),
        ({"overhead_s": -1.0}, "overhead_s is -1; expected 0 or more"),
        ({"handover_s": -1.0}, "handover_s is -1; expected 0 or more"),
        ({"poll_s": 0.0}, "poll_s is 0; expected more than 0"),
        ({"start_s": (6.0, 3.0)}, "start_s is 6 to 3; expected the shortest time, then the longest"),
    ],
)
def test_stack_that_makes_no_sense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        replace(SINGLE, **changes)  # type: ignore[arg-type]  # values of several types
