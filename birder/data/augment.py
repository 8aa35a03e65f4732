"""Training pictures: a random crop, a flip, random changes of colour and geometry, a rectangle blanked out.

The policies, and what a recipe leaves to them:

| policy         | changes                                                              | min_scale    | erase        |
|----------------|----------------------------------------------------------------------|--------------|--------------|
| none           |                                                                      | 0.35         | 0            |
| birder         | 2 to 5 of twelve, by level L; at 0 a picture is only resized         | 0.8 - 0.05 L | 0.25 to 0.35 |
| autoaugment    | pairs learned on ImageNet (Cubuk et al. 2019, arXiv 1805.09501)      | 0.08         | 0            |
| randaugment    | ``operations`` of 14 (Cubuk et al. 2019, arXiv 1909.13719)           | 0.35         | 0            |
| trivialaugment | one of 14 at any strength (Müller and Hutter 2021, arXiv 2103.10158) | 0.35         | 0            |
| augmix         | mixtures of chains (Hendrycks et al. 2020, arXiv 1912.02781)         | 0.08         | 0            |
| 3augment       | grey, inverted or blurred; colours (Touvron et al. 2022, 2204.07118) | 0.08         | 0            |
| clip           | colours, now and then grey; never mirrored                           | 0.8          | 0            |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from birder.errors import need

Step = Callable[[Any], Any]
_MIN_SCALE = {None: 0.35, "none": 0.35, "randaugment": 0.35, "trivialaugment": 0.35, "clip": 0.8}  # others 0.08


class AugmentOptions(Protocol):
    """What ``training_transform`` asks of its options; ``birder.training.recipe.Augment`` has it."""

    @property
    def policy(self) -> str | None:
        """The name of the changes; None is trivialaugment."""

    @property
    def level(self) -> int:
        """Strength of birder, 0 to 10."""

    @property
    def operations(self) -> int:
        """Changes per picture, of randaugment."""

    @property
    def magnitude(self) -> int:
        """Strength of the changes, of randaugment."""

    @property
    def severity(self) -> int:
        """Strength of the changes, of augmix."""

    @property
    def min_scale(self) -> float | None:
        """Smallest share of the area that a random crop keeps; 1 is no crop, None the policy's."""

    @property
    def flip(self) -> float:
        """Probability of mirroring left and right."""

    @property
    def erase(self) -> float | None:
        """Probability of blanking out a rectangle; None is the policy's."""

    @property
    def grayscale(self) -> bool:
        """Whether birder may take the colours away."""


def training_transform(
    size: tuple[int, int], options: AugmentOptions, *, scale: tuple[float, float] | None = None
) -> Callable[[Image.Image], Tensor]:
    """A function from an RGB picture to uint8 (3, H, W); torch's random numbers decide what it does. Can be pickled.

    Args:
        size: (height, width) of the result.
        options: How strongly pictures are varied.
        scale: Least and greatest share of the area that a random crop keeps; None leaves the least to the options.

    Raises:
        MissingPackage: torchvision is not installed.
    """
    need("torchvision", extra="train", purpose="training")
    from torchvision.transforms import v2

    if options.policy == "birder" and options.level == 0:
        return v2.Compose([_resize(size), as_bytes])
    scale, erase = scale or (crop_scale(options), 1.0), erase_probability(options)
    crop = _resize(size) if scale[0] == 1.0 else _crop(size, scale)
    flip = [v2.RandomHorizontalFlip(options.flip)] if options.flip and options.policy != "clip" else []
    if options.policy == "birder":
        blank = v2.RandomErasing(erase, scale=(0.02, 0.05 + 0.025 * options.level))
        steps = [crop, *_changes(options), as_bytes, *([blank] if erase else []), *flip]
    else:
        blank = v2.RandomErasing(erase)
        steps = [crop, *flip, *_changes(options), as_bytes, *([blank] if erase else [])]
    return v2.Compose(steps)


class Views:
    """Several looks at a picture: large ones, and small ones. Can be pickled."""

    def __init__(
        self,
        large: Callable[[Image.Image], Tensor],
        number: int = 1,
        small: Callable[[Image.Image], Tensor] | None = None,
        small_number: int = 0,
    ) -> None:
        """As many looks of each kind; each is made by a function such as ``training_transform`` gives."""
        self._kinds = [(large, number)] + ([(small, small_number)] if small is not None and small_number else [])

    def __call__(self, image: Image.Image) -> tuple[Tensor, ...]:
        """An RGB picture to uint8 (3, H, W), or (V, 3, H, W) where it has V looks, 2 or more; then the small ones."""
        (large, number), *others = self._kinds
        first = large(image) if number == 1 else _stacked(large, number, image)
        return (first, *(_stacked(small, count, image) for small, count in others))


def _stacked(look: Callable[[Image.Image], Tensor], number: int, image: Image.Image) -> Tensor:
    return torch.stack([look(image) for _ in range(number)])


