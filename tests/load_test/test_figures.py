"""Figures must be those of the requests: what was never answered is slower than everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffuse.load_test.figures import LoadResult
from suffuse.load_test.workers import Workers


def result_of(
    latencies_ms: list[float],
    outcomes: list[str] | None = None,
    duration_s: float = 10.0,
    **fields: Any,  # noqa: ANN401
) -> LoadResult:
    """Requests evenly over the time, over REST and gRPC in turn."""
    count = len(latencies_ms)
    start_s = np.arange(count) * duration_s / max(1, count)
    given: dict[str, Any] = {
        "start_s": start_s,
        "sent_s": start_s,
        "latency_s": np.array(latencies_ms) / 1000,
        "transport": np.array(["rest", "grpc"] * count)[:count],
        "outcome": np.array(outcomes if outcomes is not None else ["ok"] * count, dtype=np.str_),
        "duration_s": duration_s,
        "started_at": 0.0,
        "generator_cpu_s": 0.1,
        "held_back": 0,
        "examples": {},
        "workers": Workers(),
    }
    return LoadResult(**given | fields)


def test_percentiles_are_those_of_answered_requests() -> None:
    result = result_of([*range(1, 101), 5000], ["ok"] * 100 + ["timeout"])

    assert [result.percentile(q) for q in (50, 99, 100)] == [0.05, 0.099, 0.1]


@pytest.mark.parametrize(("lost", "p99_s"), [(1, 0.01), (2, float("inf"))])
def test_what_was_not_answered_counts_as_never(lost: int, p99_s: float) -> None:
    result = result_of([10.0] * 100, ["ok"] * (100 - lost) + ["refused"] * lost)

    assert result.percentile_of_all(99) == p99_s
    assert result.meets(0.02) == (lost == 1)


def test_refused_failed_and_answered_are_told_apart() -> None:
    result = result_of([1.0] * 6, ["ok", "refused", "refused", "http 500", "wrong answer", "http 500"])

    assert (result.answered, result.refused, result.failed, result.rate, result.sent_rate) == (1, 2, 3, 0.1, 0.6)
    assert result.failures == {"http 500": 2, "refused": 2, "wrong answer": 1}


def test_windows_without_requests_are_neither_met_nor_missed() -> None:
    result = result_of([10, 10, 900, 10], duration_s=40)
    idle = result.where(np.array([True, False, True, True]))

    assert (result.windows_within(0.1), idle.windows_within(0.1)) == pytest.approx((0.75, 2 / 3))


def test_the_last_window_may_be_short() -> None:
    windows = result_of([1.0] * 50, duration_s=25).windows()

    assert [(len(window), window.duration_s, window.rate) for window in windows] == [
        (20, 10, 2),
        (20, 10, 2),
        (10, 5, 2),
    ]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (result_of([10.0] * 100), "p99 is 10 ms; the goal of 20 ms is met"),
        (result_of([30.0] * 100), "p99 is 30 ms; the goal of 20 ms is missed"),
        (
            result_of([10.0] * 100, ["ok"] * 90 + ["refused"] * 4 + ["timeout"] * 6),
            "of 100 requests 4 were refused and 6 failed; 90.0% were answered within 20 ms; the goal is 99%",
        ),
        (result_of([]), "no request was sent; the goal of 20 ms is missed"),
    ],
)
def test_verdict_is_told_in_words(result: LoadResult, words: str) -> None:
    assert result.verdict(0.02) == words


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        (
            {"held_back": 3},
            (
                "3 requests waited to be sent, as many as allowed being in flight; the server is overloaded, or "
                "the bound too low"
            ),
        ),
        (
            {"sent_s": np.arange(100) / 10 + 0.06},
            (
                "1 of 100 requests was sent 60 ms late or more; the generator was too slow, and latencies hold its "
                "delay: take a lower rate, or a machine with more free cores"
            ),
        ),
        (
            {"generator_cpu_s": 9.5},
            "the generator used 95% of a core, and it has one; take a lower rate, or several generators",
        ),
    ],
)
def test_a_generator_that_was_the_bottleneck_is_named(fields: dict[str, Any], fault: str | None) -> None:
    assert result_of([10.0] * 100, **fields).generator_fault(0.5) == fault


def test_json_has_every_figure_and_null_for_never() -> None:
    result = result_of([10.0] * 4, ["ok", "ok", "refused", "ok"], examples={"refused": ["no room"]})

    content = json.loads(json.dumps(result.as_json(0.02), allow_nan=False))

    assert content["verdict"]["met"] is False
    assert content["p99_of_all_ms"] is None
    assert content["answered_latency_ms"] == dict.fromkeys(("p50", "p90", "p95", "p99", "p99.9", "max"), 10.0)
    assert content["failures"] == {"refused": {"requests": 1, "examples": ["no room"]}}
    assert (content["by_transport"]["grpc"]["answered"], content["by_transport"]["rest"]["refused"]) == (2, 1)
    assert content["generator"]["cpu_ms_per_request"] == pytest.approx(25)
    assert len(content["windows"]) == 1


def test_columns_come_back_as_the_generator_wrote_them(tmp_path: Path) -> None:
    seen = {
        "started_at": 5.0, "duration_s": 2.0, "cpu_s": 0.5, "held_back": 1,
        "transports": ["rest", "grpc"], "outcomes": ["ok", "refused", "http 500"], "examples": {},
    }  # fmt: skip
    np.savez(
        tmp_path / "r.npz",
        due_s=np.array([0.0, 1.0]), sent_s=np.array([0.1, 1.0]), end_s=np.array([0.5, 3.0]),
        transport=np.array([1, 0], dtype=np.uint8), outcome=np.array([0, 2], dtype=np.uint16),
        seen=np.array(json.dumps(seen)),
    )  # fmt: skip

    result = LoadResult.read(tmp_path / "r.npz", Workers())

    assert result.latency_s.tolist() == [0.5, 2.0]
    assert result.send_lag_s.tolist() == pytest.approx([0.1, 0])
    assert (result.transport.tolist(), result.outcome.tolist()) == (["grpc", "rest"], ["ok", "http 500"])
