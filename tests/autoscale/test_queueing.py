"""The formulas against tables, against each other, and against a sum that needs no recursion."""

from math import exp, factorial, inf, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.autoscale.queueing import CONSTANT, erlang_c, mean_wait_s, wait_quantile_s, workers_for_wait


def erlang_c_as_defined(workers: int, load: float) -> float:
    waiting = load**workers / factorial(workers) * workers / (workers - load)
    return waiting / (sum(load**k / factorial(k) for k in range(workers)) + waiting)


@settings(deadline=None, max_examples=60)
@given(workers=st.integers(1, 40), utilization=st.floats(0.01, 0.99))
def test_erlang_c_is_the_sum_that_defines_it(workers: int, utilization: float) -> None:
    load = workers * utilization

    assert erlang_c(workers, load) == pytest.approx(erlang_c_as_defined(workers, load), rel=1e-9)


def test_erlang_c_of_one_worker_is_its_utilization() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)


def test_all_requests_wait_where_the_load_is_too_much() -> None:
    assert erlang_c(3, 3.0) == 1.0
    assert mean_wait_s(3, 3.0, 1.0) == inf
    assert wait_quantile_s(0.99, 3, 3.0, 1.0) == inf


def test_mean_wait_of_constant_service_is_half_of_exponential_service() -> None:
    # Pollaczek and Khinchine: load x service / (2 (1 - load)) for constant service.
    assert mean_wait_s(1, 0.8, 0.1, CONSTANT) == pytest.approx(0.8 * 0.1 / (2 * 0.2))


def test_wait_quantile_of_one_worker_is_that_of_an_exponential_tail() -> None:
    # P(wait > t) = load exp(-(1 - load) t / service), so at the quantile it is 0.01.
    wait_s = wait_quantile_s(0.99, 1, 0.8, 0.1)

    assert 0.8 * exp(-0.2 * wait_s / 0.1) == pytest.approx(0.01)
    assert wait_s == pytest.approx(0.1 / 0.2 * log(80))


def test_quantile_is_zero_where_fewer_requests_wait_at_all() -> None:
    assert wait_quantile_s(0.9, 1, 0.05, 1.0) == 0.0


@settings(deadline=None, max_examples=60)
@given(load=st.floats(0.01, 30), wait_s=st.floats(0.001, 2))
def test_workers_for_a_wait_are_the_fewest_that_keep_it(load: float, wait_s: float) -> None:
    workers = workers_for_wait(0.99, wait_s, load, 0.1, most=100)

    assert wait_quantile_s(0.99, workers, load, 0.1) <= wait_s
    assert workers == 1 or wait_quantile_s(0.99, workers - 1, load, 0.1) > wait_s


@pytest.mark.parametrize("load", [7.0, 1e300, inf])
def test_workers_for_a_wait_stop_at_the_most(load: float) -> None:
    assert workers_for_wait(0.99, 0.1, load, 0.1, most=7) == 7
