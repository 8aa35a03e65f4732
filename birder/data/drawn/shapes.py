"""The body plans of drawn birds: what a finch-like, a duck-like or a wader-like bird is built like."""

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from numpy.random import Generator

from birder.data.drawn.chance import between

Bill = Literal["conical", "thin", "dagger", "hooked", "flat"]
Support = Literal["branch", "ground", "trunk", "water", "shallows", "air"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a bird is built; lengths are in body lengths, angles in degrees."""

    plan: str
    """The body plan that this shape is a variant of."""
    depth: float
    """Depth of the body."""
    posture: float
    """Angle of the body above the horizontal."""
    head: float
    """Radius of the head."""
    neck: float
    """Distance from the shoulders to the middle of the head."""
    neck_angle: float
    """Angle of the neck above the horizontal."""
    bill: Bill
    """The kind of bill."""
    bill_length: float
    """Length of the bill."""
    bill_depth: float
    """Depth of the bill at its base."""
    bill_curve: float = 0.0
    """How far the tip hangs below a straight bill, in bill lengths."""
    crest: float = 0.0
    """Length of the crest, in head radii; 0 for none."""
    tail: float
    """Length of the tail."""
    tail_width: float = 0.08
    """Half the width of the tail at its tip."""
    fork: float = 0.0
    """Depth of the notch in the tail, in tail lengths; below 0 for a rounded tail."""
    cock: float = 0.0
    """Angle of the tail above the line of the body."""
    wing: float = 0.1
    """How far the folded wing reaches past the body."""
    leg: float
    """Length of the visible leg."""
    supports: tuple[Support, ...]
    """What the bird is seen on, most typical first."""


_PERCHING: tuple[Support, ...] = ("branch", "branch", "ground")

# fmt: off
PLANS = MappingProxyType({
    "finch": Shape(
        plan="finch", depth=0.60, posture=30, head=0.235, neck=0.25, neck_angle=52, bill="conical",
        bill_length=0.18, bill_depth=0.17, tail=0.40, fork=0.16, leg=0.17, supports=_PERCHING),
    "warbler": Shape(
        plan="warbler", depth=0.47, posture=24, head=0.195, neck=0.22, neck_angle=48, bill="thin",
        bill_length=0.17, bill_depth=0.06, tail=0.46, fork=0.08, leg=0.20, supports=_PERCHING),
    "wren": Shape(
        plan="wren", depth=0.66, posture=16, head=0.225, neck=0.23, neck_angle=50, bill="thin",
        bill_length=0.24, bill_depth=0.07, bill_curve=0.14, tail=0.36, tail_width=0.11, fork=-0.12, cock=68,
        wing=0.02, leg=0.22, supports=_PERCHING),
    "wader": Shape(
        plan="wader", depth=0.46, posture=14, head=0.15, neck=0.40, neck_angle=62, bill="thin",
        bill_length=0.46, bill_depth=0.06, tail=0.18, wing=0.14, leg=0.72, supports=("shallows", "ground")),
    "heron": Shape(
        plan="heron", depth=0.44, posture=28, head=0.13, neck=0.82, neck_angle=72, bill="dagger",
        bill_length=0.40, bill_depth=0.085, crest=1.4, tail=0.18, wing=0.10, leg=0.80,
        supports=("shallows", "ground")),
    "duck": Shape(
        plan="duck", depth=0.47, posture=5, head=0.175, neck=0.36, neck_angle=58, bill="flat",
        bill_length=0.22, bill_depth=0.11, tail=0.20, tail_width=0.06, fork=-0.3, cock=20, wing=0.03, leg=0.10,
        supports=("water", "water", "ground")),
    "dove": Shape(
        plan="dove", depth=0.50, posture=24, head=0.155, neck=0.30, neck_angle=58, bill="thin",
        bill_length=0.11, bill_depth=0.06, tail=0.52, tail_width=0.10, fork=-0.15, wing=0.14, leg=0.12,
        supports=("ground", "branch")),
    "falcon": Shape(
        plan="falcon", depth=0.50, posture=58, head=0.19, neck=0.24, neck_angle=76, bill="hooked",
        bill_length=0.14, bill_depth=0.12, tail=0.48, tail_width=0.09, fork=-0.1, wing=0.18, leg=0.16,
        supports=("branch",)),
    "woodpecker": Shape(
        plan="woodpecker", depth=0.44, posture=66, head=0.18, neck=0.30, neck_angle=60, bill="dagger",
        bill_length=0.26, bill_depth=0.085, crest=0.9, tail=0.40, tail_width=0.06, fork=0.2, cock=-6, leg=0.12,
        supports=("trunk",)),
    "hummingbird": Shape(
        plan="hummingbird", depth=0.42, posture=44, head=0.19, neck=0.24, neck_angle=58, bill="thin",
        bill_length=0.52, bill_depth=0.045, bill_curve=0.05, tail=0.36, tail_width=0.12, fork=0.3, leg=0.06,
        supports=("air", "air", "branch")),
    "swallow": Shape(
        plan="swallow", depth=0.42, posture=42, head=0.175, neck=0.22, neck_angle=58, bill="thin",
        bill_length=0.08, bill_depth=0.07, tail=0.70, tail_width=0.10, fork=0.62, wing=0.36, leg=0.07,
        supports=("branch", "branch", "air")),
})
# fmt: on
"""Plan name -> the typical shape of its birds."""


def vary(shape: Shape, rng: Generator, amount: float) -> Shape:
    """The same plan with every measure up to ``amount`` (a share) longer or shorter."""
    measures: dict[str, Any] = {
        field.name: getattr(shape, field.name) * between(rng, 1 - amount, 1 + amount)
        for field in fields(shape)
        if field.type is float and field.name not in ("posture", "neck_angle", "cock")
    }
    return replace(shape, **measures)
