"""ConvNeXt v2: a plain convolutional network that learns well from masked images.

Paper: Woo et al. 2023, https://arxiv.org/abs/2301.00808
Shapes: B images, C channels, H height, W width. Every stage but the first halves H and W.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from birder.config import within
from birder.errors import ConfigError
from birder.layers.norm import GlobalResponseNorm, LayerNorm2d
from birder.layers.shape import DropPath, Permute, drop_path_rates
from birder.networks.base import NetworkConfig, networks
from birder.networks.staged import StagedNetwork


@dataclass(frozen=True, kw_only=True)
class ConvNeXtV2Config(NetworkConfig):
    """Options of a ConvNeXt v2."""

    in_channels: tuple[int, int, int, int]
    """Width of each stage."""
    num_layers: tuple[int, int, int, int]
    """Blocks in each stage."""
    drop_path_rate: float = 0.0
    """Probability that an image skips the last block; it rises linearly from 0 at the first."""
    drop_path_uniform: bool = False
    """Give every block the same rate instead."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(self, 0.0, 0.99, "drop_path_rate")
        if min(*self.in_channels, *self.num_layers) < 1:
            raise ConfigError(f"in_channels: must be 1 or more, and num_layers: {self.in_channels}, {self.num_layers}")


class Block(nn.Module):
    """Depthwise 7x7, then an inverted bottleneck with global response normalisation."""

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        """A block of one width; ``drop_path`` is the probability that an image skips it."""
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            GlobalResponseNorm(4 * channels),
            nn.Linear(4 * channels, channels),
            Permute(0, 3, 1, 2),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.drop_path(self.block(x))


@networks.register(
    convnext_v2_atto=ConvNeXtV2Config(in_channels=(40, 80, 160, 320), num_layers=(2, 2, 6, 2)),
    convnext_v2_femto=ConvNeXtV2Config(in_channels=(48, 96, 192, 384), num_layers=(2, 2, 6, 2)),
    convnext_v2_pico=ConvNeXtV2Config(in_channels=(64, 128, 256, 512), num_layers=(2, 2, 6, 2)),
    convnext_v2_nano=ConvNeXtV2Config(in_channels=(80, 160, 320, 640), num_layers=(2, 2, 8, 2), drop_path_rate=0.1),
    convnext_v2_tiny=ConvNeXtV2Config(in_channels=(96, 192, 384, 768), num_layers=(3, 3, 9, 3), drop_path_rate=0.2),
    convnext_v2_small=ConvNeXtV2Config(in_channels=(96, 192, 384, 768), num_layers=(3, 3, 27, 3), drop_path_rate=0.1),
    convnext_v2_base=ConvNeXtV2Config(in_channels=(128, 256, 512, 1024), num_layers=(3, 3, 27, 3), drop_path_rate=0.1),
    convnext_v2_large=ConvNeXtV2Config(in_channels=(192, 384, 768, 1536), num_layers=(3, 3, 27, 3), drop_path_rate=0.2),
    convnext_v2_xlarge=ConvNeXtV2Config(
        in_channels=(256, 512, 1024, 2048), num_layers=(3, 3, 27, 3), drop_path_rate=0.25
    ),
    convnext_v2_huge=ConvNeXtV2Config(in_channels=(352, 704, 1408, 2816), num_layers=(3, 3, 27, 3), drop_path_rate=0.3),
)
class ConvNeXtV2(StagedNetwork):
    """ConvNeXt v2 in all its sizes.

    Differs: the norm of the stem has eps 1e-5, not 1e-6 as all others: so the published weights were trained.
    """

    def __init__(self, config: ConvNeXtV2Config, **options: Any) -> None:
        """Build the layers; ``options`` are those of ``Network``."""
        super().__init__(config, **options)
        widths = config.in_channels
        rates = drop_path_rates(config.drop_path_rate, config.num_layers, uniform=config.drop_path_uniform)

        self.stem = nn.Sequential(
            nn.Conv2d(self.input_channels, widths[0], kernel_size=4, stride=4),
            LayerNorm2d(widths[0], eps=1e-5),
        )
        self.body = nn.Sequential()
        for number, (width, stage_rates) in enumerate(zip(widths, rates, strict=True), start=1):
            stage = nn.Sequential() if number == 1 else nn.Sequential(downsample(widths[number - 2], width))
            stage.extend(Block(width, rate) for rate in stage_rates)
            self.body.add_module(f"stage{number}", stage)
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(1), LayerNorm2d(widths[-1], eps=1e-6), nn.Flatten())

        self.embedding_size = widths[-1]
        self.stem_width = widths[0]
        self.stages = {f"stage{number}": width for number, width in enumerate(widths, start=1)}
        self.apply(init_weights)
        self.reset_classifier(self.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier; it starts near zero, so that training begins with even probabilities."""
        super().reset_classifier(num_classes)
        self.classifier.apply(init_weights)
        for layer in [layer for layer in self.classifier.modules() if isinstance(layer, nn.Linear)][-1:]:
            layer.weight.data.mul_(0.001)

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return self.features(features)

    def blocks(self) -> list[nn.Module]:
        """All blocks, from input to output."""
        return [block for block in self.body.modules() if isinstance(block, Block)]

    def map_block(self, width: int) -> nn.Module:
        """See ``MasksMaps``."""
        return Block(width).apply(init_weights)


def downsample(before: int, after: int) -> nn.Sequential:
    """Halve height and width, (B, before, H, W) -> (B, after, H/2, W/2)."""
    return nn.Sequential(LayerNorm2d(before, eps=1e-6), nn.Conv2d(before, after, kernel_size=2, stride=2))


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and no bias, for convolutions and linear layers."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
