"""The processors of this machine, looked at without torch."""

import os
import platform
from functools import cache
from pathlib import Path


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux, where a container may have a part of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def processor() -> tuple[str, str]:
    """Name and abilities, such as ``fma avx2 avx512_bf16``; these are empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux, or not allowed
        lines = []
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = entries.get("model name") or platform.processor() or platform.machine()
    return name, entries.get("flags") or entries.get("Features") or ""
