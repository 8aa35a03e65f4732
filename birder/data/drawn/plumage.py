"""Painting one bird in one pose: clipped fields of colour, soft light from above, feathers, and an eye."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from birder.data.drawn.anatomy import Anatomy, anatomy
from birder.data.drawn.colours import Colour, contrast, mix, shade
from birder.data.drawn.curves import Points, flat, smooth
from birder.data.drawn.pose import Pose
from birder.data.drawn.species import Plumage, Species

_FINE = 2
"""Birds are painted this many times larger and then reduced, which smooths their edges."""


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A painted bird on a transparent tile."""

    image: Image.Image
    """The bird, RGBA."""
    feet: tuple[float, float]
    """Where on the tile the bird touches what it is on."""
    unit: float
    """One body length, in pixels."""


def paint(species: Species, pose: Pose, extent: tuple[float, float], rng: Generator) -> Painted:
    """Paint a bird as large as fits into an extent of (height, width) pixels."""
    bird = anatomy(species.shape, pose)
    left, top, right, bottom = bird.extent()
    unit = min(extent[0] / (bottom - top), extent[1] / (right - left))
    bird = bird.moved(unit, np.array([2 - left * unit, 2 - top * unit]))
    size = (math.ceil((right - left) * unit) + 4, math.ceil((bottom - top) * unit) + 4)
    canvas = Image.new("RGBA", (size[0] * _FINE, size[1] * _FINE))
    brush = _Brush(canvas, bird.moved(_FINE, np.zeros(2)), species.plumage, unit * _FINE)
    brush.behind()
    silhouette = brush.coat(rng)
    brush.before(in_flight=pose.support == "air")
    image = canvas.reduce(_FINE)
    _light(image, silhouette.reduce(_FINE), unit)
    return Painted(image=image, feet=(float(bird.feet[0, 0]), float(bird.feet[0, 1])), unit=unit)


