"""The number of cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the cores on which this process may run: fewer than the machine has under taskset or in a container."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