def crop_scale(options: AugmentOptions) -> float:
    """Smallest share of the area that a random crop keeps, of the policy where the options leave it open."""
    if options.min_scale is not None:
        return options.min_scale
    if options.policy == "birder":
        return 0.8 - 0.05 * options.level if options.level else 1.0
    return _MIN_SCALE.get(options.policy, 0.08)


def varies(options: AugmentOptions) -> bool:
    """Whether a picture looks different each time."""
    if options.policy == "birder" and options.level == 0:
        return False
    return options.policy != "none" or crop_scale(options) < 1.0 or options.flip > 0.0 or erase_probability(options) > 0


def erase_probability(options: AugmentOptions) -> float:
    """Probability of blanking out a rectangle, of the policy where the options leave it open."""
    if options.erase is not None:
        return options.erase
    if options.policy == "birder" and options.level:
        return max(0.25, 0.05 * options.level - 0.15)
    return 0.0


def as_bytes(image: Image.Image) -> Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def level_operations(level: int, *, grayscale: bool = False) -> list[Step]:
    """The changes from which the policy birder draws at a level, 1 to 10, each a function of a picture."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    changes: list[Step] = [
        v2.Identity(),
        v2.RandomRotation(2.25 * level),
        v2.ColorJitter(brightness=0.2 + 0.0125 * level),
        v2.ColorJitter(contrast=0.05 + 0.025 * level, hue=max(0.0, 0.0125 * level - 0.025)),
    ]
    if level >= 3:
        changes += [
            v2.ColorJitter(saturation=0.07 * level),
            v2.RandomAffine(0, translate=(0.02 * level, 0.02 * level)),
            v2.RandomAffine(0, shear=2.5 * level),
            v2.RandomPosterize(9 - (level + 1) // 2, p=1.0),
            v2.GaussianBlur(2 * ((level + 1) // 4) + 1, sigma=(0.5, 1.2)),
            v2.RandomAutocontrast(p=1.0),
            Drawn(function=functional.adjust_sharpness, low=0.8 + 0.04 * level, high=1.2 + 0.04 * level, least=1.0),
        ]
    if level >= 5:
        threshold = 255.0 - 12.0 * level
        changes.append(Drawn(function=functional.solarize, low=0.7 * threshold, high=1.3 * threshold))
    if grayscale:
        changes.append(v2.Grayscale(3))
    return changes


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A change of a picture by a number that is drawn anew each time."""

    function: Callable[[Any, float], Any]
    """Of a picture and the number."""
    low: float
    """The number is uniform from here"""
    high: float
    """to here,"""
    least: float = 0.0
    """but not below this."""

    def __call__(self, image: Any) -> Any:
        """A picture to a picture."""
        number = torch.empty(1).uniform_(self.low, self.high).item()
        return self.function(image, max(self.least, number))


@dataclass(frozen=True, kw_only=True)
class Several:
    """Some changes one after the other: how many, and each of which, is drawn anew for every picture."""

    changes: tuple[Step, ...]
    """From which to draw, with replacement."""
    fewest: int
    """How many at least."""
    most: int
    """How many at most."""

    def __call__(self, image: Any) -> Any:
        """A picture to a picture."""
        number = int(torch.randint(self.fewest, self.most + 1, ()))
        for choice in torch.randint(len(self.changes), (number,)).tolist():
            image = self.changes[choice](image)
        return image


def _resize(size: tuple[int, int]) -> Step:
    from torchvision.transforms import InterpolationMode, v2

    return v2.Resize(size, interpolation=InterpolationMode.BICUBIC)


def _crop(size: tuple[int, int], scale: tuple[float, float]) -> Step:
    from torchvision.transforms import InterpolationMode, v2

    # Two kernels, so that the network does not come to rely on the look of one.
    kernels = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    return v2.RandomChoice([v2.RandomResizedCrop(size, scale=scale, interpolation=kernel) for kernel in kernels])


def _changes(options: AugmentOptions) -> list[Step]:
    """What a policy does to a picture that has its final size."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    match options.policy:
        case "birder":
            changes = level_operations(options.level, grayscale=options.grayscale)
            return [Several(changes=tuple(changes), fewest=2, most=max(2, (options.level + 1) // 2))]
        case "autoaugment":
            return [v2.AutoAugment(interpolation=bilinear)]
        case "randaugment":
            return [v2.RandAugment(options.operations, options.magnitude, interpolation=bilinear)]
        case "trivialaugment" | None:
            return [v2.TrivialAugmentWide(interpolation=bilinear)]
        case "augmix":
            return [v2.AugMix(options.severity, interpolation=bilinear)]
        case "3augment":
            one = [v2.Grayscale(3), v2.RandomSolarize(128, p=1.0), v2.GaussianBlur(13)]
            return [v2.RandomChoice(one), v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)]
        case "clip":
            colours = v2.ColorJitter(brightness=0.32, contrast=0.32, saturation=0.32, hue=0.08)
            return [v2.RandomApply([colours], p=0.8), v2.RandomGrayscale(0.2)]
    return []
