"""The processors of this machine, counted without torch."""

import os


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux, where a container may have a part of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
