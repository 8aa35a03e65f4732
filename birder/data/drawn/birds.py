"""The public face of the drawn birds: the knobs, and drawing one picture."""

from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from birder.data.drawn.chance import generator
from birder.data.drawn.scene import cast, compose
from birder.data.drawn.species import MOST_FAMILIES, MOST_PER_FAMILY, Species, invent
from birder.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Box:
    """The smallest upright rectangle around a bird, in pixels of the upright picture."""

    label: int
    """Label of the bird's species."""
    left: int
    """First column."""
    top: int
    """First row."""
    right: int
    """One past the last column."""
    bottom: int
    """One past the last row."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawn picture and what is on it."""

    image: Image.Image
    """The picture, RGB."""
    label: int
    """Label of the main bird's species."""
    name: str
    """Name of the main bird's species."""
    boxes: tuple[Box, ...]
    """One per bird, the main bird first; also around what leaves and twigs hide of it."""


@dataclass(frozen=True, kw_only=True)
class DrawnBirds:
    """A world of invented birds, and how difficult its pictures are.

    Equal knobs give equal species and equal pictures, in every process and in any order.

    Raises:
        ConfigError: A knob is out of range.
    """

    families: int = 4
    """How many families; species of a family are built alike."""
    species: int = 12
    """How many species in all, spread over the families as evenly as can be."""
    difficulty: float = 0.5
    """From 0 (large, unlike birds before a plain background) to 1 (fine differences, clutter, poor light)."""
    size: tuple[int, int] = (128, 128)
    """Height and width of a picture in pixels."""
    seed: int = 0
    """Another seed is another world."""
    birds: tuple[int, int] = (1, 1)
    """The fewest and the most birds in a picture."""
    metadata: bool = False
    """Whether written files say when and with what they were taken, and lie as a hand-held camera stores them."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        mistakes = [f"drawn birds: {mistake}" for mistake in self._mistakes()]
        if mistakes:
            raise ConfigError("\n".join(mistakes))

    def _mistakes(self) -> list[str]:
        """What is wrong with the knobs, one line each."""
        if len(self.size) != 2 or len(self.birds) != 2:
            return [f"size is {self.size} and birds is {self.birds}; both are two numbers"]
        fewest, most = self.birds
        most_species = MOST_PER_FAMILY * self.families
        checks = (
            (1 <= self.families <= MOST_FAMILIES, f"families is {self.families}; use 1 to {MOST_FAMILIES}"),
            (
                self.families <= self.species <= most_species,
                f"species is {self.species}; use {self.families} (one per family) to {most_species}",
            ),
            (0 <= self.difficulty <= 1, f"difficulty is {self.difficulty}; use 0 (easy) to 1 (hard)"),
            (
                min(self.size) >= 32 and max(self.size) <= 4096,
                f"size is {self.size}; use (height, width) of 32 to 4096",
            ),
            (self.seed >= 0, f"seed is {self.seed}; use 0 or more"),
            (1 <= fewest <= most <= 8, f"birds is {self.birds}; use (fewest, most) with 1 <= fewest <= most <= 8"),
        )
        return [mistake for holds, mistake in checks if not holds]

    @cached_property
    def species_list(self) -> tuple[Species, ...]:
        """The species by label; those of a family follow each other."""
        return invent(self.families, self.species, self.difficulty, self.seed)

    def draw(self, label: int, index: int, split: str = "train") -> Drawing:
        """Draw one picture; it depends on nothing but the knobs and these arguments.

        Args:
            label: Which species.
            index: Which of its pictures; there is no end to them.
            split: Pictures of different splits are different.

        Raises:
            ConfigError: There is no such species or picture.
        """
        if not 0 <= label < self.species:
            raise ConfigError(f"drawn birds: there is no label {label}; use 0 to {self.species - 1}")
        if index < 0:
            raise ConfigError(f"drawn birds: there is no picture {index}; use 0 or more")
        rng = generator(self.seed, split, label, index)
        everyone = self.species_list
        number = int(rng.integers(self.birds[0], self.birds[1] + 1))
        birds = cast(label, number, everyone, rng)
        image, actors = compose([(everyone[i], support) for i, support in birds], self.size, self.difficulty, rng)
        boxes = []
        for (i, _), actor in zip(birds, actors, strict=True):
            left, top, right, bottom = actor.box()
            boxes.append(Box(label=i, left=left, top=top, right=right, bottom=bottom))
        return Drawing(image=image, label=label, name=everyone[label].name, boxes=tuple(boxes))
