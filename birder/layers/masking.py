"""Hiding parts of a feature map. Shapes: B images, C channels, H height, W width, L positions of the mask."""

import torch
from torch import Tensor


def hide(x: Tensor, mask: Tensor, token: Tensor | None, grid: tuple[int, int]) -> Tensor:
    """Put a token, or zeros, at the masked places of a map, (B, C, H, W) -> (B, C, H, W).

    Args:
        x: The map; H and W are multiples of the grid's.
        mask: (B, L), 1 where hidden, row by row over the grid.
        token: (1, 1, 1, C), or None for zeros.
        grid: Rows and columns of the mask, L = rows * columns.
    """
    rows, columns = grid
    mask = mask.reshape(-1, 1, rows, columns)  # (B, 1, rows, columns)
    mask = mask.repeat_interleave(x.shape[2] // rows, dim=2).repeat_interleave(x.shape[3] // columns, dim=3)
    filling = (
        torch.zeros((), dtype=x.dtype, device=x.device) if token is None else token.permute(0, 3, 1, 2).to(x.dtype)
    )
    return torch.where(mask.bool(), filling, x)
