"""Where to compute: devices, and the types they multiply in.

Torch is imported when it is asked, not before: a start that remembers what computes needs none (``device_name``).
"""

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from birder.cores import processor
from birder.errors import ConfigError

if TYPE_CHECKING:
    import torch

_NVIDIA_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/proc/driver/nvidia")
"""That there are where a GPU can be used; dxg is in Linux under Windows. They may be made by the first who asks."""
_NVIDIA = "0x10de"
"""The maker of a device, in /sys."""


def resolve_device(name: str = "auto") -> "torch.device":
    """The device of that name; ``auto`` is the fastest there is.

    Raises:
        ConfigError: The device is not there.
    """
    import torch

    if name == "auto":
        available = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return available or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"this machine has no device {name!r}; cpu is always there") from error
    return device


def device_name(name: str = "auto") -> str:
    """The name of what ``resolve_device`` finds; torch is asked only where it cannot be told without.

    Raises:
        ConfigError: The device is not there.
    """
    if name == "cpu" or (name == "auto" and _surely_no_accelerator()):
        return "cpu"
    device = resolve_device(name)
    return "cpu" if device.type == "cpu" else str(device)


def computes_bfloat16(device: str) -> bool:
    """Whether a device multiplies matrices in bfloat16, rather than imitating it.

    Args:
        device: Such as ``cpu`` or ``cuda:0``.
    """
    if device == "cpu":
        abilities = processor()[1].split()
        return "avx512_bf16" in abilities or "amx_tile" in abilities if abilities else _torch_on_bfloat16()
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def _torch_on_bfloat16() -> bool:
    """What torch finds out about the processor where the system says nothing of its abilities."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _surely_no_accelerator() -> bool:
    """Torch would find none that it was made for; False where that cannot be told without it."""
    if sys.platform != "linux":
        return False
    try:
        made_for = importlib.metadata.version("torch").partition("+")[2]
    except importlib.metadata.PackageNotFoundError:
        return False
    if importlib.metadata.entry_points(group="torch.backends"):
        return False
    if made_for.startswith("cpu"):
        return True
    return not made_for.removeprefix("cu").strip("0123456789") and not _has_nvidia()


def _has_nvidia() -> bool:
    makers = Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(map(os.path.exists, _NVIDIA_FILES)) or any(_read(maker).strip() == _NVIDIA for maker in makers)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return _NVIDIA  # it may be one
