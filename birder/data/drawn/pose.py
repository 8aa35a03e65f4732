"""How a bird holds itself."""

from dataclasses import dataclass

from numpy.random import Generator

from birder.data.drawn.chance import between
from birder.data.drawn.shapes import Shape, Support


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How a bird holds itself; angles in degrees."""

    support: Support = "branch"
    """What it stands, swims or flies on."""
    facing: int = 1
    """1 when it faces right, -1 when it faces left."""
    tilt: float = 0.0
    """Added to the posture of the body."""
    reach: float = 0.0
    """Added to the angle of the neck."""
    nod: float = 0.0
    """Angle of the head above the horizontal."""
    turn: float = 1.0
    """How long the bill looks: 1 from the side, less when the head is turned."""
    stretch: float = 1.0
    """Length of neck and legs against the relaxed bird."""
    plump: float = 1.0
    """Depth of the body against the relaxed bird."""


def strike_pose(shape: Shape, support: Support, rng: Generator) -> Pose:
    """A natural pose for a bird of this shape on this support."""
    return Pose(
        support=support,
        facing=1 if rng.random() < 0.5 else -1,
        tilt=between(rng, -10, 10),
        reach=between(rng, -14, 10),
        nod=between(rng, -16, 14) - (4 if shape.bill_length > 0.35 else 0),
        turn=between(rng, 0.72, 1.0) if rng.random() < 0.5 else 1.0,
        stretch=between(rng, 0.8, 1.12),
        plump=between(rng, 0.95, 1.08),
    )
