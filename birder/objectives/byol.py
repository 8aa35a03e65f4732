"""BYOL: say what a slowly following network makes of the other view of a picture.

Paper: Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, 2020,
https://arxiv.org/abs/2006.07733
Shapes: B pictures, D size of what is compared.
"""

import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, objectives
from birder.objectives.configs import BYOLConfig
from birder.objectives.heads import projector
from birder.objectives.teacher import cosine_between
from birder.objectives.views import Followed


@objectives.register(byol=BYOLConfig)
class BYOL(Followed):
    """Predict the teacher's projection of one view from the other view.

    No picture is compared with another, so that a step may be cut into parts; only batch norms see all of a part.

    Differs: batch norms see both views at once, where the paper shows them one after the other.

    Attributes:
        predictor: From a projection to what the teacher would make of the other view.
    """

    def __init__(self, network: Network, config: BYOLConfig) -> None:
        """Train ``network`` on pairs of views of unlabelled pictures."""
        widths = (config.hidden, config.projection)
        super().__init__(network, projector(network.embedding_size, widths, bias=True))
        self.config = config
        self.predictor = projector(config.projection, widths, bias=True)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, from 0 to 8; 4 is what directions without any relation give."""
        projections, targets = self.projections(batch.images)  # (B, 2, D)
        predictions = self.predictor(projections.flatten(0, 1)).view_as(projections)
        return {"loss": bootstrap_loss(predictions.float(), targets.float())}

    def momentum_at(self, progress: float) -> float:
        """On half a cosine."""
        return cosine_between(*self.config.momentum, progress)


def bootstrap_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """2 - 2 cos of each view's prediction and the other's target, both added, mean over B; (B, 2, D) each -> scalar."""
    cosines = F.cosine_similarity(predictions, targets.flip(1), dim=2)  # (B, 2)
    return (2.0 - 2.0 * cosines).sum(dim=1).mean()
