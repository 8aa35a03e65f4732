"""Pictures for a network, and what is expected of the tensors that come out."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from birder.networks.base import Network
from birder.testing.promise import expect

IMAGES = 2
TOLERANCE = 1e-4
"""Largest difference, relative to the spread of the expected values, that counts as equal in float32."""

Build = Callable[..., Network]
"""Makes the network that is checked; takes the options of ``create_network``, and ``seed`` for other weights."""


def pictures(network: Network, size: Sequence[int] | None = None, channels: int | None = None) -> Tensor:
    """Noise in the shape that a network takes, (2, C, H, W), the same in every call."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(IMAGES, channels or network.input_channels, *(size or network.size), generator=generator)


def expect_shape(what: str, tensor: Tensor, *shape: int) -> None:
    """A finite tensor of that shape, or ``BrokenPromise``."""
    expect(tuple(tensor.shape) == shape, f"{what} gives {tuple(tensor.shape)}, not {shape}")
    expect(bool(torch.isfinite(tensor).all()), f"{what} gives values that are not finite")


def expect_equal(what: str, tensor: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """A tensor whose values are those expected, up to ``tolerance`` of their spread, or ``BrokenPromise``."""
    expect_shape(what, tensor, *expected.shape)
    spread = float(expected.detach().float().std()) + 1e-12
    difference = float((tensor.detach().float() - expected.detach().float()).abs().max()) / spread
    expect(difference <= tolerance, f"{what} differs, by up to {difference:.2g} of the spread")
