"""From a picture to what a network takes, as the published models expect it.

Pillow resizes, so nothing but Pillow and torch is loaded for predicting. Training adds its changes in ``augment``.
"""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from birder.data.fitting import Fit
from birder.errors import ConfigError
from birder.signature import RGB, RGBStats


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

    @property
    def fit(self) -> Fit:
        """The half that needs no torch."""
        return Fit(self.size, self.center_crop, self.simple_crop)

    def pixels(self, image: Image.Image) -> Tensor:
        """The first half: a picture to uint8 (3, H, W), a quarter of the bytes to carry between processes."""
        return torch.from_numpy(self.fit(image)).permute(2, 0, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """The second half: uint8 (..., 3, H, W) to contiguous float32 (..., 3, H, W)."""
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(mean).div_(std)


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
