"""Heads: what an objective puts behind the network, and throws away in the end.

Shapes: B rows, D size of what comes in.
"""

from collections.abc import Sequence

from torch import nn


def projector(size: int, widths: Sequence[int], *, bias: bool = False, batch_norm: bool = True) -> nn.Sequential:
    """Linear layers, (B, D) -> (B, last width); batch norm and ReLU stand behind all but the last, which has no bias.

    Args:
        size: D.
        widths: Of the layers, one or more.
        bias: Whether the layers in front of the last add one; a batch norm takes it out again, in training.
        batch_norm: Whether there are batch norms; they need two rows or more in training.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(size, width, bias=bias), *([nn.BatchNorm1d(width)] * batch_norm), nn.ReLU(inplace=True)]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, widths[-1], bias=False))
