"""Normalisation and scaling of channels. Shapes: B images, C channels, H height, W width."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MakeNorm = Callable[[int], nn.Module]
"""Makes the norm of so many channels; ``nn.Identity`` makes none."""


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a feature map, (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over C at every position."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Let channels compete: scale each by its share of the response of the whole map, (B, H, W, C) -> (B, H, W, C).

    Paper: Woo et al. 2023, https://arxiv.org/abs/2301.00808, section 4 and algorithm 1
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        """Start as the identity: gamma and beta are zero."""
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale, shift and add the input."""
        device = "cpu" if x.is_meta else x.device.type  # there is no autocast without numbers
        with torch.autocast(device, enabled=False):  # which would copy the large x into float32 and back
            exact = torch.promote_types(x.dtype, torch.float32)
            squares = (x.float() if x.dtype == torch.float16 else x).square()  # of float16, they would overflow
            # Faster than a norm, forwards and backwards, and with a gradient where a channel is 0 everywhere.
            energy = squares.sum(dim=(1, 2), keepdim=True, dtype=exact)  # (B, 1, 1, C)
            response = energy.clamp_min(1e-24).sqrt()
            share = response / (response.mean(dim=-1, keepdim=True) + self.eps)
            # gamma * (x * share) + beta + x, gathered so that the large x is passed over once
            scale = torch.addcmul(torch.ones_like(share), self.gamma, share)
            return torch.addcmul(self.beta.to(x.dtype), x, scale.to(x.dtype))


class LayerScale(nn.Module):
    """Scale each channel by a learned factor, (..., C) -> (..., C).

    Paper: Touvron et al. 2021, https://arxiv.org/abs/2103.17239, section 2
    """

    def __init__(self, channels: int, initial: float = 1e-5) -> None:
        """All factors start at ``initial``."""
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return x * self.gamma
