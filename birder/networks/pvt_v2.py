"""PVT v2: a pyramid of transformer stages, whose queries see a shrunken map.

Paper: Wang et al. 2022, https://arxiv.org/abs/2106.13797
Shapes: B images, C channels, H height, W width. Every stage but the first halves H and W.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from birder.config import within
from birder.errors import ConfigError
from birder.layers.norm import LayerNorm2d
from birder.layers.shape import DropPath, drop_path_rates
from birder.networks.base import NetworkConfig, Older, networks
from birder.networks.staged import StagedNetwork

# Of the four stages.
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True)
class PVTv2Config(NetworkConfig):
    """Options of a PVT v2."""

    depths: tuple[int, int, int, int]
    """Blocks in each stage."""
    embed_dims: tuple[int, int, int, int]
    """Width of each stage; a multiple of its attention heads, 1, 2, 5 and 8."""
    mlp_ratios: tuple[float, float, float, float] = (8.0, 8.0, 4.0, 4.0)
    """Width within each stage's MLP, relative to the stage."""
    linear: bool = False
    """Let attention see a map averaged to 7x7, so that its cost is linear in the number of pixels."""
    drop_path_rate: float = 0.0
    """Probability that an image skips the last block; it rises linearly from 0 at the first."""
    norm_eps: float = 1e-6
    """Added to the variance by all layer norms but those of ``stage_norm_eps``."""
    stage_norm_eps: float = 1e-6
    """Added to the variance by the layer norm at the end of each stage."""

    def __post_init__(self) -> None:
        """Check the ranges, and that the heads fit."""
        within(self, 0.0, 0.99, "drop_path_rate")
        within(self, 0.0, 1.0, "norm_eps", "stage_norm_eps")
        if min(*self.depths, *self.embed_dims) < 1:
            raise ConfigError(f"depths: must be 1 or more, and embed_dims: {self.depths}, {self.embed_dims}")
        pairs = list(zip(self.embed_dims, self.mlp_ratios, HEADS, strict=True))
        if any(width % heads for width, _, heads in pairs):
            raise ConfigError(f"embed_dims: must be multiples of the heads, {HEADS}, not {self.embed_dims}")
        if not all(1 <= width * ratio < float("inf") for width, ratio, _ in pairs):
            raise ConfigError(f"mlp_ratios: times embed_dims, must be 1 or more, not {self.mlp_ratios}")


