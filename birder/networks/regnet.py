"""RegNet X and Y: residual networks whose widths follow a straight line; Y adds squeeze-and-excitation.

Paper: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678
Shapes: B images, C channels, H height, W width. The stem and every stage halve H and W.
"""

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from birder.config import within
from birder.errors import ConfigError
from birder.layers.conv import ConvNormAct, SqueezeExcite
from birder.networks.base import NetworkConfig, networks
from birder.networks.staged import StagedNetwork

STEM_WIDTH = 32
DECODER_GROUP_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class RegNetConfig(NetworkConfig):
    """Options of a RegNet, named as in the paper; ``stage_widths`` makes widths and depths of them."""

    depth: int
    """Blocks in all stages together."""
    w_0: int
    """Width of the first block on the line."""
    w_a: float
    """Slope of the line: what each further block adds to the width."""
    w_m: float
    """Factor between the widths of neighbouring stages."""
    group_width: int
    """Channels of each group of the 3x3 convolutions."""
    se_ratio: float = 0.0
    """Width within the squeeze-and-excitation, relative to the block's input; 0 is RegNet X, which has none."""

    def __post_init__(self) -> None:
        """Check the ranges, and that they make four stages."""
        within(self, 1, 10_000, "depth", "group_width")
        within(self, 8, 10_000, "w_0")
        within(self, 0.0, 10_000.0, "w_a")
        within(self, 1.01, 100.0, "w_m")
        within(self, 0.0, 1.0, "se_ratio")
        stages = stage_widths(self)
        if len(stages) != 4:
            widths = ", ".join(str(width) for width, _ in stages)
            raise ConfigError(
                f"depth: a RegNet has 4 stages, and depth {self.depth}, w_0 {self.w_0}, w_a {self.w_a:g} and "
                f"w_m {self.w_m:g} make {len(stages)}, of width {widths}"
            )


def stage_widths(config: RegNetConfig) -> list[tuple[int, int]]:
    """Width and number of blocks of each stage, equations 2 to 4 of the paper."""
    widths = []
    for place in range(config.depth):
        on_the_line = config.w_0 + config.w_a * place
        power = round(math.log(on_the_line / config.w_0) / math.log(config.w_m))
        widths.append(8 * round(config.w_0 * config.w_m**power / 8))
    return [(divisible(width, min(config.group_width, width)), depth) for width, depth in Counter(widths).items()]


