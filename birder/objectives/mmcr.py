"""MMCR: views of one picture make one point, and the points of all pictures fill the space.

Papers: Yerxa et al., Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations, 2023,
https://arxiv.org/abs/2303.03307; a second network that follows, as in He et al. 2019, https://arxiv.org/abs/1911.05722
Shapes: N pictures of all processes, V views, D size of what is compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, objectives
from birder.objectives.configs import MMCRConfig
from birder.objectives.heads import projector
from birder.objectives.views import Followed, rows_of_all


@objectives.register(mmcr=MMCRConfig)
class MMCR(Followed):
    """Make the mean of a picture's views long, and the means of the pictures different."""

    compares = True

    def __init__(self, network: Network, config: MMCRConfig) -> None:
        """Train ``network`` on views of unlabelled pictures."""
        super().__init__(network, projector(network.embedding_size, config.projector))
        self.config = config

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``; without a local weight it is between 0 and minus the square root of N min(N, D)."""
        z, teacher = rows_of_all(torch.stack(self.projections(batch.images), dim=1), batch).unbind(1)
        return {"loss": mmcr_loss(z, teacher, self.config.local_weight)}

    def momentum_at(self, progress: float) -> float:
        """The same throughout."""
        return self.config.momentum


def mmcr_loss(z: Tensor, teacher: Tensor, local_weight: float = 0.0) -> Tensor:
    """Minus the nuclear norm of the centroids, plus the mean of the pictures' own; (N, V, D) each -> scalar.

    Rows are brought to length 1. A centroid is the mean of a picture's rows, those of student and teacher alike.

    Differs: a row that is no number makes the loss none, so that training stops and names the step; the published runs
        left such rows out, which hides a network that has come apart.

    Args:
        z: Of the student.
        teacher: Of the teacher.
        local_weight: Of the nuclear norm of each picture's own (V, D) matrix of the student.
    """
    z, teacher = F.normalize(z, dim=2), F.normalize(teacher, dim=2)
    centroids = (z.mean(dim=1) + teacher.mean(dim=1)) / 2  # (N, D)
    loss = -nuclear_norm(centroids)
    return loss + local_weight * nuclear_norm(z).mean() if local_weight else loss


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Sum of the singular values, (…, N, D) -> (…); no number where the matrix has entries that are none."""
    # Roots of the eigenvalues of the Gram matrix would take half the time: 5 ms in place of 12 for 256 x 512, forward
    # and backward in float32 on one core. But while all pictures are still alike they are 1 % off, and their gradient
    # is wrong.
    values = torch.linalg.svdvals(matrix.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))  # it refuses what is no number
    return values.sum(dim=-1) + 0.0 * matrix.sum(dim=(-2, -1))
