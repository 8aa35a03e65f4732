"""The outlines of one bird in one pose, as smooth curves.

Lengths are in body lengths, x runs to the right, y runs down and the middle of the body is the origin. Every part is a
small table of control points in axes of its own (along the body, out of the head, down the tail), so that a pose only
turns and moves axes. The bird is built facing right and mirrored at the end.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from birder.data.drawn.curves import Axes, Points, Table, axes, direction, smooth
from birder.data.drawn.pose import Pose
from birder.data.drawn.shapes import Bill, Shape

_WING: Table = (
    (0.37, 0.02), (0.27, 0.27), (0.02, 0.37), (-0.30, 0.24),
    (-0.50, 0.08), (-0.34, -0.06), (-0.06, -0.22), (0.22, -0.18),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Every outline, line and place of a bird that has struck its pose; each of shape (points, 2)."""

    body: Points
    """Outline of body, neck and head."""
    upper_bill: Points
    """Outline of the upper half of the bill."""
    lower_bill: Points
    """Outline of the lower half of the bill."""
    crest: Points
    """Outline of the crest; no points without one."""
    tail: Points
    """Outline of the tail."""
    tail_tip: Points
    """Outline of the end of the tail."""
    tail_lines: Points
    """Edges of the tail feathers as pairs of points."""
    far_leg: Points
    """Line of the far leg, from the belly to the last toe."""
    near_leg: Points
    """Line of the near leg, from the belly to the last toe."""
    wing: Points
    """Outline of the near wing."""
    far_wing: Points
    """Outline of the far wing; no points while it is folded."""
    quills: Points
    """Outline of the flight feathers of the near wing."""
    wing_lines: Points
    """Edges of the flight feathers as pairs of points."""
    coverts: Points
    """Edges of two rows of wing coverts, one after the other, equally long."""
    wing_bars: Points
    """Two bars across the wing, one after the other, equally long."""
    head: Points
    """The hood: head and upper neck."""
    crown: Points
    """The cap."""
    brow: Points
    """The line above the eye."""
    stripe: Points
    """The mask through the eye."""
    throat: Points
    """Chin and throat."""
    breast: Points
    """The breast."""
    band: Points
    """Line of the band across the breast."""
    belly: Points
    """The underparts."""
    rump: Points
    """The rump."""
    marks: Points
    """Places of streaks, spots or bars on breast and flanks."""
    down: Points
    """One point: a step against the grain of the feathers, from the origin."""
    eye: Points
    """One point: the middle of the eye."""
    feet: Points
    """One point: where the bird touches what it is on."""

    def moved(self, scale: float, offset: Points) -> "Anatomy":
        """The same bird, first scaled and then moved; the step in ``down`` is only scaled."""
        moved = {field.name: getattr(self, field.name) * scale + offset for field in fields(self)}
        return replace(self, **(moved | {"down": self.down * scale}))

    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of everything that is painted."""
        painted = (self.body, self.upper_bill, self.crest, self.tail, self.near_leg, self.far_leg)
        every = np.concatenate([*painted, self.wing, self.far_wing])
        (left, top), (right, bottom) = every.min(axis=0), every.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


def anatomy(shape: Shape, pose: Pose) -> Anatomy:
    """Every outline of a bird of this shape in this pose."""
    body = axes(np.zeros(2), shape.posture + pose.tilt, 1.0, shape.depth * pose.plump)
    neck = axes(body.at(((0.34, 0.20),))[0], shape.neck_angle + pose.reach + pose.tilt / 3)
    head_place = neck.origin + neck.ahead * shape.neck * pose.stretch
    head = axes(head_place, pose.nod, shape.head, shape.head)
    parts = (
        _outline(body, neck, head)
        | _bill(shape, pose, head)
        | _tail(shape, body)
        | _legs(shape, pose, body)
        | (_raised_wings(shape, body) if pose.support == "air" else _folded_wing(shape, body))
        | _plumage_fields(body, neck, head)
    )
    mirror = np.array([float(pose.facing), 1.0])
    crest = shape.crest
    tuft = ((0.35, 0.85), (0.0, 1.0 + 0.25 * crest), (-0.7 - 0.9 * crest, 0.75 + 0.45 * crest), (-0.85, 0.3))
    parts["crest"] = smooth(head.at(tuft)) if crest else np.zeros((0, 2))
    return Anatomy(**{name: points * mirror for name, points in parts.items()})


def _outline(body: Axes, neck: Axes, head: Axes) -> dict[str, Points]:
    """The silhouette of body, neck and head."""
    back = body.at(((0.16, 0.47), (-0.14, 0.46), (-0.38, 0.28), (-0.52, 0.10)))
    front = body.at(((-0.50, -0.08), (-0.34, -0.35), (-0.04, -0.50), (0.26, -0.44), (0.46, -0.14)))
    skull = head.at(((0.96, 0.10), (0.72, 0.66), (0.08, 1.0), (-0.70, 0.74)))
    face = head.at(((0.36, -0.93), (0.78, -0.58), (0.96, -0.20)))
    pieces = [skull, back, front, face]
    vector = head.origin - neck.origin
    length, radius = float(np.hypot(*vector)), float(np.hypot(*head.ahead))
    if length > 1.9 * radius:
        # A long neck is no straight line from head to back: it is slim and bends.
        across = np.array([vector[1], -vector[0]]) / length
        behind = [neck.origin + vector * t + across * radius * w for t, w in ((0.78, 0.80), (0.42, 0.75), (0.10, 1.25))]
        before = [neck.origin + vector * t - across * radius * w for t, w in ((0.25, 1.05), (0.55, 0.72), (0.80, 0.62))]
        pieces = [skull, np.array(behind), back[1:], front, np.array(before), face[1:]]
    return {"body": smooth(np.concatenate(pieces), steps=6)}


def _bill(shape: Shape, pose: Pose, head: Axes) -> dict[str, Points]:
    """Both halves of the bill, around a centre line that bends, and the eye."""
    t = np.linspace(0, 1, 9)
    widths: dict[Bill, Points] = {
        "conical": (1 - t) ** 0.85,
        "thin": 0.25 + 0.75 * (1 - t) ** 1.6,
        "dagger": (1 - t) ** 0.8,
        "hooked": np.sqrt(np.maximum(1 - t**2.5, 0)),
        "flat": (0.55 + 0.45 * (1 - 2 * t) ** 2) * np.sqrt(np.maximum(1 - t**8, 0)),
    }
    drop = (
        0.45 * t**3 if shape.bill == "hooked" else shape.bill_curve * t**2 + (0.12 * t if shape.bill == "flat" else 0)
    )
    radius = float(np.hypot(*head.ahead))
    unit = Axes(head.at(((0.80, -0.06),))[0], head.ahead / radius, head.up / radius)
    along, width = t * shape.bill_length * pose.turn, widths[shape.bill] * shape.bill_depth / 2
    middle = -drop * shape.bill_length
    upper = np.stack([np.r_[along, along[::-1]], np.r_[middle + width, middle[::-1]]], axis=1)
    short = along * (0.86 if shape.bill == "hooked" else 0.97)
    low = np.interp(short, along, middle)
    lower = np.stack([np.r_[short, short[::-1]], np.r_[low, (low - width * 0.75)[::-1]]], axis=1)
    ahead_up = np.stack([unit.ahead, unit.up])
    return {
        "upper_bill": unit.origin + upper @ ahead_up,
        "lower_bill": unit.origin + lower @ ahead_up,
        "eye": head.at(((0.22 + 0.16 * pose.turn, 0.16),)),
    }


def _tail(shape: Shape, body: Axes) -> dict[str, Points]:
    """The tail with its tip and feathers; a fork is a notch, a round tail the opposite."""
    unit = body.up / np.hypot(*body.up)
    turn = np.radians(shape.cock)
    back = -body.ahead
    ahead = back * np.cos(turn) + unit * np.sin(turn)
    up = unit * np.cos(turn) + body.ahead * np.sin(turn)
    tail = Axes(body.at(((-0.44, 0.06),))[0], ahead * shape.tail, up)
    wide, inner = shape.tail_width, 1 - shape.fork
    root = 0.085

    def across(share: float) -> tuple[tuple[float, float], tuple[float, float]]:
        half = root + (wide - root) * share
        return (share, half), (share, -half)

    (top, bottom), (tip_top, tip_bottom) = across(0.78), across(1.0)
    notch = (inner, 0.0)
    rounded = ((inner - 0.04, wide * 0.5), notch, (inner - 0.04, -wide * 0.5)) if shape.fork < 0 else (notch,)
    end = (tip_top, *rounded, tip_bottom)
    inside = min(0.78, inner - 0.22)
    lines = tuple(p for s in (-0.55, 0.0, 0.55) for p in ((0.2, root * s), (min(0.95, inner), wide * s)))
    return {
        "tail": tail.at(((-0.25, root), *end, (-0.25, -root))),
        "tail_tip": tail.at((top, *end, bottom, (inside, 0.0))),
        "tail_lines": tail.at(lines),
    }


def _legs(shape: Shape, pose: Pose, body: Axes) -> dict[str, Points]:
    """Both legs down to the toes, and the place where the bird rests."""
    hip = body.at(((-0.06, -0.26),))[0]
    low = float(body.at(((-0.06, -0.5), (0.2, -0.46), (-0.3, -0.38)))[:, 1].max())
    length = shape.leg * pose.stretch
    if pose.support == "trunk":
        return _clinging(shape, body)
    if pose.support in ("air", "water"):
        tucked = hip + np.array([[0.0, 0.0], [0.0, 0.01]])
        rest = np.array([[hip[0], low - 0.16 if pose.support == "water" else low]])
        return {"far_leg": tucked, "near_leg": tucked, "feet": rest}
    foot = np.array([hip[0] + 0.05, low + length])
    legs = {}
    for name, shift, lift in (("far_leg", 0.13, 0.02), ("near_leg", 0.0, 0.0)):
        sole = foot + (shift, -lift)
        joint = hip + (sole - hip) * 0.6 + (-0.10 * min(1, length * 2), 0)
        toes = sole + np.array([[-0.05, 0.012], [0.0, 0.0], [0.06, 0.015], [0.0, 0.0], [0.09, -0.005]])
        legs[name] = np.concatenate([[hip + (shift * 0.3, 0)], [joint], [sole], toes])
    return legs | {"feet": foot[None]}


def _clinging(shape: Shape, body: Axes) -> dict[str, Points]:
    """Legs that hold on to a trunk before the belly."""
    hold = float(body.at(((0.0, -0.5), (0.2, -0.46), (-0.2, -0.45)))[:, 0].max()) + shape.leg * 0.6
    legs = {}
    for name, along in (("far_leg", 0.06), ("near_leg", -0.16)):
        hip = body.at(((along, -0.30),))[0]
        sole = np.array([hold, hip[1] - 0.02])
        toes = sole + np.array([[0.07, -0.05], [0.0, 0.0], [0.09, 0.0], [0.0, 0.0], [0.05, 0.05]])
        legs[name] = np.concatenate([[hip], [sole], toes])
    return legs | {"feet": np.array([[hold, float(body.at(((-0.1, -0.5),))[0, 1])]])}


def _scalloped(row: Points, feathers: int) -> Points:
    """The row as the round ends of that many feathers."""
    path = smooth(row, closed=False, steps=3 * feathers)
    bulge = np.abs(np.sin(np.linspace(0, feathers * np.pi, len(path))))[:, None]
    out = row[0] - row[-1]
    scallops: Points = path + bulge * np.array([out[1], -out[0]]) * 0.13
    return scallops


def _folded_wing(shape: Shape, body: Axes) -> dict[str, Points]:
    """The wing laid against the side."""
    tip = -0.46 - shape.wing
    table = (*_WING[:4], (tip, 0.10 - shape.wing * 0.2), *_WING[5:])
    quills = ((-0.06, 0.10), (-0.28, 0.16), (tip + 0.01, 0.10 - shape.wing * 0.2), (-0.34, -0.05), (-0.05, -0.19))
    lines = tuple(
        p
        for s in (0.0, 0.25, 0.5, 0.75)
        for p in ((-0.02, 0.10 - 0.26 * s), (tip * (0.97 - 0.42 * s), 0.09 - 0.17 * s))
    )
    bars = (*((0.14, 0.30), (0.07, 0.06), (0.10, -0.17)), *((-0.02, 0.33), (-0.09, 0.08), (-0.05, -0.18)))
    return {
        "wing": smooth(body.at(table)),
        "far_wing": np.zeros((0, 2)),
        "quills": smooth(body.at(quills), steps=3),
        "wing_lines": body.at(lines),
        "coverts": np.concatenate([_scalloped(body.at(row), 4) for row in (bars[:3], bars[3:])]),
        "wing_bars": body.at(bars),
    }


def _raised_wings(shape: Shape, body: Axes) -> dict[str, Points]:
    """Both wings spread upwards, as a hovering bird holds them."""
    span = 0.62 + 0.9 * shape.wing
    root = body.at(((0.14, 0.24),))[0]
    near = Axes(root, direction(128) * span, direction(38) * span)
    far = Axes(root + (0.06, -0.02), direction(88) * span, direction(-2) * span)
    table = ((-0.08, 0.20), (0.35, 0.30), (0.75, 0.22), (1.08, 0.02), (0.80, -0.14), (0.45, -0.26), (0.05, -0.26))
    quills = ((0.36, 0.10), (0.80, 0.17), (1.07, 0.02), (0.80, -0.13), (0.45, -0.25), (0.10, -0.24), (0.20, -0.08))
    lines = tuple(
        p for s, reach in ((0.1, 1.0), (0.35, 0.9), (0.6, 0.7), (0.85, 0.5))
        for p in ((0.30 - 0.1 * s, 0.10 - 0.2 * s), (reach * 1.02, 0.02 - 0.26 * s))
    )  # fmt: skip
    bars = ((0.30, 0.26), (0.36, 0.06), (0.16, -0.16), (0.50, 0.26), (0.55, 0.05), (0.34, -0.20))
    return {
        "wing": smooth(near.at(table)),
        "far_wing": smooth(far.at(table)),
        "quills": smooth(near.at(quills), steps=3),
        "wing_lines": near.at(lines),
        "coverts": np.concatenate([_scalloped(near.at(row), 4) for row in (bars[:3], bars[3:])]),
        "wing_bars": near.at(bars),
    }


def _plumage_fields(body: Axes, neck: Axes, head: Axes) -> dict[str, Points]:
    """Where each colour lies; fields may reach past the silhouette, which clips them."""
    base = Axes(neck.origin, body.ahead, body.up)
    gorge = base.at(((0.20, -0.34),))
    hood = head.at(((1.3, -0.4), (1.0, 1.0), (0.0, 1.35), (-1.2, 0.9), (-1.15, -0.1)))
    cap = ((1.02, 0.30), (0.5, 0.42), (-0.35, 0.38), (-1.0, 0.10), (-1.25, 0.8), (0.0, 1.5), (1.1, 1.1))
    brow = ((0.95, 0.30), (0.4, 0.44), (-0.3, 0.42), (-0.98, 0.14), (-0.35, 0.60), (0.4, 0.66))
    stripe = ((1.05, 0.02), (0.4, -0.10), (-0.3, -0.14), (-1.0, -0.16), (-0.35, 0.30), (0.4, 0.40))
    chin, chest = ((1.1, -0.18), (0.35, -0.35), (-0.15, -0.75)), ((-0.2, -0.85), (0.6, -1.15))
    breast = ((0.75, -0.1), (0.40, -0.62), (0.06, -0.40), (0.14, -0.1))
    belly = ((0.7, -0.3), (0.2, -0.75), (-0.4, -0.6), (-0.6, -0.06), (-0.3, -0.04), (0.05, -0.04), (0.28, 0.02))
    rump = ((-0.20, 0.60), (-0.20, 0.20), (-0.42, 0.02), (-0.62, 0.05), (-0.5, 0.5))
    marks = tuple((0.40 - 0.09 * i, -0.06 - 0.075 * j - 0.02 * (i % 2)) for i in range(9) for j in range(6))
    return {
        "head": _joined(hood, base.at(((-0.16, 0.22), (0.0, -0.02))), gorge, head.at(((0.8, -1.15),))),
        "crown": _joined(head.at(cap)),
        "brow": _joined(head.at(brow)),
        "stripe": _joined(head.at(stripe)),
        "throat": _joined(head.at(chin), gorge, head.at(((0.9, -1.5),))),
        "breast": _joined(head.at(chest), body.at(breast)),
        "band": smooth(base.at(((-0.10, 0.10), (-0.02, -0.18), (0.14, -0.50))), closed=False),
        "belly": _joined(head.at(((0.2, -0.7), (0.9, -1.3))), body.at(belly)),
        "rump": _joined(body.at(rump)),
        "marks": body.at(marks),
        "down": (0.05 * body.ahead)[None],
    }


def _joined(*pieces: Points) -> Points:
    """A smooth outline through all points of the pieces."""
    return smooth(np.concatenate(pieces))
