"""Tables of positions: what a transformer knows of where a patch lies.

Shapes: h rows and w columns of patches, D width, S rows of the table for special tokens, in front of the patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.errors import ConfigError


def sincos_positions(grid: tuple[int, int], width: int, *, endpoint: bool = False) -> Tensor:
    """A fixed table of sines and cosines, (h * w, D), row by row.

    The first half of the channels tells the column, the second half the row: D/4 sines and then D/4 cosines of the
    number times frequencies that fall from 1 towards 1/10,000.

    Papers: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5, for one dimension; Chen et al. 2021,
    https://arxiv.org/abs/2104.02057, section 4.1, for two

    Args:
        grid: (h, w).
        width: D, a multiple of 4.
        endpoint: Whether the last frequency is 1/10,000 itself; otherwise that would be the next one.

    Raises:
        ConfigError: A width that is no multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"a table of sines and cosines of two directions has a multiple of 4 channels, not {width}")
    count = width // 4
    places = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float64) for side in grid)).view(-1, 2)
    powers = torch.arange(count, dtype=torch.float64) / max(count - endpoint, 1)
    angles = places.flip(1).unsqueeze(-1) * 10_000.0**-powers  # (h * w, 2, D/4), columns before rows
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def resample_positions(
    table: Tensor,
    before: tuple[int, int],
    after: tuple[int, int],
    *,
    special: int = 0,
    mode: str = "bicubic",
    antialias: bool = False,
) -> Tensor:
    """A table of another grid of patches, (1, S + h * w, D) -> (1, S + h' * w', D), of the same type.

    Args:
        table: Of the patches row by row, behind ``special`` rows that are kept.
        before: (h, w).
        after: (h', w').
        special: S.
        mode: How to interpolate, ``bicubic`` or ``bilinear``; computed in float32.
        antialias: Whether to smooth what is made smaller. Bicubic interpolation then has another kernel, in torch, and
            gives other numbers where it enlarges, too.
    """
    patches = table[:, special:].float().unflatten(1, before).permute(0, 3, 1, 2)  # (1, D, h, w)
    patches = F.interpolate(patches, size=after, mode=mode, antialias=antialias)
    patches = patches.permute(0, 2, 3, 1).flatten(1, 2)  # (1, h' * w', D)
    return torch.cat((table[:, :special], patches.to(table.dtype)), dim=1)