class Attention(nn.Module):
    """Attention of every position to a shrunken map: by a strided convolution, or averaged where it is linear.

    Paper: Wang et al. 2022, https://arxiv.org/abs/2106.13797, sections 3.1 and 3.2
    """

    def __init__(self, channels: int, heads: int, reduction: int, *, linear: bool, eps: float) -> None:
        """``reduction`` is the side of the square that becomes one position, where it is not linear."""
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(7) if linear else nn.Identity()
        self.sr: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        self.act: nn.Module = nn.GELU() if linear else nn.Identity()
        if linear or reduction > 1:
            side = 1 if linear else reduction
            self.sr = nn.Conv2d(channels, channels, kernel_size=side, stride=side)
            self.norm = LayerNorm2d(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        q = self._by_head(self.q(x))
        seen = self.act(self.norm(self.sr(self.pool(x.permute(0, 3, 1, 2))))).permute(0, 2, 3, 1)  # (B, h, w, C)
        k, v = (self._by_head(part) for part in self.kv(seen).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H*W, C/heads)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, heads, H*W, C/heads), as a view."""
        return x.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with a depthwise convolution between, which also tells the positions."""

    def __init__(self, channels: int, hidden: int, *, linear: bool) -> None:
        """``linear`` adds an activation in front of the convolution, as the networks with linear attention have."""
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.ReLU(inplace=True) if linear else nn.Identity()
        self.dwconv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self.act(self.fc1(x))
        x = self.dwconv(x.permute(0, 3, 1, 2))  # under the same name, so that the memory of the map before is free
        x = F.gelu(x)
        return self.fc2(x.permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention, then the MLP, each behind a norm and beside a shortcut."""

    def __init__(self, attention: Attention, mlp: MLP, *, drop_path: float, eps: float) -> None:
        """A block of these two parts; ``drop_path`` is the probability that an image skips one."""
        super().__init__()
        channels = attention.q.in_features
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in memory with the channels last."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


@networks.register(
    pvt_v2_b0_li=PVTv2Config(depths=(2, 2, 2, 2), embed_dims=(32, 64, 160, 256), linear=True, drop_path_rate=0.1),
    pvt_v2_b0=PVTv2Config(depths=(2, 2, 2, 2), embed_dims=(32, 64, 160, 256), drop_path_rate=0.1),
    pvt_v2_b1_li=PVTv2Config(depths=(2, 2, 2, 2), embed_dims=(64, 128, 320, 512), linear=True, drop_path_rate=0.1),
    pvt_v2_b1=PVTv2Config(depths=(2, 2, 2, 2), embed_dims=(64, 128, 320, 512), drop_path_rate=0.1),
    pvt_v2_b2_li=PVTv2Config(depths=(3, 4, 6, 3), embed_dims=(64, 128, 320, 512), linear=True, drop_path_rate=0.1),
    pvt_v2_b2=PVTv2Config(depths=(3, 4, 6, 3), embed_dims=(64, 128, 320, 512), drop_path_rate=0.1),
    pvt_v2_b3_li=PVTv2Config(depths=(3, 4, 18, 3), embed_dims=(64, 128, 320, 512), linear=True, drop_path_rate=0.3),
    pvt_v2_b3=PVTv2Config(depths=(3, 4, 18, 3), embed_dims=(64, 128, 320, 512), drop_path_rate=0.3),
    pvt_v2_b4=PVTv2Config(depths=(3, 8, 27, 3), embed_dims=(64, 128, 320, 512), drop_path_rate=0.3),
    pvt_v2_b5=PVTv2Config(
        depths=(3, 6, 40, 3), embed_dims=(64, 128, 320, 512), mlp_ratios=(4.0, 4.0, 4.0, 4.0), drop_path_rate=0.3
    ),
)
class PVTv2(StagedNetwork):
    """PVT v2 in all its sizes; ``li`` are those with linear attention."""

    older = (
        Older(
            before=(0, 4),
            options={"norm_eps": 1e-5, "stage_norm_eps": 1e-5},
            reason="layer norms with eps 1e-5, as PVT v2 had before 0.4",
        ),
        # Known of files up to 0.6.2 and from 0.8 on; those of 0.7 are taken for the newer.
        Older(
            before=(0, 7),
            options={"stage_norm_eps": 1e-5},
            reason="layer norms at the ends of stages with eps 1e-5, as PVT v2 had before 0.7",
        ),
    )

    def __init__(self, config: PVTv2Config, **options: Any) -> None:
        """Build the layers; ``options`` are those of ``Network``."""
        super().__init__(config, **options)
        widths = config.embed_dims
        rates = drop_path_rates(config.drop_path_rate, config.depths)

        self.patch_embed = patches(self.input_channels, widths[0], kernel_size=7, stride=4, eps=config.norm_eps)
        self.body = nn.Sequential()
        for index, stage_rates in enumerate(rates):
            stage = nn.Sequential()
            if index > 0:
                before, after = widths[index - 1 : index + 1]
                stage.add_module("downsample", patches(before, after, kernel_size=3, stride=2, eps=config.norm_eps))
            stage.add_module("blocks", nn.Sequential(*(make_block(config, index, rate) for rate in stage_rates)))
            stage.add_module("norm", LayerNorm2d(widths[index], eps=config.stage_norm_eps))
            self.body.add_module(f"stage{index + 1}", stage)

        self.embedding_size = widths[-1]
        self.stem_width = widths[0]
        self.stages = {f"stage{number}": width for number, width in enumerate(widths, start=1)}
        self.apply(init_weights)
        self.reset_classifier(self.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier; it starts as the rest of the network does."""
        super().reset_classifier(num_classes)
        self.classifier.apply(init_weights)

    def stem(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/4, W/4), rounded up."""
        return self.patch_embed(x)

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return features.mean(dim=(2, 3))

    def blocks(self) -> list[nn.Module]:
        """All blocks, from input to output."""
        return [block for block in self.body.modules() if isinstance(block, Block)]

    def map_block(self, width: int) -> nn.Module:
        """See ``MasksMaps``; it is that of the last stage.

        Raises:
            ConfigError: A width that is no multiple of the heads there, 8.
        """
        if width % HEADS[-1]:
            raise ConfigError(
                f"a block of a PVT v2 for a decoder needs a multiple of {HEADS[-1]} channels, not {width}"
            )
        widths = (*self.config.embed_dims[:-1], width)
        return make_block(replace(self.config, embed_dims=widths), len(widths) - 1, 0.0).apply(init_weights)


def patches(before: int, after: int, *, kernel_size: int, stride: int, eps: float) -> nn.Sequential:
    """Overlapping patches to positions, (B, before, H, W) -> (B, after, H/stride, W/stride), rounded up."""
    conv = nn.Conv2d(before, after, kernel_size, stride, padding=kernel_size // 2)
    return nn.Sequential(OrderedDict(proj=conv, norm=LayerNorm2d(after, eps=eps)))


def make_block(config: PVTv2Config, stage: int, drop_path: float) -> Block:
    """A block of one of the stages 0 to 3."""
    width = config.embed_dims[stage]
    attention = Attention(width, HEADS[stage], REDUCTIONS[stage], linear=config.linear, eps=config.norm_eps)
    mlp = MLP(width, int(width * config.mlp_ratios[stage]), linear=config.linear)
    return Block(attention, mlp, drop_path=drop_path, eps=config.norm_eps)


def init_weights(module: nn.Module) -> None:
    """Normal weights that keep the variance for convolutions, of deviation 0.02 for linear layers, and no bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
