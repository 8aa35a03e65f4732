"""MAE: a network sees a few patches of a picture, and a small decoder draws the others.

Paper: He et al. 2021, https://arxiv.org/abs/2111.06377
Shapes: B images, C channels, H height, W width, h x w = L patches, K of them visible, S special tokens, P numbers of a
patch, D width of a token of the network, D' of the decoder.
"""

import torch
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.position import sincos_positions
from birder.networks.base import DropsTokens, Network
from birder.objectives.base import check_ability, keep_all_paths, objectives
from birder.objectives.configs import MAEConfig
from birder.objectives.pixels import PixelObjective, patch_scale


@objectives.register(mae=MAEConfig)
class MAE(PixelObjective):
    """Draw the hidden patches; they cost the network nothing.

    Attributes:
        embed: From the network's tokens to those of the decoder.
        mask_token: (1, 1, D'), stands in the decoder for each hidden patch.
        positions: (S + L, D'), of the decoder: learned, or a fixed table with zeros for the special tokens.
        decoder: Blocks of the network's kind, a norm, and a layer that draws.
    """

    positions: Tensor

    def __init__(self, network: Network, config: MAEConfig) -> None:
        """Train ``network``, which from now on drops no paths; the decoder is for pictures of its size.

        Raises:
            ConfigError: The network cannot drop tokens, or see ``PixelObjective``.
        """
        check_ability(
            network,
            DropsTokens,
            needed_by="mae",
            ability="drop tokens",
            otherwise="take simmim or fcmae, which any network that can mask tokens learns with",
        )
        super().__init__(network, config.mask_ratio)
        keep_all_paths(network)
        assert isinstance(network, DropsTokens)
        self.config = config
        width, special = config.decoder_width, network.num_special_tokens
        self.embed = nn.Linear(self.feature_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        if config.learned_positions:
            self.positions = nn.Parameter(torch.empty(special + self.grid[0] * self.grid[1], width))
            nn.init.trunc_normal_(self.positions, std=0.02)
        else:
            table = torch.cat([torch.zeros(special, width), sincos_positions(self.grid, width)])
            self.register_buffer("positions", table)
        blocks = [network.token_block(width) for _ in range(config.decoder_depth)]
        pixels = nn.Linear(width, self.patch_numbers)
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width, eps=1e-6), pixels)
        nn.init.normal_(self.mask_token, std=0.02)
        for linear in (self.embed, pixels):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def draw(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches, (B, L, P), from those that are not masked.

        Raises:
            ConfigError: A mask hides another number of patches than ``mask_ratio`` says, or pictures have another size
                than the decoder.
        """
        self._check_size(images)
        assert isinstance(self.network, DropsTokens)
        keep = self._visible(mask).to(images.device, non_blocking=True)  # (B, K)
        seen = self.embed(self.network.encode_visible(images, keep))  # (B, S + K, D')
        special = self.network.num_special_tokens
        first = torch.arange(special, device=keep.device).expand(len(keep), -1)
        places = torch.cat([first, keep + special], dim=1).unsqueeze(-1).expand_as(seen)
        tokens = self.mask_token.to(seen.dtype).expand(len(seen), len(self.positions), -1).scatter(1, places, seen)
        return self.decoder(tokens + self.positions)[:, special:]

    def _visible(self, mask: Tensor) -> Tensor:
        """Positions of what is not masked, (B, K); K is known before, so that nothing waits for the masks."""
        count = int(mask.shape[1] * (1 - self.mask_ratio))
        if not torch.compiler.is_compiling() and bool(((~mask).sum(dim=1) != count).any()):
            raise ConfigError(
                f"masks for a mask_ratio of {self.mask_ratio:g} leave {count} of {mask.shape[1]} patches visible in "
                f"each picture, and these {(~mask).sum(dim=1).tolist()}"
            )
        return mask.byte().argsort(dim=1, stable=True)[:, :count]

    def scale(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Those of each patch, where the targets are normalised."""
        return patch_scale(images, self.patch) if self.config.normalized_targets else super().scale(images)
