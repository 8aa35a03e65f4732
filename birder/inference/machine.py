"""This computer: processor or GPU, memory, versions of packages. On it depends what is the fastest way to compute."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import birder
from birder.cores import available_cores, processor

PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "Pillow")
"""Packages that compute, and that read."""


def facts() -> dict[str, Any]:
    """What a run should remember: system, processor, cores that may be used, memory in GiB, versions."""
    return {
        "system": platform.platform(),
        "processor": processor()[0],
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "python": platform.python_version(),
        **versions(),
    }


def describe_machine(device: str) -> dict[str, str]:
    """The processor with its abilities and its cores, or the GPU: equal on equal machines.

    Args:
        device: Such as ``cpu`` or ``cuda:0``.
    """
    if device.startswith("cuda"):
        import torch

        properties = torch.cuda.get_device_properties(torch.device(device))
        capability = f"{properties.major}.{properties.minor}"
        return {"gpu": properties.name, "capability": capability, "memory": str(properties.total_memory)}
    model, flags = processor()
    return {"processor": model, "flags": flags, "cores": str(available_cores()), "device": device}


def versions() -> dict[str, str]:
    """Versions of birder and of those ``PACKAGES`` that are installed."""
    found = {"birder": birder.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def free_memory(device: str) -> int | None:
    """Bytes that may still be taken; None where that cannot be told.

    Args:
        device: Such as ``cpu`` or ``cuda:0``.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if device != "cpu":
        return None
    free = [amount for amount in (_free_of_machine(), _free_of_container()) if amount is not None]
    return min(free, default=None)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not known on Windows
        return None


def _free_of_machine() -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _free_of_container() -> int | None:
    most, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    return max(0, int(most) - int(used)) if most.isdigit() and used.isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or not allowed
        return ""
