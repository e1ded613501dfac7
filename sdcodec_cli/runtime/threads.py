"""How many cores are free."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOOKS = 3
"""Times that the system is asked: what runs for a moment should not count."""


def free_cores() -> int:
    """Cores that this process may use and that nothing else keeps busy, at least one.

    A thread more than there are free cores costs more than it brings: the others wait for it.
    """
    cores = allowed_cores()
    if cores == 1:
        return 1
    busy = _busy_elsewhere()
    return max(1, cores - busy)


def allowed_cores() -> int:
    """Cores that this process may use: of its affinity, and of its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # another system, or no quota
        pass
    return cores


def _busy_elsewhere() -> int:
    """How many threads of other processes want a core right now; 0 where the system does not say."""
    counts = []
    for look in range(LOOKS):
        if look:
            time.sleep(0.002)
        try:
            running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0])
        except (OSError, ValueError, IndexError):
            return 0
        counts.append(running - 1)  # this thread
    return max(0, min(counts))
