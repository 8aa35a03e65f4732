"""ViT: a picture is a sequence of patches, read by a transformer.

Paper: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929
Shapes: B images, C channels, H height, W width, D width of a token, L patches in h rows and w columns, and in front of
them S special tokens: registers first, then the class token.
"""

from collections import OrderedDict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.masking import hide
from birder.layers.position import resample_positions
from birder.layers.shape import DropPath, drop_path_rates
from birder.networks.base import Network, networks
from birder.networks.vit_config import ViTConfig
from birder.networks.vit_names import VIT, options_of
from birder.networks.vit_parts import (
    attention,
    attention_pool,
    block_config,
    decoder_config,
    layer_scale,
    make_norm,
    mlp,
    pre_block,
    stem,
)


class Block(nn.Module):
    """Attention among the tokens, then an MLP for each, (B, N, D) -> (B, N, D)."""

    def __init__(self, config: ViTConfig, drop_path: float = 0.0) -> None:
        """``drop_path`` is the probability that an image skips a branch."""
        super().__init__()
        self.norm1 = make_norm(config)(config.hidden_dim)
        self.attn = attention(config)
        self.layer_scale_1 = layer_scale(config)
        self.drop_path_1 = DropPath(drop_path)
        self.norm2 = make_norm(config)(config.hidden_dim)
        self.mlp = mlp(config)
        self.layer_scale_2 = layer_scale(config)
        self.drop_path_2 = DropPath(drop_path)
        for linear in (self.attn.qkv, self.attn.proj):  # the MLP starts as torch makes it
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.drop_path_1(self.layer_scale_1(self.attn(self.norm1(x))))
        return x + self.drop_path_2(self.layer_scale_2(self.mlp(self.norm2(x))))


