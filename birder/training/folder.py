"""The folder of a run: recipe, state, model files and metrics.

recipe.toml          every choice; runs again as it is
metrics.jsonl        one line per epoch
last.safetensors     the model after the last epoch
best.safetensors     the model with the best accuracy on the validation pictures; without these, the last
checkpoints/         what a stopped run needs to go on
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from birder.errors import ConfigError
from birder.training.checkpoints import Checkpoints
from birder.training.machine import differences, same_run
from birder.training.recipe import Recipe, read_recipe, write_recipe
from birder.training.runs import LOCK, METRICS, RECIPE, summary_of

LOCK_TIMEOUT_S = 20.0
"""Processes that read pictures for a run that was killed keep its folder for some seconds more."""


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are."""

    path: Path
    """The folder."""

    @property
    def recipe(self) -> Path:
        """Every choice of the run."""
        return self.path / RECIPE

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / METRICS

    @property
    def best(self) -> Path:
        """The best model."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The newest model."""
        return self.path / "last.safetensors"

    @contextmanager
    def locked(self, wanted: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """No other process trains in this folder while the body runs.

        Args:
            wanted: Whether it is worth waiting any longer for another process that does.

        Raises:
            ConfigError: One does already.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S, cancel_check=lambda: not wanted())
        except Timeout as error:
            raise ConfigError(f"another process trains in {self.path}: wait for it, or name another folder") from error
        try:
            yield
        finally:
            lock.release()

    def checkpoints(self, keep: int) -> Checkpoints:
        """What a stopped run needs to go on; the newest ``keep`` stay."""
        return Checkpoints(self.path / "checkpoints", keep=keep)


def open_folder(recipe: Recipe, out: Path | None) -> RunFolder:
    """The folder of a run: a new one, or that of the same run where it was stopped.

    Args:
        recipe: Every choice of the run, resolved.
        out: The folder; None takes ``runs/NETWORK``, or where that is taken ``runs/NETWORK-2`` and so on.

    Raises:
        ConfigError: ``out`` holds something else: another run, or files that are none; or it cannot be written to.
    """
    for path in _candidates(recipe) if out is None else [out]:
        # Where the same run is finished, one that named the folder is told so, and any other goes to the next.
        fits = partial(_suits, path, recipe, _belongs if out is not None else _goes_on)
        if fits() and (folder := _begun(RunFolder(path), recipe, fits)) is not None:
            return folder
    assert out is not None  # there is always a next number
    raise ConfigError(
        f"{out} holds something else than this run{_in_what(out, recipe)}: name another folder, or remove it"
    )


def _begun(folder: RunFolder, recipe: Recipe, fits: Callable[[], bool]) -> RunFolder | None:
    """The folder with the recipe in it; None if another command began there at the same moment."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.locked(wanted=fits):
            if not fits():
                return None
            write_recipe(folder.recipe, recipe)
            return folder
    except ConfigError:
        if fits():
            raise
        return None
    except OSError as error:
        raise ConfigError(f"{folder.path}: {error.strerror}; name another folder") from error


def _candidates(recipe: Recipe) -> Iterator[Path]:
    first = Path("runs") / (recipe.network or "network")
    return (first if number == 1 else first.with_name(f"{first.name}-{number}") for number in count(1))


def _suits(path: Path, recipe: Recipe, own: Callable[[Path, Recipe], bool]) -> bool:
    return _is_free(path) or own(path, recipe)


def _is_free(path: Path) -> bool:
    # What begins with a dot was left by a run that was killed as it began, or by the system.
    return not path.exists() or (path.is_dir() and all(item.name.startswith(".") for item in path.iterdir()))


def _belongs(path: Path, recipe: Recipe) -> bool:
    try:
        return same_run(read_recipe(RunFolder(path).recipe), recipe)
    except ConfigError:
        return False


def _in_what(path: Path, recipe: Recipe) -> str:
    """In what the run in a folder differs, if there is one."""
    try:
        found = differences(read_recipe(RunFolder(path).recipe), recipe)
    except ConfigError:
        return ""
    return f" (it has {', '.join(found[:5])}{', …' if len(found) > 5 else ''})"


def _goes_on(path: Path, recipe: Recipe) -> bool:
    run = summary_of(path)
    return _belongs(path, recipe) and (run is None or run.epoch < recipe.epochs)
