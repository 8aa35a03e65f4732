"""SimCLR: find the other view of a picture among the views of all pictures.

Paper: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
https://arxiv.org/abs/2002.05709
Shapes: N pictures of all processes, D size of what is compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, objectives
from birder.objectives.configs import SimCLRConfig
from birder.objectives.heads import projector
from birder.objectives.views import projected, rows_of_all


@objectives.register(simclr=SimCLRConfig)
class SimCLR(Objective):
    """Make the two views of a picture alike, and unlike those of other pictures.

    Attributes:
        head: From the embedding to what is compared; two layers, without batch norm.
    """

    compares = True

    def __init__(self, network: Network, config: SimCLRConfig) -> None:
        """Train ``network`` on pairs of views of unlabelled pictures."""
        super().__init__()
        self.network = network
        self.config = config
        widths = (config.hidden or network.embedding_size, config.projection)
        self.head = projector(network.embedding_size, widths, bias=True, batch_norm=False)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``; the logarithm of 2 N - 1 is what guessing gives, and a single picture gives 0."""
        z = rows_of_all(projected(self.network, self.head, batch.images), batch)
        with torch.autocast(z.device.type, enabled=False):  # the products would be rounded to some three digits
            return {"loss": contrastive_loss(z, self.config.temperature)}


def contrastive_loss(z: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each view's similarities with all others, the other view the label; (N, 2, D) -> scalar.

    The normalised, temperature-scaled cross-entropy (NT-Xent) of the paper, its equation 1, over all 2 N views.

    Args:
        z: Two views of each picture; only directions count.
        temperature: Cosines are divided by it.
    """
    rows = F.normalize(z, dim=2).transpose(0, 1).flatten(0, 1)  # (2 N, D), first views, then second ones
    similarities = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)  # nothing is compared with itself
    other = torch.arange(len(rows), device=rows.device).roll(len(z))
    return F.cross_entropy(similarities, other)
