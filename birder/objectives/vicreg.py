"""VICReg: two views agree, while every dimension varies, each by itself.

Paper: Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, 2022,
https://arxiv.org/abs/2105.04906
Shapes: N pictures of all processes, D size of what is compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, objectives
from birder.objectives.configs import VICRegConfig
from birder.objectives.heads import projector
from birder.objectives.views import check_pictures, projected_in_turn, rows_of_all, squares_off_diagonal

_EPSILON = 1e-4
"""Added to variances, whose root has no gradient at 0."""


@objectives.register(vicreg=VICRegConfig)
class VICReg(Objective):
    """Bring views together; keep the deviation of each dimension above 1 and different dimensions uncorrelated.

    Attributes:
        head: From the embedding to what is compared; the paper's expander.
    """

    compares = True
    least = 2

    def __init__(self, network: Network, config: VICRegConfig) -> None:
        """Train ``network`` on pairs of views of unlabelled pictures."""
        super().__init__()
        self.network = network
        self.config = config
        self.head = projector(network.embedding_size, config.projector, bias=True)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, and what its three weights are put on: ``invariance``, ``variance``, ``covariance``.

        Raises:
            ConfigError: There is a single picture.
        """
        check_pictures(batch, needed_by=self.config.name)
        rows = rows_of_all(projected_in_turn(self.network, self.head, batch.images), batch)
        with torch.autocast(rows.device.type, enabled=False):  # the products would be rounded to some three digits
            terms = vicreg_terms(rows[:, 0], rows[:, 1])
        return {"loss": sum(getattr(self.config, name) * term for name, term in terms.items()), **terms}


def vicreg_terms(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """What two views lack, by the names of the weights in ``VICRegConfig``; (N, D) each -> scalars.

    Differs: the paper's equations sum the squared distances over the dimensions, and the variances over the views; here
        both are means, as in the code that the paper points to, which the default weights belong to.
    """
    return {
        "invariance": F.mse_loss(first, second),
        "variance": (flatness(first) + flatness(second)) / 2,
        "covariance": covariance(first) + covariance(second),
    }


def flatness(z: Tensor) -> Tensor:
    """How far the deviation of a dimension is below 1, mean over the dimensions, (N, D) -> scalar in 0 to 1."""
    return F.relu(1.0 - (z.var(dim=0) + _EPSILON).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions, over D, (N, D) -> scalar."""
    rows, width = z.shape
    centred = z - z.mean(dim=0)
    return squares_off_diagonal(centred, centred) / ((rows - 1) ** 2 * width)
