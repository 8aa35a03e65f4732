"""Classification: cross-entropy on labelled pictures, with label smoothing and mixed pictures.

Papers: label smoothing, Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; mixup, Zhang et al. 2017,
https://arxiv.org/abs/1710.09412; CutMix, Yun et al. 2019, https://arxiv.org/abs/1905.04899
Shapes: B images, N classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, Objective
from birder.objectives.configs import ClassificationConfig


class Classification(Objective):
    """Learn the species from labelled pictures."""

    def __init__(self, network: Network, config: ClassificationConfig) -> None:
        """Train ``network``, which must have a classifier."""
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, and ``accuracy`` against the label (of the larger part, where pictures are mixed)."""
        images, targets = batch.images, F.one_hot(batch.labels, self.network.num_classes).float()  # (B, N)
        if self.training:
            images, targets = self._mixed(images, targets)
        logits = self.network(images).float()  # (B, N)
        accuracy = (logits.argmax(dim=1) == targets.argmax(dim=1)).float().mean()
        return {"loss": F.cross_entropy(logits, targets, label_smoothing=self.config.smoothing), "accuracy": accuracy}

    def _mixed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        methods = [
            (mix, alpha) for mix, alpha in ((mixup, self.config.mixup), (cutmix, self.config.cutmix)) if alpha > 0.0
        ]
        if not methods or float(torch.rand(())) >= self.config.mix_probability:
            return images, targets
        mix, alpha = methods[int(torch.randint(len(methods), ()))]
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        return mix(images, targets, share)


def mixup(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Blend each picture with its neighbour in the batch, keeping ``share`` of it; targets likewise."""
    return images.lerp(images.roll(1, 0), 1.0 - share), targets.lerp(targets.roll(1, 0), 1.0 - share)


def cutmix(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Keep about ``share`` of each picture and fill a rectangle from its neighbour in the batch.

    Targets are blended by the area that was really filled, which the picture's edges may cut.
    """
    height, width = images.shape[-2:]
    side = (1.0 - share) ** 0.5
    y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(y - int(side * height) // 2, 0), min(y + int(side * height) // 2, height)
    left, right = max(x - int(side * width) // 2, 0), min(x + int(side * width) // 2, width)
    images = images.clone()
    images[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    filled = (bottom - top) * (right - left) / (height * width)
    return images, targets.lerp(targets.roll(1, 0), filled)
