"""Activation functions, by the names that configurations use."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

ActivationName = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
"""What a configuration may say."""


class QuickGELU(nn.Module):
    """GELU as a sigmoid, x * sigmoid(1.702 x), off by up to 0.02: the first CLIP was trained with it.

    Paper: Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415, section 2
    """

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[ActivationName, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}
"""Each name, and what makes the module."""
