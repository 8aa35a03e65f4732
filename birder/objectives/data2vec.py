"""data2vec: see a part of a picture, and say what a teacher that sees all of it makes of the rest.

Paper: Baevski et al. 2022, https://arxiv.org/abs/2202.03555
Shapes: B images, C channels, H height, W width, L patches, D width of a token.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.networks.base import MasksTokens, Network, ShowsLayers
from birder.objectives.base import Batch, check_ability, objectives
from birder.objectives.chance import draws, uncompiled
from birder.objectives.configs import Data2VecConfig
from birder.objectives.masking import block_masks, random_counts
from birder.objectives.teacher import SelfTaught, cosine_between, tell_of_layers


@runtime_checkable
class MasksAndShows(MasksTokens, ShowsLayers, Protocol):
    """A network that can do both."""

    num_special_tokens: int
    """Tokens in front of those of the patches."""

    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """See ``MasksTokens``."""
        ...

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """See ``ShowsLayers``."""
        ...


@objectives.register(data2vec=Data2VecConfig)
class Data2Vec(SelfTaught):
    """Learn the teacher's last layers at hidden patches.

    Differs: The targets are the outputs of whole blocks, not of their MLPs alone; of the last, behind the network's
        final norm. The average is over the hidden patches of each picture, and then over the pictures, so that a batch
        may be cut into parts; block masks may hide a few patches more in one picture than in another.

    Attributes:
        mask_token: (1, 1, 1, stem_width), what the network sees at hidden places.
        head: From the network's tokens to those of the teacher.
    """

    reaches_all = False

    def __init__(self, network: Network, config: Data2VecConfig) -> None:
        """Train ``network``.

        Raises:
            ConfigError: The network cannot mask tokens and show its layers, or has too few patches for the masks.
        """
        check_ability(
            network,
            MasksAndShows,
            needed_by="data2vec",
            ability="mask tokens and show its layers",
            otherwise="take simmim, which needs no layers",
        )
        super().__init__(network)
        self.config = config
        tell_of_layers(network, config.top_layers)
        rows, columns = self.grid
        self.max_masked = int(config.max_masked * rows * columns)
        if self.max_masked < config.min_masked:
            raise ConfigError(
                f"min_masked: {config.min_masked} patches are more than max_masked, {config.max_masked:g} of "
                f"{rows} x {columns}: give a smaller number, or take larger pictures"
            )
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, 1, network.stem_width), std=0.02))
        self.head = nn.Linear(network.embedding_size, network.embedding_size)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``, at random patches."""
        return {"loss": self.loss(batch.images, self.masks(len(batch.images)))}

    def loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W) and (B, L), True where hidden -> scalar."""
        assert isinstance(self.network, MasksAndShows)
        mask = mask.to(images.device, non_blocking=True)
        tokens = self.network.encode_masked(images, mask, self.mask_token).flatten(2).transpose(1, 2)  # (B, L, D)
        where = mask if self.config.loss_on == "hidden" else ~mask
        return masked_loss(self.head(tokens).float(), self.targets(images), where, self.config.beta)

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """What the teacher makes of whole pictures, (B, C, H, W) -> (B, L, D)."""
        teacher = self.teacher_network
        assert isinstance(teacher, MasksAndShows)
        layers = teacher.encode_layers(images)[-self.config.top_layers :]
        patches = [layer[:, teacher.num_special_tokens :].float() for layer in layers]
        return mean_of_layers(patches, normalized=self.config.normalized_targets)

    @uncompiled
    def masks(self, num_images: int) -> Tensor:
        """Random rectangles that hide about the same number of patches in each picture, (B, L), on the CPU."""
        generator = draws(self.training)
        hidden = random_counts(1, self.config.min_masked, self.max_masked, generator).expand(num_images)
        return block_masks(hidden, self.grid, smallest=self.config.min_masked, generator=generator)

    def momentum_at(self, progress: float) -> float:
        """On half a cosine.

        Differs: In the paper the momentum rises on a line in the first part of the run, and then stays.
        """
        return cosine_between(*self.config.momentum, progress)


def mean_of_layers(layers: Sequence[Tensor], *, normalized: bool) -> Tensor:
    """Mean of the layers, all but the last layer-normed, and the mean as well if wanted: (B, L, D) each -> (B, L, D).

    The last is taken as it is, as it has passed the network's final norm.
    """
    *before, last = layers
    mean = torch.stack([*(_layer_norm(layer) for layer in before), last]).mean(dim=0)
    return _layer_norm(mean) if normalized else mean


def masked_loss(predictions: Tensor, targets: Tensor, where: Tensor, beta: float) -> Tensor:
    """Smooth L1 loss summed over channels, mean over some patches of a picture, mean over the pictures.

    Args:
        predictions: (B, L, D).
        targets: (B, L, D).
        where: (B, L), bool, the patches that count; a picture without any adds 0.
        beta: Difference at which the square turns into a line; 0 is the square throughout, and without its half.
    """
    if beta:
        losses = F.smooth_l1_loss(predictions, targets, reduction="none", beta=beta)
    else:
        losses = F.mse_loss(predictions, targets, reduction="none")
    per_picture = (losses.sum(dim=2) * where).sum(dim=1) / where.sum(dim=1).clamp(min=1)  # (B,)
    return per_picture.mean()


def _layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])