def divisible(width: int, group_width: int) -> int:
    """The multiple of ``group_width`` that is nearest to a width, but not below 0.9 of it."""
    nearest = max(group_width, (width + group_width // 2) // group_width * group_width)
    return nearest if nearest >= 0.9 * width else nearest + group_width


class Block(nn.Module):
    """1x1, grouped 3x3, 1x1 convolution beside a shortcut: the X block of the paper, or with squeeze the Y block."""

    def __init__(self, before: int, after: int, *, stride: int, group_width: int, squeezed: int) -> None:
        """A block from one width to another; ``squeezed`` is the width within squeeze-and-excitation, 0 for none."""
        super().__init__()
        same = stride == 1 and before == after
        self.proj = nn.Identity() if same else ConvNormAct(before, after, stride=stride, activation=None)
        block = nn.Sequential(
            ConvNormAct(before, after),
            ConvNormAct(after, after, kernel_size=3, stride=stride, groups=after // group_width),
            SqueezeExcite(after, squeezed) if squeezed else nn.Identity(),
            ConvNormAct(after, after, activation=None),
        )
        self.f = nn.Sequential(OrderedDict(block=block))

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H/stride, W/stride)."""
        return F.relu(self.f(x).add_(self.proj(x)), inplace=True)


@networks.register(
    regnet_x_200m=RegNetConfig(depth=13, w_0=24, w_a=36.44, w_m=2.49, group_width=8),
    regnet_x_400m=RegNetConfig(depth=22, w_0=24, w_a=24.48, w_m=2.54, group_width=16),
    regnet_x_600m=RegNetConfig(depth=16, w_0=48, w_a=36.97, w_m=2.24, group_width=24),
    regnet_x_800m=RegNetConfig(depth=16, w_0=56, w_a=35.73, w_m=2.28, group_width=16),
    regnet_x_1_6g=RegNetConfig(depth=18, w_0=80, w_a=34.01, w_m=2.25, group_width=24),
    regnet_x_3_2g=RegNetConfig(depth=25, w_0=88, w_a=26.31, w_m=2.25, group_width=48),
    regnet_x_4g=RegNetConfig(depth=23, w_0=96, w_a=38.65, w_m=2.43, group_width=40),
    regnet_x_6_4g=RegNetConfig(depth=17, w_0=184, w_a=60.83, w_m=2.07, group_width=56),
    regnet_x_8g=RegNetConfig(depth=23, w_0=80, w_a=49.56, w_m=2.88, group_width=120),
    regnet_x_12g=RegNetConfig(depth=19, w_0=168, w_a=73.36, w_m=2.37, group_width=112),
    regnet_x_16g=RegNetConfig(depth=22, w_0=216, w_a=55.59, w_m=2.1, group_width=128),
    regnet_x_32g=RegNetConfig(depth=23, w_0=320, w_a=69.86, w_m=2.0, group_width=168),
    regnet_y_200m=RegNetConfig(depth=13, w_0=24, w_a=36.44, w_m=2.49, group_width=8, se_ratio=0.25),
    regnet_y_400m=RegNetConfig(depth=16, w_0=48, w_a=27.89, w_m=2.09, group_width=8, se_ratio=0.25),
    regnet_y_600m=RegNetConfig(depth=15, w_0=48, w_a=32.54, w_m=2.32, group_width=16, se_ratio=0.25),
    regnet_y_800m=RegNetConfig(depth=14, w_0=56, w_a=38.84, w_m=2.4, group_width=16, se_ratio=0.25),
    regnet_y_1_6g=RegNetConfig(depth=27, w_0=48, w_a=20.71, w_m=2.65, group_width=24, se_ratio=0.25),
    regnet_y_3_2g=RegNetConfig(depth=21, w_0=80, w_a=42.63, w_m=2.66, group_width=24, se_ratio=0.25),
    regnet_y_4g=RegNetConfig(depth=22, w_0=96, w_a=31.41, w_m=2.24, group_width=64, se_ratio=0.25),
    regnet_y_6_4g=RegNetConfig(depth=25, w_0=112, w_a=33.22, w_m=2.27, group_width=72, se_ratio=0.25),
    regnet_y_8g=RegNetConfig(depth=17, w_0=192, w_a=76.82, w_m=2.19, group_width=56, se_ratio=0.25),
    regnet_y_12g=RegNetConfig(depth=19, w_0=168, w_a=73.36, w_m=2.37, group_width=112, se_ratio=0.25),
    regnet_y_16g=RegNetConfig(depth=18, w_0=200, w_a=106.23, w_m=2.48, group_width=112, se_ratio=0.25),
    regnet_y_32g=RegNetConfig(depth=20, w_0=232, w_a=115.89, w_m=2.53, group_width=232, se_ratio=0.25),
    regnet_y_64g=RegNetConfig(depth=20, w_0=352, w_a=147.48, w_m=2.4, group_width=328, se_ratio=0.25),
    regnet_y_128g=RegNetConfig(depth=27, w_0=456, w_a=160.83, w_m=2.52, group_width=264, se_ratio=0.25),
)
class RegNet(StagedNetwork):
    """RegNet X and Y in all their sizes."""

    def __init__(self, config: RegNetConfig, **options: Any) -> None:
        """Build the layers; ``options`` are those of ``Network``."""
        super().__init__(config, **options)
        self.stem = ConvNormAct(self.input_channels, STEM_WIDTH, kernel_size=3, stride=2)
        self.body = nn.Sequential()
        self.stages = {}
        before = STEM_WIDTH
        for number, (width, depth) in enumerate(stage_widths(config), start=1):
            blocks = nn.Sequential()
            for place in range(depth):
                blocks.append(
                    Block(
                        before,
                        width,
                        stride=2 if place == 0 else 1,
                        group_width=min(config.group_width, width),
                        squeezed=round(config.se_ratio * before),
                    )
                )
                before = width
            self.body.add_module(f"stage{number}", nn.Sequential(OrderedDict(block=blocks)))
            self.stages[f"stage{number}"] = width

        self.embedding_size = before
        self.stem_width = STEM_WIDTH
        self.apply(init_weights)
        self.reset_classifier(self.num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier; it starts as the rest of the network does."""
        super().reset_classifier(num_classes)
        self.classifier.apply(init_weights)

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        return features.mean(dim=(2, 3))

    def blocks(self) -> list[nn.Module]:
        """All blocks, from input to output."""
        return [block for block in self.body.modules() if isinstance(block, Block)]

    def map_block(self, width: int) -> nn.Module:
        """See ``MasksMaps``; it has no shortcut, and groups of 64 channels.

        Raises:
            ConfigError: A width above 64 that is no multiple of it.
        """
        group_width = min(DECODER_GROUP_WIDTH, width)
        if width % group_width:
            raise ConfigError(
                f"a block of a RegNet for a decoder needs a multiple of {group_width} channels, not {width}"
            )
        squeezed = round(self.config.se_ratio * width)
        return Block(width, width, stride=1, group_width=group_width, squeezed=squeezed).f.apply(init_weights)


def init_weights(module: nn.Module) -> None:
    """Normal weights: as wide as keeps the variance going backwards for convolutions, of deviation 0.01 for linear."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels  # as if there were no groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
