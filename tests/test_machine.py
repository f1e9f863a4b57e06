"""A process must not count cores that its container does not give it."""

from pathlib import Path

import pytest

from suffuse import machine
from suffuse.machine import available_cores


@pytest.mark.parametrize(
    ("limit", "cores"), [("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 16)]
)
def test_a_container_has_the_cores_of_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(limit)
    monkeypatch.setattr(machine, "CPU_QUOTA", quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))

    assert available_cores() == cores


def test_without_a_quota_all_cores_of_the_process_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "none")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6})

    assert available_cores() == 3
