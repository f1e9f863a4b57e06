"""A short form of bench/faults.py: what happens most often to a real stack under load costs no request."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "faults.py"
EVENTS = ("worker", "loss", "instance", "scaled-rollout", "restart", "reload", "large")
HEADER_LINES = 2

pytestmark = [
    pytest.mark.balancing,
    pytest.mark.skipif(
        shutil.which("haproxy", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") is None,
        reason="HAProxy is not installed: apt install haproxy",
    ),
]


def test_no_request_fails_whatever_happens_to_a_worker_an_instance_or_the_balancer() -> None:
    done = subprocess.run([sys.executable, str(BENCH), *EVENTS], capture_output=True, text=True, check=False)

    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[HEADER_LINES:]]
    assert [failed for _, _, failed, _ in rows] == ["0"] * len(EVENTS), done.stdout + done.stderr
    assert all(int(requests) > 100 for _, requests, _, _ in rows), done.stdout
    assert done.returncode == 0, done.stderr
