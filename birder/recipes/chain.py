"""Trainings one after the other, each of which starts with what the one before has left."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from birder.errors import ConfigError
from birder.training.recipe import Recipe, write_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from birder.training.fit import Fitted


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of a chain."""

    name: str
    """What it is, in a word or two, such as ``fine-tuning``; also the name of its folder."""
    recipe: Recipe
    """Every choice; the start is left open, but in the first stage."""
    purpose: str
    """What it is for, and where its choices come from."""
    cost: str = ""
    """What it takes: hardware and hours."""


def run_chain(stages: Sequence[Stage], folder: Path, *, console: "Console | None" = None) -> "list[Fitted]":
    """Train all stages; a chain that was stopped goes on where it was.

    Args:
        stages: In their order.
        folder: Gets a run folder for each stage.
        console: Where progress is shown; None for nowhere.

    Raises:
        BirderError: See ``birder.training.fit.fit``.
    """
    from birder.training.fit import fit

    fitted: list[Fitted] = []
    for stage in stages:
        recipe = replace(stage.recipe, start=str(fitted[-1].model)) if fitted else stage.recipe
        fitted.append(fit(recipe, folder / stage.name, console=console))
    return fitted


def write_chain(stages: Sequence[Stage], folder: Path) -> list[str]:
    """Write the stages as recipe files, to be changed and run one by one; returns the commands, in their order.

    Args:
        stages: In their order.
        folder: Gets ``STAGE.toml`` for each; the runs will lie beside them.

    Raises:
        ConfigError: There are such files already, which may have been changed.
    """
    commands, start = [], stages[0].recipe.start
    there = [path for stage in stages if (path := folder / f"{stage.name}.toml").exists()]
    if there:
        raise ConfigError(f"{there[0]} is there already: name another folder, or remove what you do not want to keep")
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        path, run = folder / f"{stage.name}.toml", folder / stage.name
        write_recipe(path, replace(stage.recipe, start=start))
        objective = stage.recipe.objective
        command = "train" if objective.labelled else f"pretrain {objective.name}"
        commands.append(f"birder {command} --recipe {shlex.quote(str(path))} --out {shlex.quote(str(run))}")
        start = str(run / ("best.safetensors" if objective.labelled else "last.safetensors"))
    return commands
