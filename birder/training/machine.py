"""What a recipe leaves open, decided for this machine and written down."""

from dataclasses import replace

from birder.device import available_cores, computes_bfloat16, resolve_device
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


def same_run(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes train the same, wherever they run."""
    return _anywhere(first) == _anywhere(second)


def _anywhere(recipe: Recipe) -> Recipe:
    return replace(recipe, run=Run(seed=recipe.run.seed, validate_every=recipe.run.validate_every))
