"""Inventing families and species: one body plan to a family, and for each species a plumage that its name tells."""

from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from birder.data.drawn.chance import chosen, generator
from birder.data.drawn.colours import PALETTE, Colour, contrast
from birder.data.drawn.names import NOUNS, common_name, family_name, scientific_name
from birder.data.drawn.shapes import PLANS, Shape, vary

MOST_FAMILIES = sum(len(nouns) for nouns in NOUNS.values())
"""How many families there are names for."""
MOST_PER_FAMILY = 40
"""How many species of one family can be told apart."""

_WEIGHTS = MappingProxyType(
    {
        "back": 1.1, "head": 1.0, "crown": 0.75, "brow": 0.35, "stripe": 0.5, "throat": 0.55, "breast": 1.0,
        "band": 0.5, "belly": 1.0, "rump": 0.4, "wing": 1.1, "wing_bars": 0.45, "tail": 0.6, "tail_tip": 0.35,
        "bill": 0.45, "legs": 0.35, "eye_ring": 0.3,
    }
)  # fmt: skip
"""Field of the plumage -> how much it shows."""

_BEHIND = MappingProxyType(
    {
        "head": "back", "crown": "head", "brow": "crown", "stripe": "head", "throat": "head", "breast": "belly",
        "band": "breast", "belly": "wing", "rump": "back", "wing": "back", "wing_bars": "wing", "tail": "rump",
        "tail_tip": "tail", "bill": "head", "legs": "belly", "eye_ring": "stripe",
    }
)  # fmt: skip
"""Field -> the field that it lies on or beside, whose colour it must differ from to be seen."""

_UPPER = ("umber", "olive", "moss", "slate", "ash", "chestnut", "buff", "black", "teal", "rufous")
_UNDER = ("white", "cream", "buff", "lemon", "ash", "white", "cream")
_BRIGHT = ("rufous", "scarlet", "rose", "saffron", "lemon", "emerald", "teal", "azure", "cobalt", "violet", "chestnut")
_BARE = ("black", "saffron", "scarlet", "slate", "rose", "lemon", "umber")


@dataclass(frozen=True, kw_only=True)
class Plumage:
    """The colour name of every field of a bird; an optional field is None when it looks like what lies behind it."""

    back: str
    """The back, and whatever has no colour of its own."""
    head: str
    """Head and upper neck."""
    crown: str | None = None
    """The cap."""
    brow: str | None = None
    """The line above the eye."""
    stripe: str | None = None
    """The mask through the eye."""
    throat: str | None = None
    """Chin and throat."""
    breast: str
    """The breast."""
    band: str | None = None
    """The band across the breast."""
    belly: str
    """Belly and flanks."""
    rump: str | None = None
    """The rump."""
    wing: str
    """The folded wing."""
    wing_bars: str | None = None
    """Two bars across the wing."""
    tail: str
    """The tail."""
    tail_tip: str | None = None
    """The end of the tail."""
    bill: str
    """The bill."""
    legs: str
    """Legs and feet."""
    eye_ring: str | None = None
    """The ring around the eye."""
    pattern: str = "plain"
    """Marks on breast and flanks: plain, streaked, spotted or scaled."""

    def colour(self, field: str) -> Colour:
        """The colour that is seen where the field lies."""
        name = getattr(self, field)
        return PALETTE[name] if name else self.colour(_BEHIND[field])

    def shows(self, field: str, least: float = 0.16) -> bool:
        """Whether the field has a colour of its own that stands out from what it lies on."""
        if getattr(self, field) is None:
            return False
        if field == "head" and self.crown is not None:
            return False
        return field not in _BEHIND or contrast(self.colour(field), self.colour(_BEHIND[field])) >= least


@dataclass(frozen=True, kw_only=True)
class Species:
    """One invented species."""

    name: str
    """The English name, unique; what it says of the plumage is true."""
    scientific_name: str
    """A name that looks scientific."""
    family: str
    """The scientific-looking name of the family."""
    mark: str
    """The field of the plumage that the name speaks of."""
    shape: Shape
    """How the bird is built; alike within a family."""
    plumage: Plumage
    """The colours of its feathers."""


