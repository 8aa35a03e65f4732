"""This computer: processor or GPU, memory, versions of packages. On it depends what is the fastest way to compute."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import birder
from birder.cores import available_cores

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "Pillow")
"""Packages that compute, and that read."""


def facts() -> dict[str, Any]:
    """What a run should remember: system, processor, cores that may be used, memory in GiB, versions."""
    return {
        "system": platform.platform(),
        "processor": _processor()[0],
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "python": platform.python_version(),
        **versions(),
    }


def describe_machine(device: "torch.device") -> dict[str, str]:
    """The processor with its abilities and its cores, or the GPU: equal on equal machines."""
    if device.type == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(device)
        capability = f"{properties.major}.{properties.minor}"
        return {"gpu": properties.name, "capability": capability, "memory": str(properties.total_memory)}
    model, flags = _processor()
    return {"processor": model, "flags": flags, "cores": str(available_cores()), "device": device.type}


def versions() -> dict[str, str]:
    """Versions of birder and of those ``PACKAGES`` that are installed."""
    found = {"birder": birder.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def free_memory(device: "torch.device") -> int | None:
    """Bytes that may still be taken; None where that cannot be told."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    free = [amount for amount in (_free_of_machine(), _free_of_container()) if amount is not None]
    return min(free, default=None)


def _processor() -> tuple[str, str]:
    """Name and abilities."""
    lines = _read("/proc/cpuinfo").splitlines()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = entries.get("model name") or platform.processor() or platform.machine()
    return name, entries.get("flags") or entries.get("Features") or ""


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
