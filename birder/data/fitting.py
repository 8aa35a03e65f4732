"""From a picture to the pixels that a network takes, and to its numbers, by Pillow and NumPy alone.

What reads pictures in a process of its own needs no more than this, and so starts in a tenth of a second; the same in
torch is in ``transforms``.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from birder.data.colours import to_rgb
from birder.data.images import Box
from birder.signature import RGBStats

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

# A strip of 60000 x 1 pixels that is made to cover a square would take gigabytes before it is cropped. From this many
# times the result on, only the part that is left is resized: the same up to rounding, where the published models' way
# is otherwise followed to the last bit.
_MOST_PIXELS = 100


@dataclass(frozen=True)
class Fit:
    """Resize and crop, as the published models expect it. Can be pickled."""

    size: tuple[int, int]
    """(height, width) of the result."""
    center_crop: float = 1.0
    """Part of height and width that is kept, above 0 and at most 1."""
    simple_crop: bool = False
    """Keep the proportions and cut off what is too much, in place of squeezing the picture."""

    @property
    def cover(self) -> tuple[int, int]:
        """(height, width) that every picture is resized to, or, with ``simple_crop``, to what just covers it."""
        return (int(self.size[0] / self.center_crop), int(self.size[1] / self.center_crop))

    def __call__(self, image: Image.Image, box: Box | None = None) -> Pixels:
        """A picture of any size and mode to uint8 (H, W, 3).

        Args:
            image: The picture. It is not changed.
            box: Where in it the picture is, if not everywhere: ``Photo.box`` of one that was read at reduced scale.
        """
        image = to_rgb(image)
        left, top, right, bottom = box or (0, 0, image.width, image.height)
        height, width = self._resized(bottom - top, right - left)
        first_row, first_column = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        last_row, last_column = first_row + self.size[0], first_column + self.size[1]
        if width * height > _MOST_PIXELS * self.size[0] * self.size[1]:
            x, y = (right - left) / width, (bottom - top) / height
            part = (left + first_column * x, top + first_row * y, left + last_column * x, top + last_row * y)
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC, box=part)
        else:
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
            if (height, width) != self.size:
                image = image.crop((first_column, first_row, last_column, last_row))
        return np.array(image)

    def _resized(self, height: float, width: float) -> tuple[int, int]:
        base_height, base_width = self.cover
        if not self.simple_crop:
            return (base_height, base_width)
        if width * base_height >= height * base_width:
            return (base_height, max(base_width, int(base_height * width // height)))
        return (max(base_height, int(base_width * height // width)), base_width)


def normalized(pixels: Pixels, stats: RGBStats) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pictures (B, H, W, C) as a network takes them: float32 (B, C, H, W), to the last bit what torch makes of them.

    Args:
        pixels: B pictures.
        stats: Colour statistics from the model file, of C channels.
    """
    images: np.ndarray[Any, np.dtype[np.float32]] = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    mean, std = (np.array(stats[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    images /= np.float32(255)
    images -= mean
    images /= std
    return images
