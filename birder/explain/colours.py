"""Colours from little to much, between which the eye sees equal steps.

Space: OKLab, Ottosson 2020, https://bottosson.github.io/posts/oklab/; its lightness and distances are nearly those that
people see.
"""

from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

STEPS = 256
"""Colours in the scale."""

# From a dark violet over red to yellow: it gets lighter all the way, so it is read without colours, too.
_POINTS = ((38, 16, 84), (118, 26, 122), (196, 48, 96), (240, 104, 46), (252, 178, 30), (255, 240, 96))

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@cache
def scale() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The colours from least to most, (STEPS, 3), sRGB."""
    points = to_oklab(np.array(_POINTS, np.uint8))
    line = np.concatenate([np.linspace(*pair, num=100) for pair in pairwise(points)])
    walked = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    even = np.linspace(0, walked[-1], STEPS)
    return from_oklab(np.stack([np.interp(even, walked, values) for values in line.T], axis=1))


def to_oklab(colours: np.ndarray[Any, np.dtype[np.uint8]]) -> Numbers:
    """SRGB to lightness (0-1), green to red, blue to yellow: (..., 3) -> (..., 3)."""
    share = colours / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(light @ _TO_CONES.T) @ _TO_LAB.T


def from_oklab(colours: Numbers) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """And back; what no screen can show becomes the nearest values: (..., 3) -> (..., 3)."""
    light = ((colours @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T).clip(0, 1)
    share = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(share * 255).astype(np.uint8)
