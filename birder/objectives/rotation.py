"""RotNet: turn a picture by quarters, and say by how many; for that one must know what is in it.

Paper: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728
Shapes: B images, C channels, H height and width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.base import Batch, Objective, objectives
from birder.objectives.chance import draws
from birder.objectives.configs import RotationConfig

QUARTERS = 4


@objectives.register(rotation=RotationConfig)
class Rotation(Objective):
    """Tell how pictures are turned, each way being as likely.

    Differs: The paper shows each picture in all four ways in every step; here a picture is shown in one, so that a step
        has as many different pictures as its batch.

    Attributes:
        head: From the embedding to the four ways; thrown away.
    """

    def __init__(self, network: Network, config: RotationConfig) -> None:
        """Train ``network``.

        Raises:
            ConfigError: Its pictures are not square.
        """
        super().__init__()
        height, width = network.size
        if height != width:
            raise ConfigError(
                f"rotation needs square pictures, which are as wide when they are turned; those of {network.name} are "
                f"{height} x {width}: take a size such as {min(height, width)} x {min(height, width)}"
            )
        self.network = network
        self.config = config
        self.head = nn.Linear(network.embedding_size, QUARTERS)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, and ``accuracy``, a quarter by chance."""
        quarters = torch.randint(QUARTERS, (len(batch.images),), generator=draws(self.training))
        return self.losses(batch.images, quarters.to(batch.images.device))

    def losses(self, images: Tensor, quarters: Tensor) -> dict[str, Tensor]:
        """The same with given quarters, (B, C, H, H) and (B,) -> scalars."""
        logits = self.head(self.network.embedding(turned(images, quarters))).float()  # (B, 4)
        accuracy = (logits.argmax(dim=1) == quarters).float().mean()
        return {"loss": F.cross_entropy(logits, quarters), "accuracy": accuracy}


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each picture by so many quarters of a circle, counter-clockwise: (B, C, H, H) and (B,) -> (B, C, H, H)."""
    ways = quarters[:, None, None, None]
    result = images
    for number in range(1, QUARTERS):
        result = torch.where(ways == number, images.rot90(number, dims=(2, 3)), result)
    return result
