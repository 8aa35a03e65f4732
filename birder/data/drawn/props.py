"""The things around a bird: branches, trunks, grass, ripples and reflections below, leaves and blades before it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from birder.data.drawn.chance import between, chosen
from birder.data.drawn.colours import Colour, mix, shade
from birder.data.drawn.curves import Points, flat, smooth
from birder.data.drawn.shapes import Support

_BARK: tuple[Colour, ...] = ((112, 92, 74), (92, 80, 72), (132, 116, 96), (84, 68, 56))
_LEAVES: tuple[Colour, ...] = ((104, 136, 62), (72, 112, 66), (138, 146, 68), (150, 116, 58), (94, 126, 96))
_FINE = 2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and on what a bird is."""

    x: float
    """Pixels from the left to where the bird touches what it is on."""
    y: float
    """Pixels from the top to where the bird touches what it is on."""
    unit: float
    """One body length of the bird, in pixels."""
    support: Support
    """What the bird is on."""
    facing: int
    """1 when the bird faces right, -1 when it faces left."""


def put_below(
    picture: Image.Image, places: list[Place], birds: list[tuple[Image.Image, int]], difficulty: float, rng: Generator
) -> None:
    """Paint what the birds are on, with their shadows and reflections.

    Args:
        picture: The backdrop; changed in place.
        places: One per bird.
        birds: One per bird: its tile and where that begins, in pixels from the left.
        difficulty: More of it brings more leaves and grass.
        rng: Source of chance.
    """
    for place, (tile, left) in zip(places, birds, strict=True):
        if place.support in ("water", "shallows"):
            _reflect(picture, place, tile, left)
    layer = Image.new("RGBA", (picture.width * _FINE, picture.height * _FINE))
    draw = ImageDraw.Draw(layer)
    for place in places:
        if place.support == "branch":
            _branch(draw, layer.size, place, difficulty, rng)
        elif place.support == "trunk":
            _trunk(draw, layer.size, place, rng)
        elif place.support == "ground":
            _shadow(picture, place)
            _tuft(draw, place, round(5 + 12 * difficulty), rng)
        elif place.support != "air":
            _ripples(draw, place, rng)
    small = layer.reduce(_FINE)
    picture.paste(small, mask=small)


def _leaf(x: float, y: float, length: float, angle: float, width: float = 0.22) -> Points:
    """The outline of a leaf that grows from a place at an angle (radians, y down)."""
    table = np.array([(0.0, 0.0), (0.3, 0.85), (0.65, 0.75), (1.0, 0.0), (0.65, -0.75), (0.3, -0.85)])
    table = smooth(table * (length, length * width), steps=4)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline: Points = table @ turn + (x, y)
    return outline


def _branch(draw: ImageDraw.ImageDraw, size: tuple[int, int], place: Place, difficulty: float, rng: Generator) -> None:
    """A branch through the whole picture, right below the feet, with leaves."""
    x, y, unit = place.x * _FINE, place.y * _FINE, place.unit * _FINE
    thick, slope, bend = unit * between(rng, 0.07, 0.12), between(rng, -0.22, 0.22), between(rng, -0.1, 0.25)
    xs = np.linspace(-0.05, 1.05, 14) * size[0]
    way = (xs - x) / size[0]
    middle = y + thick * 0.75 + slope * (xs - x) + bend * way**2 * unit
    half = thick * (0.75 - 0.35 * way * (1 if rng.random() < 0.5 else -1))
    bark = chosen(rng, _BARK)
    leaf = chosen(rng, _LEAVES)
    for _ in range(round(2 + 7 * difficulty)):
        at = int(rng.integers(14))
        _twig(draw, (float(xs[at]), float(middle[at])), unit, (bark, leaf), rng)
    upper, lower = np.stack([xs, middle - half], axis=1), np.stack([xs, middle + half], axis=1)
    draw.polygon(flat(np.concatenate([upper, lower[::-1]])), fill=bark)
    draw.polygon(flat(np.concatenate([upper + (0, thick), lower[::-1]])), fill=shade(bark, -0.28))
    draw.line(flat(upper + (0, thick * 0.25)), fill=shade(bark, 0.25), width=max(1, round(thick * 0.3)))


def _twig(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], unit: float, colours: tuple[Colour, Colour], rng: Generator
) -> None:
    """A short twig with leaves on both sides."""
    bark, leaf = colours
    angle, length = (
        between(rng, -2.6, -0.5) if rng.random() < 0.6 else between(rng, 0.5, 2.6),
        unit * between(rng, 0.2, 0.5),
    )
    end = start[0] + math.cos(angle) * length, start[1] + math.sin(angle) * length
    draw.line((*start, *end), fill=bark, width=max(1, round(unit * 0.02)))
    for turn in (0.0, 0.9, -0.9):
        tone = shade(leaf, between(rng, -0.25, 0.25))
        draw.polygon(flat(_leaf(*end, unit * between(rng, 0.16, 0.28), angle + turn)), fill=tone)


