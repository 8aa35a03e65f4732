"""An explanation laid over its photograph."""

import numpy as np
from PIL import Image

from birder.data.fitting import Fit
from birder.data.images import Box
from birder.errors import ConfigError
from birder.explain.colours import STEPS, from_oklab, scale, to_oklab
from birder.explain.explanation import Heat

# How much of lightness, and of the two axes of colour, is the heat's where there is most of it. Details are in the
# lightness: as half of that stays the photograph's, feathers can be made out under any heat.
_MOST = (0.5, 0.85, 0.85)
_UNSEEN = 0.45  # brightness of what the network was not shown


def overlay(image: Image.Image, heat: Heat, *, box: Box | None = None) -> Image.Image:
    """The photograph, from violet to yellow where the heat is; where there is none it is as it was.

    Args:
        image: The upright photograph, RGB, of any size. It is not changed.
        heat: (H, W), 0-1, as in ``Explanation``, of what the network was shown.
        box: Where in the photograph that is, see ``seen``; the rest of it is darkened. None is everywhere: the
            photograph was squeezed into the network's size, as ``birder`` does everywhere unless told otherwise.

    Raises:
        ConfigError: The heat is no (H, W) of values in 0-1, or the box does not lie in the photograph.
    """
    heat = np.ascontiguousarray(heat, np.float32)
    if heat.ndim != 2 or not (heat.min(initial=0) >= 0 and heat.max(initial=0) <= 1):  # also false for NaN
        raise ConfigError(f"heat must be (height, width) of numbers from 0 to 1, not {heat.shape}")
    left, top, right, bottom = (0, 0, *image.size) if box is None else (round(side) for side in box)
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise ConfigError(f"box must be left, top, right, bottom within {image.size}, not {box}")
    photograph = np.asarray(image.convert("RGB"))
    result = np.rint(photograph * np.float32(_UNSEEN)).astype(np.uint8)
    place = np.s_[top:bottom, left:right]
    fitted = Image.fromarray(heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    share = np.asarray(fitted, np.float32).clip(0, 1)[..., None]
    weight = (1 - (1 - share) ** 3) * np.array(_MOST)  # soft at the border, and soon as much as it gets
    colour = to_oklab(scale()[np.rint(share[..., 0] * (STEPS - 1)).astype(np.uint8)])
    result[place] = from_oklab(to_oklab(photograph[place]) * (1 - weight) + colour * weight)
    return Image.fromarray(result)


def seen(fit: Fit, size: tuple[int, int]) -> Box:
    """What a network was shown of a picture of (width, height) ``size``: left, top, right and bottom in its pixels.

    Rounding within ``fit`` may move it by a pixel of the network's picture.
    """
    rows, columns = fit.cover
    x, y = size[0] / columns, size[1] / rows  # pixels of the picture in one of the resized
    if fit.simple_crop:
        x = y = min(x, y)
    width, height = fit.size[1] * x, fit.size[0] * y
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return (left, top, left + width, top + height)
