"""The named colours of feathers, and how to mix and compare them."""

from types import MappingProxyType

Colour = tuple[int, int, int]

PALETTE = MappingProxyType(
    {
        "white": (246, 244, 236),
        "cream": (241, 226, 188),
        "buff": (214, 176, 122),
        "ash": (160, 162, 164),
        "slate": (82, 97, 118),
        "black": (40, 38, 42),
        "umber": (108, 80, 58),
        "olive": (122, 120, 62),
        "moss": (78, 108, 64),
        "chestnut": (132, 58, 36),
        "rufous": (192, 96, 44),
        "scarlet": (208, 42, 36),
        "rose": (226, 122, 138),
        "saffron": (240, 152, 30),
        "lemon": (246, 216, 70),
        "emerald": (28, 138, 88),
        "teal": (26, 120, 132),
        "azure": (76, 156, 220),
        "cobalt": (38, 70, 162),
        "violet": (114, 64, 146),
    }
)
"""Colour name -> RGB, as the feather looks in even daylight."""


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies ``share`` (0 to 1) of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(colour: Colour, amount: float) -> Colour:
    """A darker (amount below 0) or lighter (above 0) tone of a colour; the amount lies in -1 to 1."""
    return mix(colour, (18, 16, 26), -amount) if amount < 0 else mix(colour, (255, 252, 242), amount)


def contrast(first: Colour, second: Colour) -> float:
    """How far apart two colours look, from 0 (equal) to about 1 (black against white)."""
    red, green, blue = ((a - b) / 255 for a, b in zip(first, second, strict=True))
    # The eye sees differences in green best and in blue least.
    return float((0.3 * red * red + 0.5 * green * green + 0.2 * blue * blue) ** 0.5)
