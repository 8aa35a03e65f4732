"""Training pictures: a random crop, a flip, a random change of colour or geometry, a rectangle blanked out."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from birder.errors import need


class AugmentOptions(Protocol):
    """What ``training_transform`` asks of its options; ``birder.training.recipe.Augment`` has it."""

    @property
    def min_scale(self) -> float:
        """Smallest share of the area that a random crop keeps; 1 is no crop."""

    @property
    def flip(self) -> float:
        """Probability of mirroring left and right."""

    @property
    def policy(self) -> str:
        """``none``, ``randaugment`` or ``trivialaugment``."""

    @property
    def operations(self) -> int:
        """Changes per picture, of randaugment."""

    @property
    def magnitude(self) -> int:
        """Strength of the changes, of randaugment."""

    @property
    def erase(self) -> float:
        """Probability of blanking out a rectangle."""


def training_transform(size: tuple[int, int], options: AugmentOptions) -> Callable[[Image.Image], Tensor]:
    """A function from an RGB picture to uint8 (3, H, W); torch's random numbers decide what it does.

    Args:
        size: (height, width) of the result.
        options: How strongly pictures are varied.

    Raises:
        MissingPackage: torchvision is not installed.
    """
    need("torchvision", extra="train", purpose="training")
    from torchvision.transforms import InterpolationMode, v2

    bilinear, bicubic = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
    steps: list[Callable[..., Any]] = [v2.Resize(size, interpolation=bicubic)]
    if options.min_scale < 1.0:
        scale = (options.min_scale, 1.0)
        # Two kernels, so that the network does not come to rely on the look of one.
        crops = [v2.RandomResizedCrop(size, scale=scale, interpolation=kernel) for kernel in (bilinear, bicubic)]
        steps = [v2.RandomChoice(crops)]
    if options.flip:
        steps.append(v2.RandomHorizontalFlip(options.flip))
    if options.policy == "randaugment":
        steps.append(v2.RandAugment(options.operations, options.magnitude, interpolation=bilinear))
    elif options.policy == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(interpolation=bilinear))
    steps.append(as_bytes)
    if options.erase:
        steps.append(v2.RandomErasing(options.erase))
    return v2.Compose(steps)


def as_bytes(image: Image.Image) -> Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
