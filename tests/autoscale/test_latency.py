"""Latency by length is that of answers of the bundle, and is said with the processor it was measured on."""

from itertools import count
from pathlib import Path

import pytest

from suffuse.autoscale import latency
from suffuse.autoscale.latency import LEAST_REPEATS, MOST_REPEATS, latency_by_length, machine


def test_every_length_that_the_model_reads_is_measured(tiny_bundle: Path) -> None:
    ticks = count()
    notes: list[str] = []

    measured = latency_by_length(tiny_bundle, clock=lambda: next(ticks) / 1000, note=notes.append)

    lengths = [one.tokens for one in measured]
    assert lengths == sorted(lengths)
    assert lengths[-1] <= 64 < 2 * lengths[-1]
    assert {(one.p50_ms, one.p99_ms, one.repeats) for one in measured} == {(1.0, 1.0, MOST_REPEATS)}
    assert notes[-1] == f"rows of {lengths[-1]} tokens"


def test_slow_rows_are_repeated_less_often(tiny_bundle: Path) -> None:
    ticks = count()

    measured = latency_by_length(tiny_bundle, clock=lambda: float(next(ticks)))

    assert {one.repeats for one in measured} == {LEAST_REPEATS}


def test_a_rare_slow_answer_moves_the_99th_percentile_alone(tiny_bundle: Path) -> None:
    durations_s = (0.5 if number % 50 == 0 else 0.02 for number in count())
    times_s = [0.0]

    def clock() -> float:
        times_s.append(times_s[-1] + (next(durations_s) if len(times_s) % 2 == 0 else 0.0))
        return times_s[-1]

    measured = latency_by_length(tiny_bundle, clock=clock)

    assert [(one.p50_ms, one.p99_ms) for one in measured] == [(20.0, 500.0)] * len(measured)


def test_the_machine_is_its_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processors = tmp_path / "cpuinfo"
    processors.write_text("processor\t: 0\nmodel name\t: A Fast One\n", "utf-8")
    monkeypatch.setattr(latency, "_PROCESSORS", processors)

    assert machine().startswith("A Fast One, onnxruntime ")
