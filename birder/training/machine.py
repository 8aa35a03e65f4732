"""What a recipe leaves open, decided for this machine and written down."""

from dataclasses import replace
from typing import Any

import torch

from birder.config import to_dict
from birder.cores import available_cores
from birder.device import computes_bfloat16, resolve_device
from birder.distributed import local_rank, local_world_size, world_size
from birder.errors import ConfigError
from birder.objectives.configs import ObjectiveConfig
from birder.training.recipe import Augment, Recipe, Run


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
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if computes_bfloat16(device.type) else "float32"
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
    where = device.type if run.device == "auto" else run.device
    return replace(
        recipe,
        augment=_suited(recipe.augment, recipe.objective),
        schedule=replace(recipe.schedule, warmup_epochs=warmup),
        run=replace(
            run, device=where, dtype=dtype, threads=run.threads or max(1, available_cores() // local_world_size())
        ),
    )


def _suited(augment: Augment, objective: ObjectiveConfig) -> Augment:
    """The options of the variation with those that are left open as the objective wants them."""
    suggested = {name: getattr(objective, name) for name in ("policy", "min_scale", "erase")}
    return replace(augment, **{name: value for name, value in suggested.items() if getattr(augment, name) is None})


def same_run(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes train the same, wherever they run."""
    return _anywhere(first) == _anywhere(second)


def differences(first: Recipe, second: Recipe) -> list[str]:
    """What two runs differ in, such as ``epochs 3, not 5``; nothing that is only the machine's."""
    values = [_flat(to_dict(_anywhere(recipe))) for recipe in (first, second)]
    names = [name for name in {**values[0], **values[1]} if values[0].get(name) != values[1].get(name)]
    return [f"{name} {values[0].get(name)}, not {values[1].get(name)}" for name in names]


def _flat(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return flat


def _anywhere(recipe: Recipe) -> Recipe:
    return replace(recipe, run=Run(seed=recipe.run.seed, validate_every=recipe.run.validate_every))
