"""Tables of positions: what a transformer knows of where a patch lies.

Shapes: h rows and w columns of patches, D width, S rows of the table for special tokens, in front of the patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
