"""What a recipe leaves open, decided for this machine and written down."""

from dataclasses import replace

import torch

from birder.cores import available_cores
from birder.device import computes_bfloat16, resolve_device
from birder.distributed import local_rank, world_size
from birder.errors import ConfigError
from birder.training.recipe import Recipe, Run


def training_device(run: Run) -> torch.device:
    """Where this process computes; with one process per GPU, the one of its number.

    Raises:
        ConfigError: The device is not there.
    """
    device = resolve_device(run.device)
    return torch.device("cuda", local_rank()) if device.type == "cuda" and device.index is None else device


def resolve(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with all that it leaves to the machine decided; what was set stays.

    Raises:
        ConfigError: Options that the machine, or so many processes, cannot do.
    """
    run = recipe.run
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if computes_bfloat16(device) else "float32"
    warmup = recipe.schedule.warmup_epochs
    warmup = min(recipe.epochs / 10, 5.0) if warmup is None else warmup
    if recipe.batch_size < world_size() * run.accumulate:
        raise ConfigError(
            f"batch_size: {recipe.batch_size} pictures cannot be shared by {world_size()} processes in "
            f"{run.accumulate} parts each"
        )
    if run.sync_batch_norm and device.type == "cpu":
        raise ConfigError("run.sync_batch_norm: batch norms can be joined on GPUs only")
    if run.parallel == "fsdp" and dtype == "float16":
        raise ConfigError("run.dtype: float16 does not go with run.parallel fsdp; take bfloat16")
    return replace(
        recipe,
        schedule=replace(recipe.schedule, warmup_epochs=warmup),
        run=replace(run, device=device.type, dtype=dtype, threads=run.threads or available_cores()),
    )


def same_run(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes train the same, wherever they run."""
    return _anywhere(first) == _anywhere(second)


def _anywhere(recipe: Recipe) -> Recipe:
    return replace(recipe, run=Run(seed=recipe.run.seed, validate_every=recipe.run.validate_every))
