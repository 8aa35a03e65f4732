"""ViT Parallel: in each block, several attentions side by side, then several MLPs; wider instead of deeper.

Paper: Touvron et al. 2022, https://arxiv.org/abs/2203.09795, section 3
Shapes: B images, N tokens, D width of a token.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from birder.config import within
from birder.layers.shape import DropPath
from birder.networks.base import networks
from birder.networks.vit import ViT
from birder.networks.vit_config import ViTConfig
from birder.networks.vit_names import options_of
from birder.networks.vit_parts import attention, layer_scale, make_norm, mlp


@dataclass(frozen=True, kw_only=True)
class ViTParallelConfig(ViTConfig):
    """Options of a ViT Parallel: those of a ViT, and one."""

    num_parallel: int
    """Attentions, and MLPs, side by side in each block."""

    def __post_init__(self) -> None:
        """Check the ranges, and what goes together."""
        super().__post_init__()
        within(self, 1, float("inf"), "num_parallel")


class ParallelBlock(nn.Module):
    """Attentions side by side, whose sum is added; then MLPs in the same way, (B, N, D) -> (B, N, D)."""

    def __init__(self, config: ViTParallelConfig, drop_path: float = 0.0) -> None:
        """``drop_path`` is the probability that an image skips a branch."""
        super().__init__()
        branches = range(config.num_parallel)
        self.attn_blocks = nn.ModuleList(branch(config, attention(config), drop_path) for _ in branches)
        self.mlp_blocks = nn.ModuleList(branch(config, mlp(config), drop_path) for _ in branches)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        for branches in (self.attn_blocks, self.mlp_blocks):
            total = x
            for branch in branches:
                total = total + branch(x)
            x = total
        return x


def branch(config: ViTParallelConfig, layer: nn.Module, drop_path: float) -> nn.Sequential:
    """Norm, layer, learned factors, drop path, (B, N, D) -> (B, N, D)."""
    return nn.Sequential(make_norm(config)(config.hidden_dim), layer, layer_scale(config), DropPath(drop_path))


def parallel(name: str, drop_path_rate: float) -> ViTParallelConfig:
    """The options of a ViT, with 18 blocks of two branches in place of 12 blocks."""
    options = options_of(name) | {"num_layers": 18, "drop_path_rate": drop_path_rate}
    return ViTParallelConfig(**options, num_parallel=2)


@networks.register(
    vit_parallel_s16_18x2_ls=parallel("vit_s16_ls", 0.05),
    vit_parallel_s16_18x2_ls_avg=parallel("vit_s16_ls_avg", 0.05),
    vit_parallel_b16_18x2_ls=parallel("vit_b16_ls", 0.2),
    vit_parallel_b16_18x2_ls_avg=parallel("vit_b16_ls_avg", 0.2),
)
class ViTParallel(ViT):
    """ViT Parallel: all of a ViT, but other blocks."""

    block = ParallelBlock
    renamed = ()
