"""What the options of all objectives have in common."""

from dataclasses import dataclass
from typing import ClassVar

from birder.errors import ConfigError

INFINITY = float("inf")


@dataclass(frozen=True, kw_only=True)
class Views:
    """How often a picture is shown in one batch, each time varied otherwise."""

    large: int = 1
    """Views of the run's size."""
    small: int = 0
    """Views of a smaller size, besides."""
    small_size: int = 96
    """Height and width of the small ones, in pixels."""
    small_scale: tuple[float, float] = (0.1, 0.5)
    """Least and greatest share of the area that a small one shows."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Options of some objective; a recipe's ``objective.name`` says of which."""

    labelled: ClassVar[bool] = True
    """Whether it learns from labels; where not, any pictures will do, and the network has no classifier."""
    policy: ClassVar[str] = "trivialaugment"
    """How pictures are varied, where the recipe leaves it open; see ``birder.data.augment``."""
    min_scale: ClassVar[float | None] = None
    """Smallest share of the area that a crop keeps, where the recipe leaves it open; None is the policy's."""
    erase: ClassVar[float | None] = None
    """How often a rectangle is blanked out, where the recipe leaves it open; None is the policy's."""

    name: str
    """Name of the objective."""

    @property
    def views(self) -> Views:
        """What it wants to see of each picture."""
        return Views()


@dataclass(frozen=True, kw_only=True)
class Unlabelled(ObjectiveConfig):
    """Options of an objective that any pictures will do for."""

    labelled = False
    min_scale = 0.3
    erase = 0.0


def check_ratio(ratio: float, name: str = "mask_ratio") -> None:
    """Refuse a share that is not between 0 and 1."""
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"{name}: must be above 0 and below 1, not {ratio}")


def check_range(name: str, limits: tuple[float, float], most: float = 1.0, *, rising: bool = True) -> None:
    """Refuse two numbers that are no range above 0."""
    low, high = limits
    if not (0.0 < low <= most and 0.0 < high <= most and max(limits) < INFINITY and (low <= high or not rising)):
        bounds = "above 0" if most == INFINITY else f"above 0 and at most {most:g}"
        raise ConfigError(f"{name}: must be two numbers {bounds}{', the less first' * rising}, not {limits}")


def check_momentum(momentum: tuple[float, float]) -> None:
    """Refuse two numbers that do not lie in 0 to 1."""
    if not all(0.0 <= value <= 1.0 for value in momentum):
        raise ConfigError(f"momentum: must be two numbers in 0 to 1, not {momentum}")


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Refuse widths that are none."""
    if not widths or min(widths) < 1:
        raise ConfigError(f"{name}: must be one width or more, each 1 or more, not {widths}")


def check_temperatures(config: object, *names: str) -> None:
    """Refuse temperatures that are not above 0."""
    for name in names:
        if not 0.0 < getattr(config, name) < INFINITY:
            raise ConfigError(f"{name}: must be above 0, not {getattr(config, name)}")
