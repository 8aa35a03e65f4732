"""What lies behind a drawn bird, out of focus: foliage, sky, meadow, sand and water."""

from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from birder.data.drawn.chance import between, chosen
from birder.data.drawn.colours import Colour, mix, shade
from birder.data.drawn.shapes import Support

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((150, 190, 222), (226, 234, 230)),
    ((176, 196, 212), (240, 228, 206)),
    ((202, 208, 208), (232, 232, 224)),
    ((170, 178, 206), (246, 214, 184)),
)
_FOLIAGE: tuple[tuple[Colour, Colour], ...] = (
    ((176, 196, 136), (96, 128, 82)),
    ((198, 204, 176), (124, 146, 118)),
    ((214, 196, 140), (146, 130, 78)),
    ((160, 184, 176), (84, 114, 108)),
    ((222, 206, 180), (162, 140, 112)),
)
_GROUND: tuple[tuple[Colour, Colour], ...] = (
    ((168, 178, 104), (104, 126, 62)),
    ((190, 180, 112), (134, 128, 66)),
    ((222, 204, 164), (190, 164, 122)),
    ((206, 192, 170), (160, 142, 120)),
)
_WATER: tuple[tuple[Colour, Colour], ...] = (
    ((168, 192, 200), (92, 128, 148)),
    ((182, 196, 180), (104, 130, 118)),
    ((210, 200, 186), (122, 134, 146)),
)
_BELOW = MappingProxyType({"ground": _GROUND, "water": _WATER, "shallows": _WATER})
_COARSE = 40
"""Pixels on the shorter side of the painted backdrop; enlarging it makes it soft, at any size of the picture."""


def backdrop(support: Support, size: tuple[int, int], horizon: float, clutter: float, rng: Generator) -> Image.Image:
    """The distance behind a bird.

    Args:
        support: What the bird is on.
        size: Height and width in pixels.
        horizon: Where ground or water begins, as a share of the height.
        clutter: From 0 (a plain gradient) to 1 (full of blurred shapes).
        rng: Source of chance.
    """
    height, width = (round(side * _COARSE / min(size)) for side in size)
    far = chosen(rng, _SKIES if support == "air" else _FOLIAGE)
    image = _gradient(far, width, height)
    draw = ImageDraw.Draw(image)
    if support == "air":
        _clouds(draw, (width, height), clutter, rng)
    else:
        _blobs(draw, (width, height), far, clutter, rng)
    if support in _BELOW:
        near, edge = chosen(rng, _BELOW[support]), max(1, round(horizon * height))
        if support != "ground":
            # Water mirrors what stands behind it.
            near = (mix(near[0], far[1], 0.35), near[1])
        image.paste(_gradient(near, width, max(1, height - edge)), (0, edge))
        _stripes(draw, (width, height), edge, near, clutter=clutter, rng=rng)
    image = image.filter(ImageFilter.BoxBlur(between(rng, 0.5, 1.3)))
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _gradient(colours: tuple[Colour, Colour], width: int, height: int) -> Image.Image:
    """From the first colour above to the second below."""
    column = np.linspace(colours[0], colours[1], height).astype(np.uint8)[:, None]
    return Image.fromarray(column).resize((width, height), Image.Resampling.NEAREST)


def _blobs(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], far: tuple[Colour, Colour], clutter: float, rng: Generator
) -> None:
    """Leaves and gaps far out of focus, and the round lights that shine through them."""
    width, height = size
    for _ in range(round(22 * clutter)):
        tone = shade(mix(far[0], far[1], float(rng.random())), between(rng, -0.45, 0.25) * (0.4 + clutter))
        x, y = between(rng, 0, width), between(rng, 0, height)
        wide, high = between(rng, 0.06, 0.24) * width, between(rng, 0.06, 0.24) * height
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=tone)
    for _ in range(round(6 * clutter)):
        x, y, radius = between(rng, 0, width), between(rng, 0, height * 0.7), between(rng, 0.03, 0.09) * width
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade(far[0], between(rng, 0.2, 0.6)))


def _clouds(draw: ImageDraw.ImageDraw, size: tuple[int, int], clutter: float, rng: Generator) -> None:
    """Clouds, and now and then tree tops below."""
    width, height = size
    for _ in range(round(7 * clutter)):
        x, y, wide = between(rng, 0, width), between(rng, 0, height), between(rng, 0.1, 0.3) * width
        draw.ellipse((x - wide, y - wide * 0.3, x + wide, y + wide * 0.3), fill=shade((228, 232, 232), 0.4))
    if rng.random() < 0.6 * min(1, 2 * clutter):
        tone = shade(chosen(rng, _FOLIAGE)[1], between(rng, -0.2, 0.2))
        for x in np.linspace(0, width, 9).tolist():
            top, wide = height * between(rng, 0.78, 0.95), width * between(rng, 0.07, 0.14)
            draw.ellipse((x - wide, top, x + wide, height * 1.3), fill=tone)


def _stripes(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    edge: int,
    near: tuple[Colour, Colour],
    *,
    clutter: float,
    rng: Generator,
) -> None:
    """Flat streaks of light and dark on ground or water."""
    width, height = size
    for _ in range(round(16 * clutter)):
        x, y = between(rng, 0, width), between(rng, edge + 1, height)
        wide = between(rng, 0.08, 0.35) * width
        tone = shade(mix(near[0], near[1], (y - edge) / max(1, height - edge)), between(rng, -0.22, 0.28))
        draw.line((x - wide, y, x + wide, y), fill=tone, width=1)
