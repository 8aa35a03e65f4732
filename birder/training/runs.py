"""What is known of the runs in a folder, without torch: how far each is, and how good."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from birder.errors import BirderError
from birder.training.recipe import Recipe, read_recipe

RECIPE, METRICS, LOCK = "recipe.toml", "metrics.jsonl", ".lock"
"""Files of a run."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One run."""

    path: Path
    """Its folder."""
    recipe: Recipe
    """Every choice of it."""
    epoch: int
    """Epochs that are over."""
    best: float | None
    """Best accuracy on the validation pictures, 0-1; None without these."""
    loss: float | None
    """Mean loss of the last epoch; None before its end."""
    state: str
    """``running``, ``finished`` or ``stopped``."""
    written: datetime
    """When it last wrote metrics."""


def find_runs(folder: Path) -> list[Summary]:
    """The runs in a folder and in those below it, newest last; what cannot be read is left out."""
    found = [summary for recipe in folder.rglob(RECIPE) if (summary := summary_of(recipe.parent)) is not None]
    return sorted(found, key=lambda summary: summary.written)


def summary_of(path: Path) -> Summary | None:
    """What is known of one run; None where there is none."""
    try:
        recipe = read_recipe(path / RECIPE)
        written = datetime.fromtimestamp((path / METRICS).stat().st_mtime)
    except (BirderError, OSError):
        return None
    epochs = [entry for entry in entries(path) if entry.get("kind") == "epoch" and _number(entry, "epoch") is not None]
    kinds = ("val_top1", "val_knn")  # a run has one of them
    accuracies = [value for entry in epochs for kind in kinds if (value := _number(entry, kind)) is not None]
    over = int(epochs[-1]["epoch"]) if epochs else 0
    return Summary(
        path=path,
        recipe=recipe,
        epoch=over,
        best=max(accuracies, default=None),
        loss=_number(epochs[-1], "loss") if epochs else None,
        state="running" if is_locked(path) else "finished" if over >= recipe.epochs else "stopped",
        written=written,
    )


def entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; one that was cut off is left out."""
    try:
        lines = (path / METRICS).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):  # the last one, of a run that was killed as it wrote; or damage
            continue
    return [entry for entry in found if isinstance(entry, dict)]


def is_locked(path: Path) -> bool:
    """Whether a process trains in this folder; unknown, and so no, where the folder can only be read."""
    if not (path / LOCK).exists():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _number(entry: dict[str, Any], name: str) -> float | None:
    """A finite number of an entry; None for anything else, which a damaged file may hold."""
    value = entry.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return value
