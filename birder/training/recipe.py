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
from birder.objectives.configs import ClassificationConfig, ObjectiveConfig

INFINITY = float("inf")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training pictures are varied."""

    policy: (
        Literal["none", "birder", "autoaugment", "randaugment", "trivialaugment", "augmix", "3augment", "clip"] | None
    ) = None
    """Random changes of colour and geometry. Left out, those that suit what is learned; trivialaugment for labels."""
    level: int = 4
    """Strength of the policy birder, 0 to 10; at 0 a picture is only resized."""
    operations: int = 2
    """Changes per picture, of randaugment."""
    magnitude: int = 9
    """Strength of the changes, 0 to 30, of randaugment."""
    severity: int = 3
    """Strength of the changes, 1 to 10, of augmix."""
    min_scale: float | None = None
    """Smallest share of the area, in (0, 1], that a random crop keeps; 1 is no crop. Left out, the policy's; 0.3
    where no labels are learned."""
    flip: float = 0.5
    """Probability of mirroring left and right; clip never does, nor birder at level 0."""
    erase: float | None = None
    """Probability of blanking out a rectangle. Left out, the policy's; 0 where no labels are learned."""
    grayscale: bool = False
    """Let the policy birder take all colour away now and then."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 1.0, "flip", "erase")
        within(self, 0, 30, "magnitude")
        within(self, 1, 15, "operations")
        within(self, 0, 10, "level")
        within(self, 1, 10, "severity")
        if self.min_scale is not None and not 0.0 < self.min_scale <= 1.0:
            raise ConfigError(f"min_scale: must be above 0 and at most 1, not {self.min_scale}")


_UNKNOWN_TO = {"beta2": {"sgd", "lars"}, "eps": {"sgd"}}
"""Optimisers that do not have an option; only sgd has ``nesterov``."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the weights move."""

    name: Literal["adamw", "adam", "nadam", "rmsprop", "sgd", "lamb", "lars", "muon"] = "adamw"
    """The optimiser; muon learns faster from few pictures."""
    lr: float = 1e-3
    """Highest learning rate."""
    lr_scale: Literal["none", "linear", "sqrt"] = "none"
    """What lr is multiplied by: batch_size / lr_batch, or the root of it; none takes it as it is."""
    lr_batch: int = 256
    """Batch size that lr is meant for, where it is scaled."""
    weight_decay: float = 0.05
    """Pull towards zero, on matrices and convolutions."""
    vector_decay: float = 0.0
    """The same on norms, biases and scales."""
    token_decay: float = 0.0
    """The same on position tables and on tokens that stand for no part of the picture."""
    layer_decay: float = 1.0
    """Learning rate of a block as a share of that of the block behind it, in (0, 1]; 1 is the same for all."""
    layer_decay_min: float = 0.0
    """Smallest share of the learning rate that layer_decay leaves to the first blocks."""
    momentum: float = 0.9
    """Of sgd, lars and rmsprop, and the first beta of the others; muon's own is 0.95."""
    beta2: float = 0.999
    """Second beta of adam, adamw, nadam and lamb; how slowly rmsprop forgets."""
    nesterov: bool = True
    """Nesterov's form of momentum, of sgd."""
    eps: float | None = None
    """Added to the divisor; left out, the optimiser's own."""
    clip: float = 5.0
    """Longest gradient; longer ones are shortened to it. 0 is off."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 1e6, "lr", "weight_decay", "vector_decay", "token_decay", "clip")
        within(self, 1, INFINITY, "lr_batch")
        within(self, 0.0, 1.0, "layer_decay_min")
        for name in ("momentum", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name}: must be at least 0 and below 1, not {getattr(self, name)}")
        for name in ("layer_decay", "eps"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise ConfigError(f"{name}: must be above 0 and at most 1, not {value}")
        unknown = [name for name, without in _UNKNOWN_TO.items() if self.name in without]
        for option in [*unknown, *(["nesterov"] if self.name != "sgd" else [])]:
            if getattr(self, option) != getattr(Optim, option):
                raise ConfigError(f"{option}: {self.name} has no such option; leave it out")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes: up in a line, down along a curve, and at last to zero in a line."""

    name: Literal["cosine", "polynomial", "step", "constant", "reciprocal-sqrt"] = "cosine"
    """The curve."""
    warmup_epochs: float | None = None
    """Passes over which it rises from zero; a tenth of all, at most 5, when left out."""
    cooldown_epochs: float = 0.0
    """Passes at the end over which it falls to zero in a line."""
    final_lr: float = 0.0
    """Where cosine and polynomial end, as a share of the highest."""
    power: float = 1.0
    """Of polynomial; 1 is a line."""
    step_epochs: tuple[float, ...] = (30.0,)
    """Passes after which step multiplies by step_factor: one number for every so many, several for exactly these."""
    step_factor: float = 0.1
    """What step multiplies by."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.warmup_epochs is not None:
            within(self, 0.0, INFINITY, "warmup_epochs")
        within(self, 0.0, INFINITY, "cooldown_epochs", "power")
        within(self, 0.0, 1.0, "final_lr", "step_factor")
        rises = all(first < second for first, second in zip(self.step_epochs, self.step_epochs[1:], strict=False))
        if not self.step_epochs or not rises or not all(0.0 < epochs < INFINITY for epochs in self.step_epochs):
            raise ConfigError(f"step_epochs: must be above 0 and rise, not {self.step_epochs}")
        if self.cooldown_epochs and self.name in ("cosine", "polynomial") and not self.final_lr:
            raise ConfigError(f"cooldown_epochs: {self.name} with final_lr 0 leaves nothing to cool down; set final_lr")


@dataclass(frozen=True, kw_only=True)
class Average:
    """A moving average of the weights, which is validated and saved in their place."""

    decay: float = 0.0
    """How slowly it follows, as a share per step, such as 0.9999; 0 is no average."""
    every: int = 1
    """Steps between two updates; decay is still meant per step."""
    warmup_epochs: float = 0.0
    """Passes over which it is only a copy."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 1, INFINITY, "every")
        within(self, 0.0, INFINITY, "warmup_epochs")
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"decay: must be at least 0 and below 1, not {self.decay}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the machine is used."""

    seed: int = 0
    """Where all random numbers start."""
    device: str = "auto"
    """cpu, cuda or mps; auto takes the fastest there is."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the matrix products; auto takes bfloat16 where the device computes in it."""
    threads: int = 0
    """Threads of the network on a CPU; 0 is one for each core."""
    workers: int = 1
    """Processes that read pictures beside the training; 0 reads them in between."""
    accumulate: int = 1
    """Parts into which each process cuts its share of a batch, to save memory; the step is that of the whole batch."""
    gradient_checkpointing: bool = False
    """Compute twice what would need memory between the ways forward and back."""
    compile: bool = False
    """Translate the network with torch.compile; the first steps take minutes, the others less time."""
    channels_last: bool = False
    """Keep the channels of a position side by side in memory."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: each has all weights, or a part of them."""
    sync_batch_norm: bool = False
    """With several processes: batch norms see the batch of all."""
    validate_every: int = 1
    """Validate after every so many epochs, and after the last."""
    log_every: int = 50
    """Steps between two lines of metrics within an epoch."""
    save_minutes: float = 10.0
    """Minutes between two checkpoints within an epoch; one is written after each epoch in any case."""
    keep: int = 2
    """Checkpoints that are kept, newest first."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard as well."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0, 2**62, "seed")
        within(self, 0, 4096, "threads", "workers")
        within(self, 0, INFINITY, "save_minutes")
        within(self, 1, INFINITY, "validate_every", "accumulate", "keep", "log_every")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a run."""

    data: str
    """Pictures to learn from: a folder of species/picture.jpg, a CSV file with path and label, or shards. Without
    labels, any folder of pictures, a CSV file with path, or shards."""
    val: str | None = None
    """Labelled pictures to validate on. Where no labels are learned, each is named after its nearest neighbours."""
    start: str | None = None
    """Model to start from, a file or a published name; its classifier is replaced where the species are others."""
    start_strict: bool = True
    """Refuse a start with weights that do not fit; otherwise they are left out, and listed."""
    network: str | None = None
    """Registered name of the network; left out, that of start, or convnext_v2_atto."""
    network_options: dict[str, bool | int | float | str | tuple[int, ...]] = field(default_factory=dict)
    """Options of the network that replace the registered ones."""
    freeze: Literal["network"] | int | None = None
    """What does not learn: the stem and so many stages; or the network, but for its classifier (a linear probe)."""
    size: tuple[int, ...] | None = None
    """Height and width of the pictures, in pixels; one number is a square. Left out, those of start, or 224."""
    rgb: Literal["birder", "imagenet", "clip", "neutral", "centered", "start"] | None = None
    """Colour statistics that pictures are normalised with; left out, those of start, or imagenet."""
    epochs: int = 100
    """Passes over the pictures."""
    batch_size: int = 32
    """Pictures in one step, of all processes together."""
    balance: float = 0.0
    """How evenly the species are seen: 0 takes each picture once, 1 each species equally often, 0.5 is between."""
    repeats: int = 1
    """Times that a picture appears in a batch, each time varied otherwise; an epoch has as many steps as without."""
    objective: ObjectiveConfig = ClassificationConfig()
    """What is learned."""
    augment: Augment = Augment()
    """How pictures are varied."""
    optim: Optim = Optim()
    """How the weights move."""
    schedule: Schedule = Schedule()
    """How the learning rate goes."""
    average: Average = Average()
    """The average of the weights."""
    run: Run = Run()
    """How the machine is used."""

    def __post_init__(self) -> None:
        """Check the ranges, and make a single number of ``size`` a square."""
        if self.size is not None:
            if len(self.size) not in (1, 2) or min(self.size) < 1:
                raise ConfigError(f"size: must be height and width in pixels, not {self.size}")
            object.__setattr__(self, "size", (self.size[0], self.size[-1]))
        within(self, 1, INFINITY, "epochs", "batch_size", "repeats")
        within(self, 0.0, 1.0, "balance")
        if isinstance(self.freeze, int):
            within(self, 0, INFINITY, "freeze")
        ramps = {"warmup_epochs": self.schedule.warmup_epochs, "cooldown_epochs": self.schedule.cooldown_epochs}
        if sum(epochs or 0.0 for epochs in ramps.values()) > self.epochs:
            together = " and ".join(f"{name} {epochs:g}" for name, epochs in ramps.items() if epochs)
            raise ConfigError(f"schedule.warmup_epochs: {together} must be at most epochs, {self.epochs}")
        if self.rgb == "start" and self.start is None:
            raise ConfigError("rgb: there is no start to take the colour statistics from")


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