def _light(image: Image.Image, silhouette: Image.Image, unit: float) -> None:
    """Round the bird: light falls on what is turned upwards, shade on what is turned down."""
    height, width = image.height, image.width
    step = max(1, round(unit * 0.06))
    # Light and shade are soft, so half the size will do; the margin lets them end outside the bird.
    small = silhouette.resize((max(2, width // 2), max(2, height // 2)), Image.Resampling.BOX)
    small = ImageOps.expand(small, 2 * step).filter(ImageFilter.BoxBlur(unit * 0.07))
    soft = np.asarray(small, dtype=np.float32)[:, 2 * step : -2 * step]
    # Where the blurred silhouette grows downwards is an upper edge, and the other way round.
    lit = soft[3 * step : -step] - soft[step : -3 * step]
    for sign, colour, strength in ((1, (255, 250, 232), 0.30), (-1, (30, 26, 48), 0.55)):
        amount = np.clip(sign * lit * strength, 0, 255).astype(np.uint8)
        mask = Image.fromarray(amount).resize((width, height), Image.Resampling.BILINEAR)
        tone = Image.new("RGB", (width, height), colour)
        rgb = Image.composite(tone, image.convert("RGB"), mask)
        rgb.putalpha(image.getchannel("A"))
        image.paste(rgb)


class _Brush:
    """Paints the layers of one bird, from the far leg to the feathers of the near wing."""

    def __init__(self, canvas: Image.Image, bird: Anatomy, plumage: Plumage, unit: float) -> None:
        self.canvas = canvas
        self.bird = bird
        self.plumage = plumage
        self.unit = unit
        self.draw = ImageDraw.Draw(canvas)

    def _fill(self, points: Points, colour: Colour, draw: ImageDraw.ImageDraw | None = None) -> None:
        if len(points):
            (draw or self.draw).polygon(flat(points), fill=colour)

    def _line(self, points: Points, colour: Colour, width: float) -> None:
        self.draw.line(flat(points), fill=colour, width=max(1, round(width * self.unit)), joint="curve")

    def behind(self) -> None:
        """Paint what the body covers: far wing, legs, tail, crest and bill."""
        bird, plumage = self.bird, self.plumage
        self._fill(bird.far_wing, shade(plumage.colour("wing"), -0.3))
        legs = plumage.colour("legs")
        self._line(bird.far_leg, shade(legs, -0.3), 0.028)
        self._line(bird.near_leg, legs, 0.032)
        for leg in (bird.far_leg, bird.near_leg):
            self._fill(self._thigh(leg), shade(plumage.colour("belly"), -0.3))
        tail = plumage.colour("tail")
        self._fill(bird.tail, tail)
        if plumage.tail_tip:
            self._fill(bird.tail_tip, plumage.colour("tail_tip"))
        for line in bird.tail_lines.reshape(-1, 2, 2):
            self._line(line, shade(tail, -0.35), 0.008)
        self._fill(bird.crest, shade(plumage.colour("crown"), -0.08))
        self._bill()

    def _thigh(self, leg: Points) -> Points:
        """The feathered upper end of a leg, which grows thin towards the joint."""
        way = leg[1] - leg[0]
        length = float(np.hypot(*way)) + 1e-9
        across = np.array([way[1], -way[0]]) / length * self.unit
        knee = leg[0] + way * min(0.75, 0.30 * self.unit / length)
        return np.stack([leg[0] + across * 0.07, knee + across * 0.02, knee - across * 0.02, leg[0] - across * 0.07])

    def _bill(self) -> None:
        """Paint the bill, its lower half in the shade."""
        bill = self.plumage.colour("bill")
        self._fill(self.bird.lower_bill, shade(bill, -0.32))
        self._fill(self.bird.upper_bill, bill)

    def coat(self, rng: Generator) -> Image.Image:
        """Paint the body, clipped to its silhouette, which is returned."""
        bird, plumage = self.bird, self.plumage
        coat = Image.new("RGB", self.canvas.size, plumage.colour("back"))
        draw = ImageDraw.Draw(coat)
        self._fill(bird.rump, plumage.colour("rump"), draw)
        self._fill(bird.belly, plumage.colour("belly"), draw)
        self._fill(bird.breast, plumage.colour("breast"), draw)
        self._marks(draw, rng)
        self._fill(bird.head, plumage.colour("head"), draw)
        for field in ("throat", "crown", "stripe", "brow"):
            if getattr(plumage, field):
                self._fill(getattr(bird, field), plumage.colour(field), draw)
        if plumage.band:
            draw.line(flat(bird.band), fill=plumage.colour("band"), width=round(0.10 * self.unit), joint="curve")
        coat = coat.filter(ImageFilter.BoxBlur(0.008 * self.unit))
        silhouette = Image.new("L", self.canvas.size)
        ImageDraw.Draw(silhouette).polygon(flat(bird.body), fill=255)
        self.canvas.paste(coat, mask=silhouette)
        self._eye()
        return silhouette

    def _marks(self, draw: ImageDraw.ImageDraw, rng: Generator) -> None:
        """Streak, spot or scale the breast and flanks."""
        pattern = self.plumage.pattern
        if pattern == "plain":
            return
        under = self.plumage.colour("breast")
        dark = shade(self.plumage.colour("back"), -0.45)
        colour = dark if contrast(dark, under) > 0.25 else shade(under, 0.6)
        (x, y), size = self.bird.down[0], self.unit * 0.014
        places = self.bird.marks + rng.normal(0, 0.010 * self.unit, self.bird.marks.shape)
        for px, py in places.tolist():
            if pattern == "streaked":
                draw.line((px, py, px - x, py - y), fill=colour, width=max(1, round(size * 1.3)))
            elif pattern == "spotted":
                draw.ellipse((px - size, py - size, px + size, py + size), fill=colour)
            else:
                draw.line((px + y / 2, py - x / 2, px - y / 2, py + x / 2), fill=colour, width=max(1, round(size)))

    def _eye(self) -> None:
        """Paint the eye with its ring and its light."""
        (x, y), plumage = self.bird.eye[0].tolist(), self.plumage
        radius = 0.036 * self.unit
        ring = plumage.colour("eye_ring") if plumage.eye_ring else shade(plumage.colour("stripe"), 0.22)
        self._disc(x, y, radius * (1.7 if plumage.eye_ring else 1.25), ring)
        self._disc(x, y, radius, (24, 18, 20))
        self._disc(x + radius * 0.3, y - radius * 0.35, radius * 0.36, (255, 255, 250))

    def _disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def before(self, *, in_flight: bool) -> None:
        """Paint the near wing with its feathers."""
        bird, plumage = self.bird, self.plumage
        wing = plumage.colour("wing")
        edge = shade(wing, -0.4)
        shadow = mix(plumage.colour("belly"), (30, 26, 40), 0.35)
        if not in_flight:
            self._fill(bird.wing + (0, 0.018 * self.unit), shadow)
        self._fill(bird.wing, wing)
        self._fill(bird.quills, shade(wing, -0.22))
        for line in bird.wing_lines.reshape(-1, 2, 2):
            self._line(line, edge, 0.009)
        for row in np.split(bird.coverts, 2):
            self._line(row, shade(wing, -0.2), 0.008)
        if plumage.wing_bars:
            for bar in np.split(bird.wing_bars, 2):
                self._line(smooth(bar, closed=False), plumage.colour("wing_bars"), 0.035)
