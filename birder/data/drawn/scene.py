"""Composing a picture: a backdrop, what the birds are on, the birds themselves, and what hangs before them."""

from dataclasses import dataclass
from types import MappingProxyType

from numpy.random import Generator
from PIL import Image

from birder.data.drawn.backdrop import backdrop
from birder.data.drawn.chance import between, chosen
from birder.data.drawn.light import develop
from birder.data.drawn.plumage import paint
from birder.data.drawn.pose import strike_pose
from birder.data.drawn.props import Place, hang_before, put_below
from birder.data.drawn.shapes import Support
from birder.data.drawn.species import Species

PLACES = MappingProxyType(
    {"branch": "wood", "trunk": "wood", "air": "wood", "ground": "meadow", "water": "lake", "shallows": "lake"}
)
"""Support -> the kind of place where it is found; birds of one picture share it."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One bird in a picture."""

    tile: Image.Image
    """The visible part of the bird, RGBA, no larger than it."""
    left: int
    """Where the tile begins, in pixels from the left."""
    top: int
    """Where the tile begins, in pixels from the top."""
    place: Place
    """Where and on what the bird is."""

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is seen of the bird, in pixels."""
        solid = self.tile.getchannel("A").point(lambda alpha: 255 if alpha >= 64 else 0)
        left, top, right, bottom = solid.getbbox() or (0, 0, *self.tile.size)
        return self.left + left, self.top + top, self.left + right, self.top + bottom


def cast(label: int, number: int, everyone: tuple[Species, ...], rng: Generator) -> list[tuple[int, Support]]:
    """Labels and supports of the birds of a picture: the main bird, and others that are found at the same place."""
    first = chosen(rng, everyone[label].shape.supports)
    fitting = [
        (i, support)
        for i, species in enumerate(everyone)
        for support in species.shape.supports
        if PLACES[support] == PLACES[first]
    ]
    return [(label, first), *(chosen(rng, fitting) for _ in range(number - 1))]


def compose(
    birds: list[tuple[Species, Support]], size: tuple[int, int], difficulty: float, rng: Generator
) -> tuple[Image.Image, list[Actor]]:
    """A picture of (height, width) pixels of these birds, the first of which is the main one."""
    actors: list[Actor] = []
    share = between(rng, 0.82 - 0.36 * difficulty, 0.92 - 0.12 * difficulty) / len(birds) ** 0.7
    for species, support in birds:
        part = share * between(rng, 0.9, 1.0)
        actors.append(_enter(species, support, size, part, actors=actors, rng=rng))
    horizon = min(actor.place.y / size[0] for actor in actors) - between(rng, 0.06, 0.24)
    picture = backdrop(birds[0][1], size, max(0.05, horizon), difficulty, rng)
    places = [actor.place for actor in actors]
    put_below(picture, places, [(actor.tile, actor.left) for actor in actors], difficulty, rng)
    for actor in sorted(actors, key=lambda actor: actor.place.y):
        picture.paste(actor.tile, (actor.left, actor.top), actor.tile)
    hang_before(picture, places, difficulty, rng)
    return develop(picture, difficulty, rng), actors


def _enter(
    species: Species, support: Support, size: tuple[int, int], share: float, *, actors: list[Actor], rng: Generator
) -> Actor:
    """Paint a bird that fills a share of the frame, and place it where it hides little of those already there."""
    pose = strike_pose(species.shape, support, rng)
    bird = paint(species, pose, (size[0] * share, size[1] * share), rng)
    tile = bird.image
    x, y = bird.feet
    if support in ("water", "shallows"):
        y -= 0.08 * bird.unit if support == "shallows" else 0
        tile = tile.crop((0, 0, tile.width, max(4, round(y))))
    free_x, free_y = max(0, size[1] - tile.width), max(0, size[0] - tile.height)
    spots = [(round(free_x * between(rng, 0.1, 0.9)), round(free_y * _height(support, rng))) for _ in range(12)]
    left, top = min(spots, key=lambda spot: _covered(spot, tile, actors)) if actors else spots[0]
    place = Place(x=left + x, y=top + y, unit=bird.unit, support=support, facing=pose.facing)
    return Actor(tile=tile, left=left, top=top, place=place)


def _height(support: Support, rng: Generator) -> float:
    """How far down the free part of the frame a bird is: what stands or swims is rather low."""
    return between(rng, 0.1, 0.8) if support in ("branch", "trunk", "air") else between(rng, 0.35, 0.9)


def _covered(spot: tuple[int, int], tile: Image.Image, actors: list[Actor]) -> int:
    """How many pixels the frame of a tile at this spot shares with the birds already there."""
    shared = 0
    for actor in actors:
        left, top, right, bottom = actor.box()
        wide = min(right, spot[0] + tile.width) - max(left, spot[0])
        high = min(bottom, spot[1] + tile.height) - max(top, spot[1])
        shared += max(0, wide) * max(0, high)
    return shared
