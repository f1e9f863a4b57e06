"""A verdict must see what is worse, and nothing where there is nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffuse.balancing.canary import (
    Limits,
    Pair,
    Reply,
    Traffic,
    agree,
    is_too_little,
    judge_pairs,
    judge_traffic,
)

LIMITS = Limits()
GOOD = {"label": "good", "score": 0.9, "scores": {"good": 0.9, "bad": 0.1}}
counts = st.integers(0, 10_000)


def replied(answer: object = GOOD, error: str = "", seconds: float = 0.01) -> Reply:
    return Reply(None if error else answer, error, seconds)


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    requests = draw(counts)
    return Traffic(requests, draw(st.integers(0, requests)), requests, requests * draw(st.floats(0.001, 1.0)))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (GOOD, {**GOOD, "score": 0.6, "scores": {"good": 0.6, "bad": 0.4}}, True),
        (GOOD, {**GOOD, "label": "bad"}, False),
        (GOOD, {"label": "good", "score": 0.9, "scores": {"good": 0.9, "bad": 0.1, "odd": 0.0}}, False),
        ({"score": 0.5}, {"score": 0.59}, True),
        ({"score": 0.5}, {"score": 0.61}, False),
        ({"answer": "Rome", "start": 4, "score": 0.9}, {"answer": "Rome", "start": 9, "score": 0.9}, False),
        ({"entities": [{"text": "Rome", "label": "LOC", "score": 0.9}]}, {"entities": []}, False),
        ({"entities": []}, {"entities": []}, True),
        ([GOOD, GOOD], [GOOD], False),
        ([0.5, 0.6], [0.5], False),
    ],
)  # fmt: skip
def test_answers_agree_by_what_they_say(old: object, new: object, same: bool) -> None:
    assert agree(old, new) is same


answers = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0, 1) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(answers, answers)
def test_agreement_holds_for_the_same_answer_and_either_way_round(one: object, other: object) -> None:
    assert agree(one, one)
    assert agree(one, other) == agree(other, one)


def test_same_answers_in_the_same_time_break_no_limit() -> None:
    verdict = judge_pairs([Pair(replied(), replied())] * 40, LIMITS)

    assert verdict.breaches == ()
    assert verdict.figures == {
        "rows": 40,
        "failed": 0,
        "different": 0,
        "latency_ratio_median": 1.0,
        "latency_ratio_p99": None,
    }


def test_other_answers_are_counted_against_the_limit() -> None:
    other = Pair(replied(), replied({**GOOD, "label": "bad"}))

    verdict = judge_pairs([other] * 5 + [Pair(replied(), replied())] * 35, LIMITS)

    assert verdict.breaches == ("5 of 40 (12.5%) rows are answered otherwise, limit 10.0%",)


def test_rows_that_only_the_new_version_fails_on_are_failures_and_not_also_other_answers() -> None:
    failing = Pair(replied(), replied(error="missing_field (status 422)"))

    verdict = judge_pairs([failing] * 30, LIMITS)

    assert verdict.breaches == ("30 of 30 (100.0%) rows failed, limit 1.0%; the first: missing_field (status 422)",)


def test_bad_rows_that_both_versions_refuse_alike_are_no_difference() -> None:
    refused = replied(error="missing_field (status 422)")

    verdict = judge_pairs([Pair(refused, refused), *[Pair(replied(), replied())] * 9], LIMITS)

    assert verdict.breaches == ()


def test_rows_that_neither_version_answers_prove_nothing() -> None:
    refused = replied(error="missing_field (status 422)")

    verdict = judge_pairs([Pair(refused, refused)] * 3, LIMITS)

    assert verdict.breaches == ("neither version answers any of the 3 rows; the first: missing_field (status 422)",)


def test_slower_answers_are_counted_against_the_limit() -> None:
    verdict = judge_pairs([Pair(replied(), replied(seconds=0.025))] * 30, LIMITS)

    assert verdict.breaches == ("the median latency is 2.50 times the old one, limit 2",)


def test_few_rows_say_nothing_of_latency() -> None:
    assert judge_pairs([Pair(replied(), replied(seconds=1.0))] * 29, LIMITS).breaches == ()


def test_slow_tail_is_seen_when_there_are_rows_enough() -> None:
    pairs = [Pair(replied(), replied())] * 490 + [Pair(replied(), replied(seconds=0.05))] * 10

    assert judge_pairs(pairs, LIMITS).breaches == ("the p99 latency is 5.00 times the old one, limit 2",)


def test_failures_of_the_canary_break_the_limit_with_their_figures() -> None:
    verdict = judge_traffic(Traffic(300, 0), Traffic(40, 3), LIMITS, least=30)

    assert verdict.breaches == ("3 of 40 (7.5%) requests failed, of the old version 0 of 300 (0.0%), limit 1.0% more",)


def test_failures_are_not_judged_before_there_are_requests_enough() -> None:
    assert judge_traffic(Traffic(100, 0), Traffic(9, 9), LIMITS, least=10).breaches == ()
    assert judge_traffic(Traffic(100, 0), Traffic(9, 9), LIMITS, least=1).breaches != ()


def test_clients_whose_requests_are_bad_do_not_stop_a_rollout() -> None:
    verdict = judge_traffic(Traffic(300, 15), Traffic(30, 3), LIMITS, least=30)

    assert verdict.breaches == ()


def test_slower_canary_breaks_the_limit_with_its_figures() -> None:
    old, new = Traffic(answered=200, seconds=2.0), Traffic(answered=40, seconds=1.0)

    verdict = judge_traffic(old, new, LIMITS, least=1)

    assert verdict.breaches == ("the mean latency is 2.50 times the old one (25.0 and 10.0 ms), limit 2",)


def test_no_traffic_breaks_no_limit() -> None:
    verdict = judge_traffic(Traffic(), Traffic(), LIMITS, least=1)

    assert verdict.breaches == ()
    assert verdict.figures == {"requests": 0, "failed": 0, "share": 0.0, "latency_ratio_mean": None}


@given(traffics(), counts)
def test_version_that_fails_no_more_than_the_old_one_breaks_no_limit_of_errors(old: Traffic, requests: int) -> None:
    new = Traffic(requests, int(requests * old.failed_share))

    assert judge_traffic(old, new, LIMITS, least=1).breaches == ()


@given(traffics(), st.integers(30, 10_000))
def test_one_more_failure_never_makes_a_breach_undone(old: Traffic, requests: int) -> None:
    verdicts = [
        judge_traffic(old, Traffic(requests, failed), LIMITS, least=1).breaches
        for failed in (0, requests // 2, requests)
    ]

    assert [bool(breaches) for breaches in verdicts] == sorted(bool(breaches) for breaches in verdicts)


@given(traffics(), traffics())
def test_growth_of_counters_is_what_was_added(before: Traffic, added: Traffic) -> None:
    grown = (before + added).since(before)

    assert (grown.requests, grown.failed, grown.answered) == (added.requests, added.failed, added.answered)
    assert grown.seconds == pytest.approx(added.seconds, abs=1e-6)


def test_counters_that_started_anew_count_from_zero() -> None:
    assert Traffic(3, 1, 3, 0.5).since(Traffic(90, 2, 90, 9.0)) == Traffic(3, 1, 3, 0.5)


@pytest.mark.parametrize(("answered", "too_little"), [(0, False), (1, True), (29, True), (30, False)])
def test_few_timed_answers_are_too_little_and_none_will_not_become_more(answered: int, *, too_little: bool) -> None:
    assert is_too_little(Traffic(requests=100, answered=answered), LIMITS) is too_little