def _trunk(draw: ImageDraw.ImageDraw, size: tuple[int, int], place: Place, rng: Generator) -> None:
    """A trunk before the breast of a climbing bird."""
    x, unit, side = place.x * _FINE, place.unit * _FINE, place.facing
    bark, width = chosen(rng, _BARK), unit * between(rng, 0.45, 0.8)
    ys = np.linspace(-0.05, 1.05, 12) * size[1]
    edge = x + side * unit * 0.02 + rng.normal(0, 0.012, 12) * unit
    lean = side * (ys / size[1] - place.y * _FINE / size[1]) * unit * 0.08
    for start, end, tone in ((0.0, 1.0, bark), (0.0, 0.12, shade(bark, 0.2)), (0.6, 1.0, shade(bark, -0.3))):
        near = np.stack([edge + lean + side * width * start, ys], axis=1)
        far = np.stack([edge + lean + side * width * end, ys], axis=1)
        draw.polygon(flat(np.concatenate([near, far[::-1]])), fill=tone)
    for _ in range(26):
        across, y = float(rng.random()), between(rng, 0, size[1])
        at = x + side * width * (0.06 + 0.9 * across)
        draw.line((at, y, at + rng.normal(0, 0.02) * unit, y + unit * between(rng, 0.08, 0.3)), fill=shade(bark, -0.4))


def _shadow(picture: Image.Image, place: Place) -> None:
    """The shadow on the ground below a bird."""
    wide, high = place.unit * 0.55, place.unit * 0.09
    mask = Image.new("L", (round(wide * 2.6) + 2, round(high * 4) + 2))
    x, y = mask.width / 2, mask.height / 2
    ImageDraw.Draw(mask).ellipse((x - wide, y - high, x + wide, y + high), fill=110)
    mask = mask.filter(ImageFilter.BoxBlur(high * 0.6))
    tone = Image.new("RGB", mask.size, (46, 42, 52))
    picture.paste(tone, (round(place.x - x), round(place.y - y + high * 0.3)), mask)


def _tuft(draw: ImageDraw.ImageDraw, place: Place, blades: int, rng: Generator) -> None:
    """Grass around the feet."""
    unit, green = place.unit * _FINE, chosen(rng, _LEAVES)
    for _ in range(blades):
        x = (place.x + rng.normal(0, 0.7) * place.unit) * _FINE
        y = (place.y + between(rng, -0.05, 0.08) * place.unit) * _FINE
        _blade(draw, (x, y), unit * between(rng, 0.08, 0.3), shade(green, between(rng, -0.3, 0.3)), rng)


def _blade(draw: ImageDraw.ImageDraw, foot: tuple[float, float], length: float, colour: Colour, rng: Generator) -> None:
    """One blade of grass."""
    lean, wide = rng.normal(0, 0.28) * length, max(1.0, length * 0.05)
    (x, y), tip = foot, (foot[0] + lean, foot[1] - length)
    middle = (x + lean * 0.3, y - length * 0.6)
    outline = (
        (x - wide, y),
        (middle[0] - wide * 0.7, middle[1]),
        tip,
        (middle[0] + wide * 0.7, middle[1]),
        (x + wide, y),
    )
    draw.polygon(outline, fill=colour)


def _reflect(picture: Image.Image, place: Place, tile: Image.Image, left: int) -> None:
    """Mirror a bird in the water."""
    flat = tile.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((tile.width, max(2, round(tile.height * 0.8))))
    flat = flat.filter(ImageFilter.BoxBlur((0.6, 1.6)))
    rows = np.arange(flat.height)[:, None]
    faint = np.asarray(flat.getchannel("A")) * (0.42 * np.maximum(0, 1 - rows / (0.9 * flat.height)))
    # Water breaks a mirror image into level stripes.
    faint *= 0.8 + 0.2 * np.sin(rows * 1.3)
    picture.paste(flat.convert("RGB"), (left, round(place.y)), Image.fromarray(faint.astype(np.uint8)))


def _ripples(draw: ImageDraw.ImageDraw, place: Place, rng: Generator) -> None:
    """Rings on the water around a bird."""
    x, y, unit = place.x * _FINE, place.y * _FINE, place.unit * _FINE
    reach = 0.52 if place.support == "water" else 0.16
    for ring in range(3):
        wide = unit * (reach + 0.10 * ring + between(rng, 0, 0.05))
        high = wide * 0.10
        tone = mix((236, 242, 244), (150, 176, 188), ring / 3)
        top = y + unit * (0.012 + 0.02 * ring)
        draw.arc((x - wide, top - high, x + wide, top + high), 10, 170, fill=tone, width=max(1, round(unit * 0.012)))


def hang_before(picture: Image.Image, places: list[Place], difficulty: float, rng: Generator) -> None:
    """Paint leaves, twigs or grass between the camera and the birds, out of focus."""
    number = int(rng.poisson(3.2 * difficulty)) if rng.random() < difficulty + 0.2 and difficulty > 0 else 0
    if not number:
        return
    width, height, small = picture.width, picture.height, min(picture.size)
    tone = chosen(rng, _LEAVES)
    # Transparent pixels have the colour of leaves too, or blurred leaves would have dark rims.
    layer = Image.new("RGBA", picture.size, (*tone, 0))
    draw = ImageDraw.Draw(layer)
    low = places[0].support in ("ground", "water", "shallows")
    for _ in range(number):
        colour = shade(tone, between(rng, -0.35, 0.25))
        x = between(rng, 0.02, 0.98) * width
        if low:
            _blade(draw, (x, height + 2), small * between(rng, 0.25, 0.7), colour, rng)
            continue
        y = between(rng, 0.02, 0.98) * height
        length, angle = small * between(rng, 0.12, 0.26), between(rng, 0, 2 * math.pi)
        draw.polygon(flat(_leaf(x, y, length, angle, between(rng, 0.15, 0.3))), fill=colour)
    layer = layer.filter(ImageFilter.BoxBlur(small / 128 * between(rng, 0.4, 1.4)))
    picture.paste(layer, mask=layer)
