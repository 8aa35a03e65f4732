"""The decoder of data2vec 2.0: a few convolutions over the map that visible and hidden tokens make.

Paper: Baevski et al. 2022, https://arxiv.org/abs/2212.07525, section 3.2
Shapes: N maps of h rows and w columns, K positions of each, D width of a token.
"""

from itertools import pairwise

from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.norm import LayerNorm2d
from birder.objectives.tokens import tokens_at

GROUPS = 16
"""Groups of the convolutions."""


class MapDecoder(nn.Module):
    """Convolutions, each around a residual connection but for a first one that widens; then a linear layer."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        """From and to tokens of ``width``, through ``depth`` layers of ``hidden`` channels.

        Raises:
            ConfigError: A number of channels that the groups do not divide.
        """
        super().__init__()
        widths = [width, *[hidden] * depth]
        for each in widths[:2]:
            if each % GROUPS:
                raise ConfigError(f"the widths of network and decoder must be multiples of {GROUPS} groups, not {each}")
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, padding=1, groups=GROUPS),
                LayerNorm2d(after, elementwise_affine=False),
                nn.GELU(),
            )
            for before, after in pairwise(widths)
        )
        self.projection = nn.Linear(hidden, width)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        """A map (N, D, h, w) -> the tokens (N, K, D) at some positions (N, K) of it, row by row."""
        for layer in self.layers:
            y = layer(x)
            x = x + y if x.shape == y.shape else y
        return self.projection(tokens_at(x.flatten(2).transpose(1, 2), where))
