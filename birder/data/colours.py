"""Any mode of Pillow to RGB, without a second copy of a large picture.

- Transparent places show white.
- 16-bit grey is scaled to 8 bits, never clipped. Grey of 32 bits (``I``, ``F``) is taken by its values: 0-1 in floats,
  0-255 or 0-65535 as what they look like, anything else is stretched from its darkest to its brightest.
- CMYK, YCbCr, HSV and LAB are converted; embedded colour profiles are not applied, as in training.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

BAND_PIXELS = 2**22
"""What is converted at once. A picture of 100 megapixels takes 400 MB, and each step on the way to RGB as much again;
in bands, the steps take next to nothing."""


def to_rgb(image: Image.Image, shrink: int = 1) -> Image.Image:
    """The picture in RGB, white behind what is transparent; an RGB picture itself.

    Args:
        image: A picture of any mode. It is not changed.
        shrink: Each pixel of the result is the mean of a square of so many pixels in height and width.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.reduce(shrink) if shrink > 1 else image
    convert = _conversion(image)
    bands = list(_bands(image.size, shrink))
    if len(bands) == 1 and shrink == 1:
        return convert(image)
    result = Image.new("RGB", (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
    for box in bands:
        band = convert(image.crop(box))
        result.paste(band.reduce(shrink) if shrink > 1 else band, (0, box[1] // shrink))
    return result


def _bands(size: tuple[int, int], shrink: int = 1) -> Iterator[tuple[int, int, int, int]]:
    width, height = size
    rows = max(BAND_PIXELS // (width * shrink), 1) * shrink
    for top in range(0, height, rows):
        yield (0, top, width, min(top + rows, height))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    if image.mode in ("I", "F"):
        return functools.partial(_grey, *_range(image))
    if image.mode.startswith("I;16"):
        return _deep_grey
    if image.mode == "LAB":
        return _lab_to_rgb
    if image.has_transparency_data:
        return _on_white
    return functools.partial(Image.Image.convert, mode="RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    colours = image.convert("RGBA")
    alpha = colours.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours.convert("RGB")
    result = Image.new("RGB", image.size, "white")
    result.paste(colours, mask=alpha)
    return result


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # loads a library of its own, which hardly any picture needs

    result = ImageCms.applyTransform(image, _lab_transform())
    assert result is not None, "only with inPlace=True there is no result"
    return result


@functools.cache
def _lab_transform() -> Any:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")


def _grey(low: float, high: float, image: Image.Image) -> Image.Image:
    values = _finite(image)
    if low < 0 or high > 65535:
        values = (values - low) * (255 / max(high - low, 1e-30))
    elif image.mode == "F" and high <= 1:
        values = values * 255
    elif high > 255:
        values = values / 257
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    ends = [(float(values.min()), float(values.max())) for values in map(_finite, map(image.crop, _bands(image.size)))]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _finite(image: Image.Image) -> Array:
    values = np.asarray(image).astype(np.float32)
    return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
