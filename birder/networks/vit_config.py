"""The options of a vision transformer, as the published files name them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from birder.config import within
from birder.errors import ConfigError
from birder.layers.activation import ActivationName
from birder.networks.base import NetworkConfig

NUM_PROBES = 32
"""Queries of efficient probing, as in its paper."""


@dataclass(frozen=True, kw_only=True)
class ViTConfig(NetworkConfig):
    """Options of a ViT."""

    patch_size: int
    """Height and width of a patch, in pixels."""
    num_layers: int
    """Blocks."""
    num_heads: int
    """Heads of the attention in each block."""
    hidden_dim: int
    """Width of the tokens."""
    mlp_dim: int
    """Width of the hidden layer of the MLPs."""
    drop_path_rate: float = 0.0
    """Probability that an image skips the branches of the last block; it rises linearly from 0 at the first."""
    drop_path_uniform: bool = False
    """Give every block the same rate instead."""
    dropout: float = 0.0
    """Of the tokens that enter the first block, and in the MLPs."""
    attention_dropout: float = 0.0
    """Of the attention weights."""
    projection_dropout: float = 0.0
    """Of the output of the attention."""

    stem_type: Literal["patchify", "hmlp"] = "patchify"
    """How patches become tokens: by one layer, or by three that do not look across patches (hMLP)."""
    stem_norm_layer_type: Literal["LayerNorm2d", "BatchNorm2d"] | None = None
    """Norms of the hMLP stem; unset is LayerNorm2d."""
    class_token: bool = True
    """Whether there is a class token; without one, the embedding is the mean of the patches."""
    num_reg_tokens: int = 0
    """Registers: tokens that belong to no patch."""
    abs_pos_embed: bool = True
    """Whether there is a learned table of positions."""
    pos_embed_special_tokens: bool = True
    """Whether class token and registers have positions, too."""
    pos_embed_interpolation_mode: Literal["bicubic", "bilinear"] = "bicubic"
    """How positions are resampled for another size."""
    pos_embed_antialias: bool = False
    """Whether to smooth where pictures of any size are taken; ``adjust_size`` always does."""

    norm_layer_type: Literal["LayerNorm", "RMSNorm"] = "LayerNorm"
    """Norms of the blocks, and the final one."""
    norm_layer_eps: float = 1e-6
    """Added to the variance in these norms."""
    pre_norm: bool = False
    """Whether a norm stands before the first block; the patches then have no bias."""
    post_norm: bool = True
    """Whether a norm stands behind the last block."""
    norm_after_pool: bool = False
    """Whether that norm is of the embedding, not of the tokens."""
    qkv_bias: bool = True
    """Whether queries, keys and values have biases."""
    qk_norm: bool = False
    """Whether the queries and keys of each head are normalised."""
    attn_norm: bool = False
    """Whether the output of the heads is normalised (NormFormer)."""
    layer_scale_init_value: float | None = None
    """First value of a learned factor per channel behind each branch; unset is no such factor."""
    mlp_layer_type: Literal["FFN", "SwiGLU_FFN", "Norm_SwiGLU_FFN", "SoftMoE_FFN"] = "FFN"
    """The MLPs: plain, gated, gated with a norm, or soft mixtures of experts in the second half of the blocks."""
    act_layer_type: ActivationName | None = None
    """Activation of the MLPs; unset is GELU, and SiLU for gates."""
    soft_moe_num_experts: int | None = None
    """Experts in each mixture."""
    soft_moe_num_slots: int | None = None
    """Slots of each expert."""

    attn_pool_head: bool = False
    """Whether attention makes the embedding from the tokens, in place of class token or mean."""
    attn_pool_type: Literal["MultiHeadAttentionPool", "EfficientProbing"] = "MultiHeadAttentionPool"
    """One query with an MLP behind it, or 32 queries."""
    attn_pool_num_heads: int | None = None
    """Heads of the one query; unset is as many as in the blocks."""
    attn_pool_special_tokens: bool = False
    """Whether it also looks at class token and registers."""
    attn_pool_norm_eps: float = 1e-5
    """Added to the variance in its norm."""
    attn_pool_act_layer_type: ActivationName = "gelu"
    """Activation of its MLP."""
    out_indices: tuple[int, ...] | None = None
    """Blocks, from 0, behind which ``detection_features`` takes its maps; unset is the last."""

    def __post_init__(self) -> None:
        """Check the ranges, and what goes together."""
        within(self, 0.0, 0.99, "drop_path_rate", "dropout", "attention_dropout", "projection_dropout")
        within(self, 1, float("inf"), "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim")
        within(self, 0, float("inf"), "num_reg_tokens")
        within(self, 0.0, 1.0, "norm_layer_eps", "attn_pool_norm_eps")
        mistakes = [*_contradictions(self), *_bad_numbers(self)]
        if mistakes:
            raise ConfigError("\n".join(mistakes))


def _contradictions(config: ViTConfig) -> Iterator[str]:
    """Options that only make sense with another."""
    if config.norm_after_pool and not config.post_norm:
        yield "norm_after_pool: needs post_norm, the norm that it moves"
    if config.stem_norm_layer_type and config.stem_type != "hmlp":
        yield "stem_norm_layer_type: only the hmlp stem has norms"
    if config.attn_pool_special_tokens and not config.attn_pool_head:
        yield "attn_pool_special_tokens: needs attn_pool_head"
    soft = config.mlp_layer_type == "SoftMoE_FFN"
    for name in ("soft_moe_num_experts", "soft_moe_num_slots"):
        value = getattr(config, name)
        if soft and (value is None or value < 1):
            yield f"{name}: SoftMoE_FFN needs a number, 1 or more, not {value}"
        elif value is not None and not soft:
            yield f"{name}: only SoftMoE_FFN has experts, not {config.mlp_layer_type}"
    if config.attn_pool_num_heads is not None and not _one_query(config):
        yield "attn_pool_num_heads: needs attn_pool_head of the type MultiHeadAttentionPool"


def _bad_numbers(config: ViTConfig) -> Iterator[str]:
    """Numbers that do not go into each other, or lie outside the network."""
    width = config.hidden_dim
    if width % config.num_heads:
        yield f"hidden_dim: must be a multiple of num_heads, {config.num_heads}, not {width}"
    heads = config.attn_pool_num_heads
    if heads is not None and (heads < 1 or width % heads):
        yield f"attn_pool_num_heads: must divide hidden_dim, {width}, not {heads}"
    if config.attn_pool_head and not _one_query(config) and width % NUM_PROBES:
        yield f"hidden_dim: must be a multiple of {NUM_PROBES} for EfficientProbing, not {width}"
    if config.stem_type == "hmlp" and (config.patch_size != 16 or width % 4):
        yield f"stem_type: hmlp makes patches of 16 into widths that 4 divides, not of {config.patch_size} into {width}"
    places = config.out_indices
    if places is not None and not (places and list(places) == sorted(set(places) & set(range(config.num_layers)))):
        yield f"out_indices: must be rising numbers from 0 to {config.num_layers - 1}, not {list(places)}"


def _one_query(config: ViTConfig) -> bool:
    return config.attn_pool_head and config.attn_pool_type == "MultiHeadAttentionPool"