@networks.register(**{name: ViTConfig(**options_of(name)) for name in VIT.split()})
class ViT(Network):
    """ViT in all its sizes, and with what was found since: registers, layer scale, attention pooling, gates, experts.

    A relative with other blocks says so in ``block``.

    Attributes:
        num_special_tokens: S.
        special_positions: Rows of the table of positions that are theirs: S or 0.
    """

    block: ClassVar[type[nn.Module]] = Block
    """Made of the configuration and a drop path rate."""
    renamed: ClassVar[tuple[tuple[str, str], ...]] = (  # files written before 0.4, with the attention of torch
        (r"\.ln(\d)\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.self_attention\.", ".attn."),
    )

    def __init__(self, config: ViTConfig, **options: Any) -> None:
        """Build the layers; ``options`` are those of ``Network``."""
        super().__init__(config, max_stride=config.patch_size, **options)
        width = config.hidden_dim
        rates = drop_path_rates(config.drop_path_rate, (config.num_layers,), uniform=config.drop_path_uniform)[0]
        self.num_special_tokens = config.num_reg_tokens + config.class_token
        self.special_positions = self.num_special_tokens if config.pos_embed_special_tokens else 0

        self.class_token = _table(config.class_token, width)
        self.reg_tokens = _table(config.num_reg_tokens, width)
        length = self.special_positions + self.grid[0] * self.grid[1]
        self.pos_embedding = _table(length if config.abs_pos_embed else 0, width, std=0.02)
        self.conv_proj = stem(config, self.input_channels)
        parts = [self.block(block_config(config, number), rate) for number, rate in enumerate(rates)]
        self.encoder = nn.Sequential(OrderedDict(pre_block=pre_block(config), block=nn.Sequential(*parts)))
        norm = make_norm(config)(width) if config.post_norm else nn.Identity()
        self.norm = nn.Identity() if config.norm_after_pool else norm
        self.attn_pool = attention_pool(config) if config.attn_pool_head else None
        self.embedding_norm = norm if config.norm_after_pool else nn.Identity()

        self.embedding_size = self.stem_width = width
        self.ends = config.out_indices or (config.num_layers - 1,)
        names = [f"stage{number}" for number in range(1, len(self.ends) + 1)] if len(self.ends) > 1 else ["neck"]
        self.stages = dict.fromkeys(names, width)
        self.reset_classifier(self.num_classes)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the patches of a picture of ``size``."""
        return (self.size[0] // self.max_stride, self.size[1] // self.max_stride)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier; it starts at zero, so that training begins with even probabilities."""
        super().reset_classifier(num_classes)
        for layer in [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)][-1:]:
            for weight in layer.parameters():
                nn.init.zeros_(weight)

    def adjust_size(self, size: tuple[int, int]) -> None:
        """Go on with pictures of another (height, width); the table of positions is resampled, and smoothed.

        Raises:
            ConfigError: A size that is not two multiples of the patch size.
        """
        before = self.grid
        super().adjust_size(size)
        if self.pos_embedding is not None and self.grid != before:
            table = self._resampled(self.pos_embedding.detach(), before, self.grid, antialias=True)
            self.pos_embedding = nn.Parameter(table, requires_grad=self.pos_embedding.requires_grad)

    def checked_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size as a tuple of two multiples of the patch size.

        Raises:
            ConfigError: It is something else.
        """
        size = super().checked_size(size)
        self._check_patches(*size)
        return size

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, S + L, D), after the final norm."""
        return self.norm(self.encoder(self.tokens(self.patches(x))))

    def pool(self, features: Tensor) -> Tensor:
        """(B, S + L, D) -> (B, D): what attention gathers, else the class token, else the mean of the patches."""
        if self.attn_pool is not None:
            special = 0 if self.config.attn_pool_special_tokens else self.num_special_tokens
            pooled = self.attn_pool(features[:, special:])
        elif self.class_token is not None:
            pooled = features[:, self.config.num_reg_tokens]
        else:
            pooled = features[:, self.num_special_tokens :].mean(dim=1)
        return self.embedding_norm(pooled)

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        """One map ``neck``, or ``stage1`` and on as ``out_indices`` says, of equal size, before the final norm."""
        patches = self.patches(x)
        layers = self._layers(self.tokens(patches), self.ends[-1] + 1)
        return {name: self._map(layers[end], patches) for name, end in zip(self.stages, self.ends, strict=True)}

    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """See ``MasksTokens``; the map is that of the patches, after the final norm."""
        patches = self.patches(x)
        return self._map(self._encode_hidden(patches, mask, token), patches)

    def encode_masked_tokens(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """All tokens of the same, (B, S + L, D); ``pool`` makes the embedding of them."""
        return self._encode_hidden(self.patches(x), mask, token)

    def encode_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        """See ``DropsTokens``."""
        return self.norm(self.encoder(self.tokens(self.patches(x), keep)))

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """See ``ShowsLayers``."""
        *layers, last = self._layers(self.tokens(self.patches(x)), self.config.num_layers)
        return [*layers, self.norm(last)]

    def token_block(self, width: int, num_heads: int = 16) -> nn.Module:
        """See ``DropsTokens``; experts are left out, too."""
        return self.block(decoder_config(self.config, width, num_heads))

    def blocks(self) -> list[nn.Module]:
        """All blocks, from input to output."""
        return list(self.encoder.get_submodule("block").children())

    def stage_ends(self) -> list[nn.Module]:
        """The blocks behind which ``detection_features`` takes its maps."""
        return [self.blocks()[end] for end in self.ends]

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w), without positions.

        Raises:
            ConfigError: Pictures of another size than that of the network, or such that patches do not fit.
        """
        size = (x.shape[2], x.shape[3])
        if not self.dynamic_size and size != self.size:
            raise ConfigError(
                f"{self.name} is set to pictures of {self.size}, not {size}: call adjust_size({size}) once, or "
                "set_dynamic_size() to take pictures of any size"
            )
        self._check_patches(*size)
        return self.conv_proj(x)

    def tokens(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """What enters the first block.

        Args:
            patches: (B, D, h, w).
            keep: (B, K), positions of patches; the others are left out.

        Returns:
            (B, S + L, D), or (B, S + K, D): the special tokens, then the patches, with their positions.
        """
        special: list[Tensor] = [token for token in (self.reg_tokens, self.class_token) if token is not None]
        tokens = patches.flatten(2).transpose(1, 2)  # (B, L, D)
        if self.pos_embedding is not None:
            table = self._positions(self.pos_embedding, (patches.shape[2], patches.shape[3]))
            tokens = tokens + table[:, self.special_positions :]
            if self.special_positions:
                special = [torch.cat(special, dim=1) + table[:, : self.special_positions]]
        if keep is not None:
            tokens = tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
        # The blocks are faster when the channels of a token lie side by side.
        return torch.cat([*(token.expand(tokens.shape[0], -1, -1) for token in special), tokens], dim=1).contiguous()

    def _positions(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return table
        return self._resampled(table, self.grid, grid, antialias=self.config.pos_embed_antialias)

    def _resampled(self, table: Tensor, before: tuple[int, int], after: tuple[int, int], *, antialias: bool) -> Tensor:
        mode = self.config.pos_embed_interpolation_mode
        return resample_positions(table, before, after, special=self.special_positions, mode=mode, antialias=antialias)

    def _encode_hidden(self, patches: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        """All tokens, (B, S + L, D), where some patches are replaced."""
        patches = hide(patches, mask, token, (patches.shape[2], patches.shape[3]))
        return self.norm(self.encoder(self.tokens(patches)))

    def _layers(self, tokens: Tensor, count: int) -> list[Tensor]:
        """The tokens behind each of the first blocks."""
        tokens = self.encoder.get_submodule("pre_block")(tokens)
        layers = []
        for block in self.blocks()[:count]:
            tokens = block(tokens)
            layers.append(tokens)
        return layers

    def _map(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """The tokens of the patches as a map, (B, S + L, D) -> (B, D, h, w)."""
        return tokens[:, self.num_special_tokens :].transpose(1, 2).unflatten(2, patches.shape[2:])

    def _check_patches(self, height: int, width: int) -> None:
        patch = self.max_stride
        if height % patch or width % patch:
            near = tuple(max(round(side / patch), 1) * patch for side in (height, width))
            raise ConfigError(f"size must be multiples of the patch size {patch}, such as {near}, not {height, width}")


def _table(rows: int, width: int, std: float = 0.0) -> nn.Parameter | None:
    """Normal numbers, (1, rows, width); none for no rows."""
    if not rows:
        return None
    table = torch.zeros(1, rows, width)
    # On the meta device, normal_ would import seconds of torch; nothing is truncated at 2, a hundred deviations away.
    return nn.Parameter(nn.init.trunc_normal_(table, std=std) if std else table)
