"""Barlow Twins: two views agree in every dimension, and no two dimensions say the same.

Paper: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021,
https://arxiv.org/abs/2103.03230
Shapes: N pictures of all processes, D size of what is compared.
"""

import torch
from torch import Tensor, nn

from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, objectives
from birder.objectives.configs import BarlowTwinsConfig
from birder.objectives.heads import projector
from birder.objectives.views import check_pictures, projected_in_turn, rows_of_all, squares_off_diagonal


@objectives.register(barlow_twins=BarlowTwinsConfig)
class BarlowTwins(Objective):
    """Bring the correlations between the dimensions of two views to the identity.

    Attributes:
        head: From the embedding to what is compared.
        norm: Brings each dimension to mean 0 and variance 1, over the pictures of all processes.
    """

    compares = True
    least = 2

    def __init__(self, network: Network, config: BarlowTwinsConfig) -> None:
        """Train ``network`` on pairs of views of unlabelled pictures."""
        super().__init__()
        self.network = network
        self.config = config
        self.head = projector(network.embedding_size, config.projector)
        self.norm = nn.BatchNorm1d(config.projector[-1], affine=False)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``; D is what views without any relation give, and some more.

        Raises:
            ConfigError: There is a single picture.
        """
        check_pictures(batch, needed_by=self.config.name)
        rows = rows_of_all(projected_in_turn(self.network, self.head, batch.images), batch)
        with torch.autocast(rows.device.type, enabled=False):  # the products would be rounded to some three digits
            first, second = (self.norm(view) for view in rows.unbind(1))
            return {"loss": correlation_loss(first, second, self.config.off_diagonal)}


def correlation_loss(first: Tensor, second: Tensor, off_diagonal: float) -> Tensor:
    """Squared distance of the correlations from the identity, (N, D) each -> scalar.

    Args:
        first: One view of each picture; each column has mean 0 and variance 1.
        second: The other view.
        off_diagonal: Weight of correlations between different dimensions, which should be 0.
    """
    own = (first * second).mean(dim=0)  # the diagonal, (D,)
    others = squares_off_diagonal(first, second) / len(first) ** 2
    return (own - 1.0).square().sum() + off_diagonal * others
