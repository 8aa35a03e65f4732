"""Drawing what is hidden of a picture: patches, what is to be drawn of them, and what such objectives share.

Shapes: B images, C channels, H height, W width, p side of a patch, h x w = L patches row by row, P = p * p * C numbers
of a patch: row by row, in a row column by column, and the channels of a pixel side by side. A mask is (B, L), bool,
True where hidden.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.base import Batch, Objective
from birder.objectives.chance import draws, uncompiled
from birder.objectives.masking import uniform_masks

EPS = 1e-6
"""Added to a variance."""


class PixelObjective(Objective):
    """Hide some patches of a picture, and draw them.

    A subclass sets ``network``, and answers ``draw`` and, where it does not draw plain pixels, ``scale``.

    Attributes:
        size: (H, W), fixed when it is built.
        grid: (h, w).
        patch: p, input pixels per position of the network's last map.
        mask_ratio: Share that is hidden.
        cell: Side of the squares that are hidden or visible as a whole, in patches.
    """

    reaches_all = False  # what makes an embedding of the tokens, such as an attention pool, learns nothing

    def __init__(self, network: Network, mask_ratio: float, *, cell: int = 1) -> None:
        """Draw pictures of the size of the network, which is trained.

        Raises:
            ConfigError: The ratio leaves nothing visible or nothing hidden, or patches do not fit the size.
        """
        super().__init__()
        self.network = network
        self.mask_ratio = mask_ratio
        self.cell = cell
        self.size = network.size
        self.patch = network.max_stride
        self.grid = (self.size[0] // self.patch, self.size[1] // self.patch)
        if any(side % self.patch for side in self.size):
            near = tuple(max(round(side / self.patch), 1) * self.patch for side in self.size)
            raise ConfigError(
                f"size: {network.name} sees patches of {self.patch} pixels, which do not fit pictures of {self.size}; "
                f"take a size such as {near}"
            )
        self._check_ratio()

    @property
    def patch_numbers(self) -> int:
        """P."""
        return self.patch**2 * self.network.input_channels

    @property
    def feature_width(self) -> int:
        """Channels of the network's last map, or of its tokens."""
        return list(self.network.stages.values())[-1]

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, that of random masks; in evaluation they are the same in every call."""
        return {"loss": self.loss(batch.images, self.masks(len(batch.images)))}

    @uncompiled
    def masks(self, num_images: int) -> Tensor:
        """Random masks, (B, L), on the CPU; in evaluation the same in every call."""
        generator = draws(self.training)
        return uniform_masks(num_images, self.grid, self.mask_ratio, cell=self.cell, generator=generator)

    def loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """Error of the hidden patches, a scalar: the mean over those of a picture, and over the pictures.

        Args:
            images: (B, C, H, W), normalised.
            mask: (B, L).
        """
        return self.error(self.draw(images, mask), images, mask)

    def error(self, drawn: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """The same of what is drawn, (B, L, P)."""
        mean, deviation = self.scale(images)
        target = (to_patches(images, self.patch) - mean) / deviation
        return mean_of_hidden(self.distance(drawn, target), mask.to(images.device))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks (B, L), and the pictures (B, C, H, W) with what is drawn in place of what they hide.

        Where patches are drawn without their mean and deviation, they get back those of the true ones.

        Args:
            images: (B, C, H, W), normalised.
            mask: (B, L); None are random ones.
        """
        mask = (self.masks(len(images)) if mask is None else mask).to(images.device)
        mean, deviation = self.scale(images)
        drawn = self.draw(images, mask) * deviation + mean
        patches = torch.where(mask.unsqueeze(-1), drawn, to_patches(images, self.patch))
        return mask, to_images(patches, self.grid, self.patch)

    def draw(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches of pictures whose masked parts are hidden, (B, L, P), the visible ones too."""
        raise NotImplementedError

    def scale(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is taken from each number of the patches, and what they are then divided by, as wide as (B, L, P)."""
        return images.new_zeros(()), images.new_ones(())

    def distance(self, drawn: Tensor, target: Tensor) -> Tensor:
        """How far patches are from the true ones, (B, L, P) each -> (B, L)."""
        return (drawn - target).square().mean(dim=-1)

    def _check_ratio(self) -> None:
        rows, columns = (math.ceil(side / self.cell) for side in self.grid)
        total = rows * columns
        visible = int(total * (1 - self.mask_ratio))
        if not 0 < visible < total:
            raise ConfigError(
                f"mask_ratio: {self.mask_ratio:g} leaves {visible} visible of {rows} x {columns} squares of "
                f"{self.cell * self.patch} pixels; some must be visible and some hidden: take larger pictures than "
                f"{self.size}, or another ratio"
            )

    def _check_size(self, images: Tensor) -> None:
        size = (images.shape[2], images.shape[3])
        if size != self.size:
            raise ConfigError(
                f"{self.network.name} hides parts of pictures of {self.size}, and these are of {size}: set the size of "
                "the network first, then build the objective"
            )


def to_patches(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, L, P)."""
    parts = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, C, h, w, p, p)
    return parts.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def to_images(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, L, P) -> (B, C, H, W)."""
    parts = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))  # (B, h, w, p, p, C)
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def patch_scale(images: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the numbers in each patch, (B, C, H, W) -> (B, L, 1) each.

    Paper: He et al. 2021, https://arxiv.org/abs/2111.06377 (MAE), section 4.1
    """
    variance, mean = torch.var_mean(to_patches(images, patch), dim=-1, keepdim=True)
    return mean, (variance + EPS).sqrt()


def window_scale(images: Tensor, window: int = 47) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel in a square around each pixel, (B, C, H, W) -> (B, C, H, W) each.

    What lies outside the picture does not count.

    Args:
        images: Pictures.
        window: Side of the square in pixels, odd.
    """
    mean, mean_square = _window_mean(images, window), _window_mean(images.square(), window)
    down, right = (_window_count(side, window, images.device) for side in images.shape[2:])
    count = (down[:, None] * right).to(images.dtype)  # (H, W)
    variance = (mean_square - mean.square()).clamp(min=0.0) * (count / (count - 1).clamp(min=1))
    return mean, (variance + EPS).sqrt()


def mean_of_hidden(errors: Tensor, mask: Tensor) -> Tensor:
    """Mean over the hidden patches of each picture, then over the pictures, (B, L) each -> scalar."""
    return ((errors * mask).sum(dim=1) / mask.sum(dim=1)).mean()


def _window_mean(images: Tensor, window: int) -> Tensor:
    """One direction after the other: a square of 47 x 47 costs as much as 94 pixels."""
    reach = window // 2
    rows = F.avg_pool2d(images, (1, window), stride=1, padding=(0, reach), count_include_pad=False)
    return F.avg_pool2d(rows, (window, 1), stride=1, padding=(reach, 0), count_include_pad=False)


def _window_count(side: int, window: int, device: torch.device) -> Tensor:
    """How many of ``window`` pixels around each lie in the picture, (side,)."""
    place, reach = torch.arange(side, device=device), window // 2
    return (place + reach).clamp(max=side - 1) - (place - reach).clamp(min=0) + 1
