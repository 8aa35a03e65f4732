"""Every choice of a training run, written down.

A recipe is read and checked without torch. What ran is saved as ``recipe.toml`` beside the weights, with the choices
that were left to the machine resolved, and runs again as it is.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from birder.config import check, from_dict, to_dict, within
from birder.errors import ConfigError
from birder.files import write_text
from birder.objectives.configs import ClassificationConfig

INFINITY = float("inf")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training pictures are varied."""

    min_scale: float = 0.35
    """Smallest share of the picture's area, in (0, 1], that a random crop keeps; 1 is no crop."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "trivialaugment"
    """Random changes of colour and geometry."""
    operations: int = 2
    """Changes per picture, of randaugment."""
    magnitude: int = 9
    """Strength of the changes, 0 to 30, of randaugment."""
    erase: float = 0.0
    """Probability of blanking out a rectangle."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 1.0, "flip", "erase")
        within(self, 0, 30, "magnitude")
        within(self, 1, 15, "operations")
        if not 0.0 < self.min_scale <= 1.0:
            raise ConfigError(f"min_scale: must be above 0 and at most 1, not {self.min_scale}")


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the weights move."""

    name: Literal["adamw", "muon", "sgd"] = "adamw"
    """The optimiser; muon learns faster from few pictures."""
    lr: float = 1e-3
    """Highest learning rate."""
    weight_decay: float = 0.05
    """Pull towards zero, on matrices and convolutions: never on norms and biases."""
    momentum: float = 0.9
    """Of sgd (Nesterov's), and the first beta of adamw; muon's own is 0.95."""
    clip: float = 5.0
    """Longest gradient; longer ones are shortened to it. 0 is off."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 1e6, "lr", "weight_decay", "clip")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum: must be at least 0 and below 1, not {self.momentum}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes: up in a line, then down along a cosine."""

    warmup_epochs: float | None = None
    """Passes over which it rises from zero; a tenth of all, at most 5, when left out."""
    final_lr: float = 0.0
    """Where it ends, as a share of the highest."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.warmup_epochs is not None:
            within(self, 0.0, INFINITY, "warmup_epochs")
        within(self, 0.0, 1.0, "final_lr")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the machine is used."""

    seed: int = 0
    """Where all random numbers start."""
    device: str = "auto"
    """cpu, cuda or mps; auto takes the fastest there is."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products; auto takes bfloat16 where the device computes in it."""
    threads: int = 0
    """Threads of the network on a CPU; 0 is one for each core."""
    workers: int = 1
    """Processes that read pictures beside the training; 0 reads them in between."""
    validate_every: int = 1
    """Validate after every so many epochs, and after the last."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0, 2**62, "seed")
        within(self, 0, INFINITY, "threads", "workers")
        within(self, 1, INFINITY, "validate_every")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a run."""

    data: str
    """Pictures to learn from: a folder of species/picture.jpg, or a CSV file with the columns path and label."""
    val: str | None = None
    """Pictures to validate on, in the same form."""
    network: str = "convnext_v2_atto"
    """Registered name of the network."""
    network_options: dict[str, bool | int | float | str | tuple[int, ...]] = field(default_factory=dict)
    """Options of the network that replace the registered ones."""
    size: tuple[int, ...] = (224, 224)
    """Height and width, in pixels, that pictures are brought to; one number is a square."""
    rgb: Literal["birder", "imagenet", "clip", "neutral", "centered"] = "imagenet"
    """Colour statistics that pictures are normalised with."""
    epochs: int = 100
    """Passes over the pictures."""
    batch_size: int = 32
    """Pictures in one step."""
    objective: ClassificationConfig = ClassificationConfig()
    """What is learned."""
    augment: Augment = Augment()
    """How pictures are varied."""
    optim: Optim = Optim()
    """How the weights move."""
    schedule: Schedule = Schedule()
    """How the learning rate goes."""
    run: Run = Run()
    """How the machine is used."""

    def __post_init__(self) -> None:
        """Check the ranges, and make a single number of ``size`` a square."""
        if len(self.size) not in (1, 2) or min(self.size) < 1:
            raise ConfigError(f"size: must be height and width in pixels, not {self.size}")
        object.__setattr__(self, "size", (self.size[0], self.size[-1]))
        within(self, 1, INFINITY, "epochs", "batch_size")
        if (self.schedule.warmup_epochs or 0.0) > self.epochs:
            longest = f"must be at most epochs, {self.epochs}, not {self.schedule.warmup_epochs}"
            raise ConfigError(f"schedule.warmup_epochs: {longest}")


def read_recipe(path: Path) -> Recipe:
    """A recipe from a TOML file.

    Raises:
        ConfigError: Not there, no TOML, or with mistakes: all of them, each with its dotted path.
    """
    return _checked(path, lambda table: from_dict(Recipe, table))


def read_table(path: Path) -> dict[str, Any]:
    """The entries of a recipe file, which may leave some to the command line; checked.

    Raises:
        ConfigError: Not there, no TOML, or with mistakes: all of them, each with its dotted path.
    """

    def partial(table: dict[str, Any]) -> dict[str, Any]:
        check(Recipe, table)
        return table

    return _checked(path, partial)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as TOML, atomically."""
    write_text(path, tomli_w.dumps(to_dict(recipe)))


def _checked(path: Path, convert: Callable[[dict[str, Any]], T]) -> T:
    """What ``convert`` makes of a TOML file's table; errors name the file."""
    try:
        return convert(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}:\n{error}") from None
    except ValueError as error:  # also text that is no UTF-8
        raise ConfigError(f"{path} is no TOML file: {error}") from error