def invent(families: int, species: int, difficulty: float, seed: int) -> tuple[Species, ...]:
    """All species, spread over the families as evenly as can be; those of a family follow each other."""
    rng = generator(seed, "families")
    order = [str(plan) for plan in rng.permutation(sorted(PLANS))]
    nouns = {plan: rng.permutation(NOUNS[plan]) for plan in order}
    found: list[Species] = []
    for family in range(families):
        plan = order[family % len(order)]
        members = species // families + (family < species % families)
        noun = str(nouns[plan][family // len(order)])
        found += _family(plan, noun, members, difficulty, generator(seed, "family", family))
    return tuple(found)


def _family(plan: str, noun: str, members: int, difficulty: float, rng: Generator) -> list[Species]:
    """The species of one family: the same build and scheme of colours, each with a mark that no sibling has."""
    shape = vary(PLANS[plan], rng, 0.1)
    accents = [str(name) for name in rng.permutation(_BRIGHT)[:6]] + ["black", "white"]
    common = _common_plumage(accents, rng)
    found: list[Species] = []
    while len(found) < members:
        field, plumage = _next_plumage(common, accents, found, difficulty, rng)
        colour = getattr(plumage, field)
        found.append(
            Species(
                name=common_name(field, colour, noun),
                scientific_name=scientific_name(field, colour, noun),
                family=family_name(noun),
                mark=field,
                shape=vary(shape, rng, 0.02 + 0.05 * (1 - difficulty)),
                plumage=plumage,
            )
        )
    return found


def _common_plumage(accents: list[str], rng: Generator) -> Plumage:
    """The plumage that the species of a family vary."""
    upper, under = chosen(rng, _UPPER), chosen(rng, _UNDER)
    while contrast(PALETTE[upper], PALETTE[under]) < 0.2:
        under = chosen(rng, _UNDER)
    darker = {"umber": "black", "ash": "slate", "buff": "umber", "olive": "umber", "slate": "black", "rufous": "umber"}
    breast = chosen(rng, (under, under, accents[0]))
    return Plumage(
        back=upper,
        head=chosen(rng, (upper, upper, accents[1])),
        stripe=chosen(rng, (None, "black")),
        breast=breast,
        belly=under,
        wing=darker.get(upper, upper),
        tail=darker.get(upper, upper),
        bill=chosen(rng, _BARE),
        legs=chosen(rng, _BARE),
        pattern=chosen(rng, ("plain", "plain", "streaked", "spotted", "scaled")),
    )


def _next_plumage(
    common: Plumage, accents: list[str], siblings: list[Species], difficulty: float, rng: Generator
) -> tuple[str, Plumage]:
    """A plumage unlike the siblings', and the field that its name will speak of."""
    taken = {(sibling.mark, getattr(sibling.plumage, sibling.mark)) for sibling in siblings}
    best: tuple[float, str, Plumage] | None = None
    tries = 0
    while best is None or tries < 30:
        tries += 1
        field, plumage = _variant(common, accents, difficulty, rng)
        mark = (field, getattr(plumage, field))
        if mark in taken or not plumage.shows(field):
            continue
        score = min((difference(plumage, sibling.plumage) for sibling in siblings), default=1.0)
        # A name tells most when no sibling could bear it too.
        score -= 0.6 * sum(getattr(sibling.plumage, field) == mark[1] for sibling in siblings)
        score -= 0.6 * sum(getattr(plumage, other) == colour for other, colour in taken)
        if best is None or score > best[0]:
            best = score, field, plumage
    return best[1], best[2]


def _variant(common: Plumage, accents: list[str], difficulty: float, rng: Generator) -> tuple[str, Plumage]:
    """The common plumage with some fields changed, and the one of them that is the mark."""
    names = list(_WEIGHTS)
    # Easy birds differ in large fields, hard ones as often in small ones.
    likely = np.array([_WEIGHTS[name] for name in names]) ** (2.2 - 3.2 * difficulty)
    count = round(7 - 5 * difficulty)
    changed = [names[i] for i in rng.choice(len(names), count, replace=False, p=likely / likely.sum())]
    changes: dict[str, str] = {}
    for position, field in enumerate(changed):
        changes[field] = _new_colour(field, accents, is_mark=position == 0, rng=rng)
    if changed[0] == "head":
        # A cap of another colour would make a liar of the name.
        changes.pop("crown", None)
        return "head", replace(common, **changes, crown=None)
    return changed[0], replace(common, **changes)


def _new_colour(field: str, accents: list[str], *, is_mark: bool, rng: Generator) -> str:
    """A colour that suits the field: marks are bright, large fields else rather muted."""
    if field in ("bill", "legs"):
        return chosen(rng, _BARE)
    if not is_mark and field in ("back", "wing", "tail", "rump"):
        return chosen(rng, _UPPER)
    if not is_mark and field in ("belly", "throat"):
        return chosen(rng, _UNDER)
    return chosen(rng, accents)


def difference(first: Plumage, second: Plumage) -> float:
    """How differently two plumages look: the contrast of their fields, by how much the fields show."""
    return sum(weight * contrast(first.colour(name), second.colour(name)) for name, weight in _WEIGHTS.items())
