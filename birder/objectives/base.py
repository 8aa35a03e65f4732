"""What a training method is.

Shapes: B images, C channels, H height, W width.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from birder.networks.base import Network


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of one step, on the device."""

    images: Tensor
    """(B, C, H, W), normalised."""
    labels: Tensor
    """(B,), int64."""


class Objective(nn.Module):
    """(network, batch, progress) -> losses.

    Attributes:
        network: What is trained, and all that is left in the end.
    """

    network: Network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses by name; ``loss`` is the one that is minimised, others are shown.

        Args:
            batch: Pictures, and labels where the method needs them.
            progress: Share of the run that is over, in [0, 1].
        """
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What follows a move of the weights, such as a teacher."""
