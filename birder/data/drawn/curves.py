"""Smooth curves through tables of control points."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
Table: TypeAlias = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axes:
    """A place on the bird with two directions of its own."""

    origin: Points
    """The place, of shape (2,)."""
    ahead: Points
    """The first direction, as long as one step in it."""
    up: Points
    """The second direction, as long as one step in it."""

    def at(self, table: Table) -> Points:
        """A table of (ahead, up) as points of the bird."""
        return self.origin + np.asarray(table, dtype=np.float64).reshape(-1, 2) @ np.stack([self.ahead, self.up])


@lru_cache(maxsize=256)
def _weights(count: int, closed: bool, steps: int) -> Points:
    """Catmull-Rom weights (curve points, control points): they depend on the counts alone."""
    weights = np.zeros(((count if closed else count - 1) * steps, count))
    for row in range(len(weights)):
        segment, t = row // steps, row % steps / steps
        parts = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
        for step, part in zip((-1, 0, 1, 2), parts, strict=True):
            column = (segment + step) % count if closed else min(max(segment + step, 0), count - 1)
            weights[row, column] += part / 2
    weights.setflags(write=False)
    return weights


def smooth(points: Points, *, closed: bool = True, steps: int = 5) -> Points:
    """A Catmull-Rom curve through the points, (N, 2) -> (M, 2)."""
    if len(points) < 3:
        return points
    curve: Points = _weights(len(points), closed, steps) @ points
    return curve if closed else np.concatenate([curve, points[-1:]])


def direction(degrees: float) -> Points:
    """The unit vector at an angle above the horizontal; y runs down."""
    return np.array([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])


def axes(origin: Points, degrees: float, length: float = 1.0, width: float = 1.0) -> Axes:
    """Axes at an angle above the horizontal, as long and as wide as said."""
    return Axes(origin, direction(degrees) * length, direction(degrees + 90) * width)


def flat(points: Points) -> list[float]:
    """The points as Pillow likes them: x, y, x, y."""
    numbers: list[float] = points.ravel().tolist()
    return numbers
