"""Moving axes, and dropping whole paths."""

import torch
from torch import Tensor, nn


class Permute(nn.Module):
    """Reorder the axes of a tensor."""

    def __init__(self, *axes: int) -> None:
        """``Permute(0, 2, 3, 1)`` makes (B, C, H, W) into (B, H, W, C)."""
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers, as a view."""
        return x.permute(self.axes)

    def extra_repr(self) -> str:
        """The order of axes."""
        return ", ".join(map(str, self.axes))


class DropPath(nn.Module):
    """In training, drop the whole path for some of the images, and scale up the others to keep the mean.

    Paper: Huang et al. 2016, https://arxiv.org/abs/1603.09382
    """

    def __init__(self, rate: float) -> None:
        """``rate`` is the probability, in [0, 1), that an image skips this path."""
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        survives = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x * torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(survives).div_(survives)

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.rate:g}"


def drop_path_rates(rate: float, num_layers: tuple[int, ...], *, uniform: bool = False) -> list[list[float]]:
    """Rates of all blocks, one list per stage: rising linearly from 0 to ``rate``, or all the same."""
    total = sum(num_layers)
    rates = iter([rate if uniform else rate * number / max(total - 1, 1) for number in range(total)])
    return [[next(rates) for _ in range(count)] for count in num_layers]
