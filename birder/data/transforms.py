"""From a picture to what a network takes, as the published models expect it.

Pillow resizes, so nothing but Pillow and torch is loaded for predicting. Training adds its changes in ``augment``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from birder.data.images import to_rgb
from birder.errors import ConfigError
from birder.signature import RGB, RGBStats

# A strip of 60000 x 1 pixels that is made to cover a square would take gigabytes before it is cropped. From this many
# times the result on, only the part that is left is resized: the same up to rounding, where the published models' way
# is otherwise followed to the last bit.
_MOST_PIXELS = 100


@dataclass(frozen=True, kw_only=True)
class InferenceTransform:
    """Resize, crop, scale to 0-1, normalise. Made by ``classification_transform``; can be pickled."""

    size: tuple[int, int]
    """(height, width) of the result."""
    mean: RGB
    """Subtracted from values in 0-1, per channel."""
    std: RGB
    """Divided by after that, per channel."""
    center_crop: float = 1.0
    """Part of height and width that is kept, 0-1."""
    simple_crop: bool = False
    """Keep the proportions and cut off what is too much, in place of squeezing the picture."""

    def __call__(self, image: Image.Image) -> Tensor:
        """A picture of any size and mode to float32 (3, H, W)."""
        return self.normalize(self.pixels(image))

    def pixels(self, image: Image.Image) -> Tensor:
        """The first half: a picture to uint8 (3, H, W), a quarter of the bytes to carry between processes."""
        image = to_rgb(image)
        height, width = self._resized(*reversed(image.size))
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        box = (left, top, left + self.size[1], top + self.size[0])
        if width * height > _MOST_PIXELS * self.size[0] * self.size[1]:
            scale_x, scale_y = image.width / width, image.height / height
            part = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC, box=part)
        else:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            image = image if (height, width) == self.size else image.crop(box)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """The second half: uint8 (..., 3, H, W) to contiguous float32 (..., 3, H, W)."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(mean).div_(std)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        base_height, base_width = (int(side / self.center_crop) for side in self.size)
        if not self.simple_crop:
            return (base_height, base_width)
        if width * base_height >= height * base_width:
            return (base_height, max(base_width, base_height * width // height))
        return (max(base_height, base_width * height // width), base_width)


def classification_transform(
    size: tuple[int, int], rgb_stats: RGBStats, center_crop: float = 1.0, simple_crop: bool = False
) -> InferenceTransform:
    """What a classification network wants done to a picture.

    Args:
        size: (height, width) that the network takes.
        rgb_stats: Colour statistics, from the model file.
        center_crop: Part of height and width that is kept, 0-1; the picture is first resized to ``size / center_crop``.
        simple_crop: Keep the proportions: resize until the picture covers the size, then cut. Otherwise it is squeezed.

    Returns:
        A function of a Pillow image, giving float32 (3, H, W).

    Raises:
        ConfigError: A size that is not two positive whole numbers, a crop outside of 0-1, or a deviation of 0.
    """
    size = (size[0], size[1])
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise ConfigError(f"size must be (height, width) in pixels, not {size!r}")
    if not 0 < center_crop <= 1:
        raise ConfigError(f"center_crop must be above 0 and at most 1, not {center_crop!r}")
    mean, std = (tuple(float(value) for value in rgb_stats[name]) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ConfigError(f"rgb_stats must have three numbers each for mean and std, with std above 0: {rgb_stats!r}")
    return InferenceTransform(
        size=size, mean=tuple(mean), std=tuple(std), center_crop=center_crop, simple_crop=simple_crop
    )
