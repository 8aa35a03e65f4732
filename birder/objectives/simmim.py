"""SimMIM: masked images for any network, with a decoder of a single layer.

Paper: Xie et al. 2021, https://arxiv.org/abs/2111.09886
Shapes: B images, C channels, H height, W width, h x w = L positions of the last map, P numbers of a patch.
"""

import torch
from torch import Tensor, nn

from birder.networks.base import MasksTokens, Network
from birder.objectives.base import check_ability, objectives
from birder.objectives.configs import SimMIMConfig
from birder.objectives.pixels import PixelObjective, to_patches, window_scale


@objectives.register(simmim=SimMIMConfig)
class SimMIM(PixelObjective):
    """Draw the hidden squares; the pixels are normalised with their surroundings.

    Differs: The paper draws plain pixels; the targets of the published weights are normalised.

    Attributes:
        mask_token: (1, 1, 1, stem_width), what the network sees at hidden places.
        decoder: From a position of the last map to the numbers of its patch.
    """

    def __init__(self, network: Network, config: SimMIMConfig) -> None:
        """Train ``network``.

        Raises:
            ConfigError: The network cannot mask tokens, or see ``PixelObjective``.
        """
        check_ability(
            network,
            MasksTokens,
            needed_by="simmim",
            ability="mask tokens",
            otherwise="take an objective that compares views of pictures, such as mmcr",
        )
        cell = max(round(config.cell / network.max_stride), 1)
        super().__init__(network, config.mask_ratio, cell=cell)
        self.config = config
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, network.stem_width))
        self.decoder = nn.Linear(self.feature_width, self.patch_numbers)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def draw(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches, (B, L, P), of pictures whose masked parts are hidden."""
        self._check_size(images)
        assert isinstance(self.network, MasksTokens)
        mask = mask.to(images.device, non_blocking=True)
        features = self.network.encode_masked(images, mask, self.mask_token)  # (B, D, h, w)
        return self.decoder(features.flatten(2).transpose(1, 2))

    def scale(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Those of 47 x 47 pixels around each pixel, (B, L, P)."""
        mean, deviation = window_scale(images)
        return to_patches(mean, self.patch), to_patches(deviation, self.patch)

    def distance(self, drawn: Tensor, target: Tensor) -> Tensor:
        """The mean absolute difference, (B, L)."""
        return (drawn - target).abs().mean(dim=-1)
