"""What this process may use of the machine it runs on."""

import os
from math import ceil
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time in each period, or ``max``, and the period: a container's limit under cgroup v2."""


def available_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    # Not every system knows a process's own cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text("ascii").split()
        return min(cores, max(1, ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no limit
        return cores
