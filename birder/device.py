"""Where to compute: devices, and the types they multiply in."""

import torch

from birder.errors import ConfigError


def resolve_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is the fastest there is.

    Raises:
        ConfigError: The device is not there.
    """
    if name == "auto":
        available = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return available or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"this machine has no device {name!r}; cpu is always there") from error
    return device


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16, rather than imitating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
