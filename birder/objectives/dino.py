"""DINO: sort the crops of a picture into the same kinds as a teacher that sees the large ones.

Paper: Caron et al. 2021, https://arxiv.org/abs/2104.14294
Shapes: B pictures, C channels, H height, W width, V crops of each, K kinds.
"""

import torch
from torch import Tensor

from birder.networks.base import Network
from birder.objectives.base import Batch, objectives
from birder.objectives.configs import DINOConfig
from birder.objectives.prototypes import Sorter, alike, crop_by_crop, entropy, temperature


@objectives.register(dino=DINOConfig)
class DINO(Sorter):
    """Learn from two large crops of each picture and some small ones, with any network."""

    config: DINOConfig

    def __init__(self, network: Network, config: DINOConfig) -> None:
        """Train ``network``, which from now on takes pictures of any size.

        Raises:
            ConfigError: Small crops of a size that the network cannot take.
        """
        super().__init__(network, config, config.prototypes)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, and what it is the sum of.

        ``teacher_entropy`` goes to 0 or log K when the teacher collapses, and ``divergence``, of the student from the
        teacher, to 0 (figure 7 of the paper).
        """
        count = len(batch.images)
        large = crop_by_crop(batch.images)  # (2 B, C, H, W)
        with torch.no_grad():
            points = self.teacher_head(self.teacher_network.embedding(large))
            logits = self.teacher_head.nearness(points)  # (2 B, K)
            now = temperature(self.config.teacher_temperature, progress, self.config.temperature_warmup)
            teacher = self.center.judged(logits, now)
            if self.training and not batch.blank:
                self.center.collect(self.teacher_head.mean_nearness(points), len(points))
        embeddings = [self.network.embedding(large)]
        if batch.small is not None:
            embeddings.append(self.network.embedding(crop_by_crop(batch.small)))
        points = self.head(torch.cat(embeddings))
        student = self.judged(self.head.nearness(points, held=self.held(progress)))  # (V B, K)
        loss = alike(student.unflatten(0, (-1, count)), teacher.unflatten(0, (-1, count)))
        uncertain = entropy(teacher)
        return {"loss": loss, "teacher_entropy": uncertain, "divergence": loss.detach() - uncertain}
