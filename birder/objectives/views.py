"""What objectives that compare views of pictures have in common.

Shapes: B pictures of this process, N of all, V views, C channels, H height, W width, D size of what is compared.
"""

from itertools import chain
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from birder.distributed import gathered
from birder.errors import ConfigError
from birder.networks.base import Network
from birder.objectives.base import Batch
from birder.objectives.teacher import Averaging, follow, frozen_copy


class Followed(Averaging):
    """An objective with a second network, a teacher, that follows the first and is thrown away in the end.

    The teacher's batch norms see the pictures of the step, as the network's own do, and keep statistics of their own.
    All else in it is in evaluation mode, so that it drops no paths.

    Attributes:
        head: From the embedding to what is compared.
        teacher_network: Follows the network.
        teacher_head: Follows the head.
    """

    def __init__(self, network: Network, head: nn.Module) -> None:
        """Train ``network`` with ``head`` behind it; the teacher starts as a copy of both."""
        super().__init__()
        self.network = network
        self.head = head
        self.teacher_network = frozen_copy(network)
        self.teacher_head = frozen_copy(head)
        self.train()

    def projections(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What network and teacher make of views, (B, V, C, H, W) -> (B, V, D) each; the second has no gradient."""
        with torch.no_grad():
            teacher = projected(self.teacher_network, self.teacher_head, images)
        return projected(self.network, self.head, images), teacher

    def after_step(self, progress: float) -> None:
        """Move the weights of the teacher."""
        momentum = self.momentum_at(progress)
        follow(self.teacher_network, self.network, momentum)
        follow(self.teacher_head, self.head, momentum)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; of the teacher, only batch norms are ever in training mode."""
        super().train(mode)
        for module in chain(self.teacher_network.modules(), self.teacher_head.modules()):
            if not isinstance(module, _BatchNorm):
                module.training = False
        return self


def projected(network: Network, head: nn.Module, images: Tensor) -> Tensor:
    """All views through network and head at once, so that batch norms see all: (B, V, C, H, W) -> (B, V, D)."""
    return head(network.embedding(images.flatten(0, 1))).unflatten(0, images.shape[:2])


def projected_in_turn(network: Network, head: nn.Module, images: Tensor) -> Tensor:
    """The same with batch norms that see one view of each picture at a time: (B, V, C, H, W) -> (B, V, D)."""
    return torch.stack([head(network.embedding(view)) for view in images.unbind(1)], dim=1)


def rows_of_all(rows: Tensor, batch: Batch) -> Tensor:
    """The rows of all pictures that count, in all processes, in float32 at least: (B, …) -> (N, …)."""
    return gathered(rows[: batch.count].to(torch.promote_types(rows.dtype, torch.float32)))


def check_pictures(batch: Batch, *, needed_by: str) -> None:
    """Refuse a single picture, of which batch norms, variances and correlations make nothing.

    Raises:
        ConfigError: There are fewer than two.
    """
    if (count := len(batch.images)) < 2:
        raise ConfigError(
            f"{needed_by} compares pictures: every process needs 2 or more in every step, and this one has {count}. "
            "Take a larger batch_size, or one that leaves no single picture over"
        )


def squares_off_diagonal(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the squares of a^T b that are not on its diagonal, (N, D) each -> scalar.

    All squares are the sum of a a^T * b b^T, too, which is (N, N). For 256 rows of 8192 that takes a twentieth of the
    time, forward and backward, and does without 256 MiB for each (D, D). Those on the diagonal are taken off again, at
    the cost of a digit where N is ten times D, as noise alone makes the others D / N times them.
    """
    rows, width = a.shape
    squares = (a @ a.T) * (b @ b.T) if rows < width else (a.T @ b).square()
    return squares.sum() - (a * b).sum(dim=0).square().sum()
