"""data2vec 2.0: data2vec with several masks for each look of the teacher, dropped tokens, and a small decoder.

Paper: Baevski et al. 2022, https://arxiv.org/abs/2212.07525
Shapes: B images, C channels, H height, W width, M masks of each image, L patches, K visible ones of them, S special
tokens, D width of a token.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from birder.networks.base import DropsTokens, Network, ShowsLayers
from birder.objectives.base import Batch, check_ability, objectives
from birder.objectives.chance import draws, uncompiled
from birder.objectives.configs import Data2Vec2Config
from birder.objectives.map_decoder import MapDecoder
from birder.objectives.masking import fixed_block_masks, positions, visible_first
from birder.objectives.teacher import SelfTaught, linear_between, tell_of_layers
from birder.objectives.tokens import tokens_at

NOISE = 0.01
"""Deviation of the noise that stands for what is hidden."""


@runtime_checkable
class DropsAndShows(DropsTokens, ShowsLayers, Protocol):
    """A network that can do both."""

    def encode_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        """See ``DropsTokens``."""
        ...

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """See ``ShowsLayers``."""
        ...


@objectives.register(data2vec2=Data2Vec2Config)
class Data2Vec2(SelfTaught):
    """Learn the teacher's last layers at patches that were left out.

    Differs: The targets are the outputs of whole blocks, not of their MLPs alone; of the last, behind the network's
        final norm. The loss of the class token is the mean over the pictures, so that its weight does not depend on
        the size of the batch.

    Attributes:
        decoder: From the visible tokens, and noise, to those of the teacher.
    """

    reaches_all = False

    def __init__(self, network: Network, config: Data2Vec2Config) -> None:
        """Train ``network``.

        Raises:
            ConfigError: The network cannot drop tokens and show its layers, or its width does not suit the decoder.
        """
        check_ability(
            network,
            DropsAndShows,
            needed_by="data2vec2",
            ability="drop tokens and show its layers",
            otherwise="take simmim, which needs neither",
        )
        super().__init__(network)
        self.config = config
        tell_of_layers(network, config.top_layers)
        self.decoder = MapDecoder(network.embedding_size, config.decoder_width, config.decoder_depth)
        self.has_class_token = getattr(network, "class_token", None) is not None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """``loss``; for a network with a class token its parts ``patch_loss`` and ``class_loss``, not yet weighed."""
        masks = self.masks(len(batch.images))
        return self.losses(batch.images, masks, self.noise(masks, batch.images))

    def losses(self, images: Tensor, masks: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The same with given masks, those of an image side by side.

        Args:
            images: (B, C, H, W).
            masks: (B * M, L), bool, True where hidden; the same number in each.
            noise: (B * M, L - K, D), in place of the tokens of what is hidden.
        """
        assert isinstance(self.network, DropsAndShows)
        num_masks = len(masks) // len(images)
        special = self.network.num_special_tokens
        targets = self.targets(images).repeat_interleave(num_masks, dim=0)  # (B * M, L, D)
        visible, hidden, order = (each.to(images.device, non_blocking=True) for each in places(masks))
        tokens = self.network.encode_visible(images.repeat_interleave(num_masks, dim=0), visible)  # (B * M, S + K, D)
        grid = tokens_at(torch.cat([tokens[:, special:], noise], dim=1), order)
        predictions = self.decoder(grid.transpose(1, 2).unflatten(2, self.grid), hidden)  # (B * M, L - K, D)
        patch_loss = scaled_square(predictions.float(), tokens_at(targets, hidden))
        if not self.has_class_token or not self.config.class_weight:
            return {"loss": patch_loss}
        class_loss = scaled_square(tokens[:, special - 1].float(), targets.mean(dim=1))
        loss = patch_loss + self.config.class_weight * class_loss
        return {"loss": loss, "patch_loss": patch_loss, "class_loss": class_loss}

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """What the teacher makes of whole pictures, (B, C, H, W) -> (B, L, D)."""
        teacher = self.teacher_network
        assert isinstance(teacher, DropsAndShows)
        layers = teacher.encode_layers(images)[-self.config.top_layers :]
        return mean_of_instances([layer[:, teacher.num_special_tokens :].float() for layer in layers])

    @uncompiled
    def masks(self, num_images: int) -> Tensor:
        """M random masks of each picture that leave squares of it visible, (B * M, L), on the CPU."""
        return fixed_block_masks(
            num_images * self.config.num_masks,
            self.grid,
            self.config.mask_ratio,
            block=self.config.block,
            adjust=self.config.adjust,
            inverse=True,
            generator=draws(self.training),
        )

    @uncompiled
    def noise(self, masks: Tensor, like: Tensor) -> Tensor:
        """Random numbers in place of what is hidden, (B * M, L - K, D), of the type and on the device of ``like``."""
        generator = draws(self.training)
        device = generator.device if generator else like.device
        shape = (len(masks), int(masks[0].sum()), self.network.embedding_size)
        return NOISE * torch.randn(shape, generator=generator, device=device).to(like)

    def momentum_at(self, progress: float) -> float:
        """On a line."""
        return linear_between(*self.config.momentum, progress)


@uncompiled
def places(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Visible and hidden positions, (N, K) and (N, L - K), and the order that makes a grid of both, (N, L)."""
    visible, order = visible_first(masks)
    return visible, positions(masks), order


def mean_of_instances(layers: Sequence[Tensor]) -> Tensor:
    """Mean of the layers, each channel of an image normed over its patches; then layer-normed: (B, L, D) -> same."""
    normed = [F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in layers]
    mean = torch.stack(normed).mean(dim=0)
    return F.layer_norm(mean, mean.shape[-1:])


def scaled_square(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared difference, summed over channels and divided by the root of their number; the mean of (..., D) each."""
    return F.mse_loss(predictions, targets) * targets.shape[-1] ** 0.5
