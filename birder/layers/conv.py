"""Convolutions with what goes with them. Shapes: B images, C channels, H height, W width."""

import torch
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, activation, (B, before, H, W) -> (B, after, H/stride, W/stride).

    H/stride and W/stride are rounded up.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        """``kernel_size`` is odd; ``activation`` can work in place, and None leaves it out."""
        super().__init__(
            nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after),
        )
        if activation is not None:  # in place: the gradient of the norm does not need what the norm gave
            self.append(activation(inplace=True))


class SqueezeExcite(nn.Module):
    """Weigh each channel by a gate that has seen the whole map, (B, C, H, W) -> (B, C, H, W).

    Paper: Hu et al. 2018, https://arxiv.org/abs/1709.01507, section 3
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        """``squeezed`` is the width between the two layers of the gate."""
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the gates, which lie in 0 to 1."""
        gate = self.fc1(x.mean(dim=(2, 3), keepdim=True)).relu()  # (B, squeezed, 1, 1)
        return x * torch.sigmoid(self.fc2(gate))
