"""Where the places of a map lie in a picture.

Shapes: H height, W width in pixels, h rows and w columns of places.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from birder.networks.base import DropsTokens, Network


class Grid(NamedTuple):
    """Places at equal distances, the same in both directions, in pixels."""

    first: float
    """Middle of the first place; 0 is the middle of the first pixel."""
    stride: int
    """From one to the next."""


def grid_of(network: Network, stage: str | None = None) -> Grid:
    """Where the places of a stage's map, by default the last, lie.

    Patches lie side by side. Where convolutions that overlap are padded by half of their width, every 32nd pixel has a
    place right around it, from the very first on; half a place away from where a map that is simply stretched has it.
    """
    stride = network.max_stride
    if stage is not None and not isinstance(network, DropsTokens):
        names = list(network.stages)
        stride >>= len(names) - 1 - names.index(stage)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    return Grid(first=0.0 if first.padding != (0, 0) else (stride - 1) / 2, stride=stride)


def enlarged(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Values at places as values of pixels, (h, w) -> (H, W), within the same limits.

    Between two places they change evenly; beyond the outermost they stay.
    """
    rows, columns = (_shares(count, grid, pixels).to(values) for count, pixels in zip(values.shape, size, strict=True))
    return rows @ values @ columns.T


def _shares(places: int, grid: Grid, pixels: int) -> Tensor:
    """How much of each place is in each pixel of a line, (pixels, places); the shares of a pixel add up to 1."""
    at = ((torch.arange(pixels, dtype=torch.float64) - grid.first) / grid.stride).clamp(0, places - 1)
    return (1 - (at[:, None] - torch.arange(places)).abs()).clamp(min=0)
