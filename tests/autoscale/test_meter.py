"""The service time must be that of the workers, whatever transport, batch size and load it has to be told from."""

import re
from dataclasses import replace

import pytest

from suffuse.autoscale.meter import GivenTime, MeasuredTime, Meter, ProfiledTime
from suffuse.autoscale.scrape import ServerCounters
from suffuse.autoscale.service_time import Limits, Profile, ServiceTime
from suffuse.autoscale.signals import Reading, ServerView
from suffuse.errors import InputError

STEP_S = 0.5
START = ServerView("a", ready=1, asked=1, bound=1, batch_size=1, pending=0, remaining=100, counters=None)


class Workers:
    """A server under a steady load, read every half second."""

    def __init__(self, meter: Meter, *, ready: int = 1, batch_size: int = 1, pending: int = 0) -> None:
        self.meter = meter
        self.at_s = 0.0
        self.view = replace(
            START, ready=ready, batch_size=batch_size, pending=pending, counters=ServerCounters(0, 0, None)
        )
        self.read()

    def read(self, rate_per_s: float | None = None) -> None:
        self.meter.update(Reading(self.at_s, (self.view,), arrival_rate_per_s=rate_per_s))

    def run(self, rate_per_s: float, batch_s: float, seconds: float = 10, rest_share: float = 1.0) -> float | None:
        """Answer so many a second in batches that take so long; then what the meter says."""
        for _ in range(int(seconds / STEP_S)):
            before = self.view.counters or ServerCounters(0, 0, None)
            answered = rate_per_s * STEP_S
            counters = ServerCounters(
                before.arrived + answered, before.in_hand_s + rest_share * answered * batch_s, batch_s
            )
            self.view = replace(self.view, counters=counters)
            self.at_s += STEP_S
            self.read(rate_per_s)
        return self.meter.service_s


def test_nothing_is_known_before_the_first_answer() -> None:
    assert Workers(MeasuredTime()).run(0, 0.04) is None


def test_request_alone_takes_what_its_worker_takes() -> None:
    assert Workers(MeasuredTime(), ready=2).run(20, 0.04) == pytest.approx(0.04)


def test_requests_over_grpc_are_told_from_the_last_batch() -> None:
    assert Workers(MeasuredTime(), ready=2).run(20, 0.04, rest_share=0) == pytest.approx(0.04)


def test_busy_workers_tell_the_time_by_what_they_answer() -> None:
    batches_of_8 = Workers(MeasuredTime(), ready=2, batch_size=64, pending=30)

    # Two workers, 25 batches a second each.
    assert batches_of_8.run(2 * 25 * 8, 0.04) == pytest.approx(0.04 / 8)


def test_requests_of_a_batch_share_its_time() -> None:
    # 3.2 requests in the hands of 2 workers, so 1.6 each.
    assert Workers(MeasuredTime(), ready=2, batch_size=64).run(80, 0.04) == pytest.approx(0.04 / 1.6)


def test_batch_is_never_thought_larger_than_it_can_be() -> None:
    assert Workers(MeasuredTime(), ready=1, batch_size=4).run(1000, 0.04) == pytest.approx(0.01)


def test_time_stays_while_nothing_comes() -> None:
    workers = Workers(MeasuredTime(), ready=2)
    workers.run(20, 0.04)

    assert workers.run(0, 0.04, seconds=3600) == pytest.approx(0.04)


def test_time_follows_when_rows_become_longer() -> None:
    workers = Workers(MeasuredTime(), ready=4)
    workers.run(20, 0.04, seconds=60)

    assert workers.run(20, 0.08, seconds=15) == pytest.approx(0.08 - 0.04 / 2.718, rel=0.1)
    assert workers.run(20, 0.08, seconds=60) == pytest.approx(0.08, rel=0.02)


def test_worker_that_hangs_is_not_thought_to_be_slow_for_ever() -> None:
    workers = Workers(MeasuredTime(), pending=10)
    workers.run(25, 0.04)

    assert workers.run(0, 0.04, seconds=60) == pytest.approx(2 * 0.04)


def test_counters_that_start_anew_are_passed_over() -> None:
    workers = Workers(MeasuredTime(), ready=2)
    workers.run(20, 0.04)
    workers.view = replace(workers.view, counters=ServerCounters(0, 0, None))

    assert workers.run(20, 0.04) == pytest.approx(0.04)


def test_requests_that_a_full_queue_refused_are_not_taken_for_answers() -> None:
    workers = Workers(MeasuredTime(), ready=1, pending=10)
    workers.run(25, 0.04)
    workers.view = replace(workers.view, pending=100, remaining=0)

    assert workers.run(1000, 0.04) == pytest.approx(0.04)


def test_server_without_counters_says_nothing() -> None:
    meter = MeasuredTime()
    for second in range(3):
        meter.update(Reading(float(second), (START,)))

    assert meter.service_s is None


def profile(request_s: float, batch_s: float = 0.0) -> Profile:
    service = ServiceTime(Limits(512, 64), batch_s=batch_s, request_s=request_s, token_s=1e-4)
    return Profile("b", 1, service, (10, 20, 30), 0.0, ())


def test_profile_tells_the_time_before_anything_comes() -> None:
    assert ProfiledTime(profile(0.02)).service_s == pytest.approx(0.02 + 20e-4)


def test_profiled_batches_grow_with_the_load() -> None:
    meter = ProfiledTime(profile(0.001, batch_s=0.03))
    workers = Workers(meter, batch_size=64)
    alone = meter.service_s

    # One worker answers 100 a second in batches of 4 or more, since a batch takes 30 ms and 2 to 4 ms a request.
    busy = workers.run(100, 0.04, seconds=120)

    assert busy == pytest.approx((0.03 + 4 * 0.003) / 4, rel=0.1)
    assert alone == pytest.approx(0.03 + 0.003)


def test_profiled_batches_end_at_the_size_of_the_server() -> None:
    workers = Workers(ProfiledTime(profile(0.001, batch_s=0.03)), batch_size=2)

    assert workers.run(1e6, 0.04, seconds=60) == pytest.approx(0.015 + 0.001 + 3e-3, rel=0.05)


def test_given_time_stays() -> None:
    workers = Workers(GivenTime(0.03))

    assert workers.run(20, 0.04) == 0.03


@pytest.mark.parametrize("service_s", [0.0, -0.02, float("nan"), float("inf")])
def test_given_time_that_is_none_is_refused(service_s: float) -> None:
    message = f"the service time is {service_s * 1000:g} ms; expected more than 0"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        GivenTime(service_s)
