"""FCMAE: masked images for networks whose map gets coarser on the way, with a decoder of one block.

Paper: Woo et al. 2023, https://arxiv.org/abs/2301.00808, section 3.1
Differs: The network computes the hidden places, too, from zeros behind the stem; sparse convolutions would not.
Shapes: B images, C channels, H height, W width, h x w = L positions of the last map, P numbers of a patch, D' width of
the decoder.
"""

import torch
from torch import Tensor, nn

from birder.layers.masking import hide
from birder.networks.base import MasksMaps, Network
from birder.objectives.base import check_ability, keep_all_paths, objectives
from birder.objectives.configs import FCMAEConfig
from birder.objectives.pixels import PixelObjective, patch_scale


@objectives.register(fcmae=FCMAEConfig)
class FCMAE(PixelObjective):
    """Draw the hidden squares, which are as large as a position of the last map.

    Attributes:
        embed: From the network's last map to that of the decoder.
        mask_token: (1, 1, 1, D'), stands in the decoder at each hidden place.
        decoder: A block of the network's kind.
        pixels: The layer that draws.
    """

    def __init__(self, network: Network, config: FCMAEConfig) -> None:
        """Train ``network``, which from now on drops no paths.

        Raises:
            ConfigError: The network cannot mask tokens of a map, the width of the decoder does not fit its blocks, or
                see ``PixelObjective``.
        """
        check_ability(
            network,
            MasksMaps,
            needed_by="fcmae",
            ability="mask parts of a map and give a block for a decoder",
            otherwise="take simmim",
        )
        super().__init__(network, config.mask_ratio)
        keep_all_paths(network)
        assert isinstance(network, MasksMaps)
        self.config = config
        width = config.decoder_width
        self.embed = nn.Conv2d(self.feature_width, width, kernel_size=1)
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, width))
        self.decoder = network.map_block(width)
        self.pixels = nn.Linear(width, self.patch_numbers)
        for weight in (self.embed.weight, self.mask_token, self.pixels.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.pixels.bias)

    def draw(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches, (B, L, P), of pictures whose masked parts are hidden."""
        self._check_size(images)
        assert isinstance(self.network, MasksMaps)
        mask = mask.to(images.device, non_blocking=True)
        x = self.embed(self.network.encode_masked(images, mask, None))  # (B, D', h, w)
        x = self.decoder(hide(x, mask, self.mask_token, self.grid))
        return self.pixels(x.flatten(2).transpose(1, 2))

    def scale(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Those of each patch, where the targets are normalised."""
        return patch_scale(images, self.patch) if self.config.normalized_targets else super().scale(images)
