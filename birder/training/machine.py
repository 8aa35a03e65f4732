"""What a recipe leaves open, decided for this machine and written down."""

import os
from dataclasses import replace

import torch

from birder.errors import ConfigError
from birder.training.recipe import Recipe, Run


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with all that it leaves open decided; what was set stays.

    Raises:
        ConfigError: The device is not there.
    """
    run = recipe.run
    device = resolve_device(run.device)
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if computes_bfloat16(device) else "float32"
    warmup = recipe.schedule.warmup_epochs
    warmup = min(recipe.epochs / 10, 5.0) if warmup is None else warmup
    return replace(
        recipe,
        schedule=replace(recipe.schedule, warmup_epochs=warmup),
        run=replace(run, device=str(device), dtype=dtype, threads=run.threads or available_cores()),
    )


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux, where a container may have a part of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def same_run(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes train the same, wherever they run."""
    return _anywhere(first) == _anywhere(second)


def _anywhere(recipe: Recipe) -> Recipe:
    return replace(recipe, run=Run(seed=recipe.run.seed, validate_every=recipe.run.validate_every))
