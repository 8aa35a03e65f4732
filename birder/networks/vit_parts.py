"""From the options of a vision transformer to its layers.

Shapes: B images, C channels, H height, W width, D width of a token, h rows and w columns of patches.
"""

from dataclasses import replace
from functools import partial

from torch import nn

from birder.layers.activation import ACTIVATIONS
from birder.layers.attention import Attention
from birder.layers.mlp import MLP, SwiGLU
from birder.layers.moe import SoftMoE
from birder.layers.norm import LayerNorm2d, LayerScale, MakeNorm
from birder.layers.pool import AttentionPool, EfficientProbing
from birder.networks.vit_config import NUM_PROBES, ViTConfig


def make_norm(config: ViTConfig) -> MakeNorm:
    """What makes the norms of a ViT."""
    norm = {"LayerNorm": nn.LayerNorm, "RMSNorm": nn.RMSNorm}[config.norm_layer_type]
    return partial(norm, eps=config.norm_layer_eps)


def attention(config: ViTConfig) -> Attention:
    """The attention of a block."""
    return Attention(
        config.hidden_dim,
        config.num_heads,
        qkv_bias=config.qkv_bias,
        qk_norm=make_norm(config) if config.qk_norm else nn.Identity,
        norm=make_norm(config) if config.attn_norm else nn.Identity,
        attention_dropout=config.attention_dropout,
        projection_dropout=config.projection_dropout,
    )


def mlp(config: ViTConfig) -> nn.Module:
    """The MLP of a block, or what stands for it."""
    gated = config.mlp_layer_type in ("SwiGLU_FFN", "Norm_SwiGLU_FFN")
    activation = ACTIVATIONS[config.act_layer_type or ("silu" if gated else "gelu")]
    if gated:
        norm = make_norm(config) if config.mlp_layer_type == "Norm_SwiGLU_FFN" else nn.Identity
        return SwiGLU(config.hidden_dim, config.mlp_dim, activation=activation, norm=norm, dropout=config.dropout)
    plain = partial(MLP, config.hidden_dim, config.mlp_dim, activation=activation, dropout=config.dropout)
    if config.mlp_layer_type == "FFN":
        return plain()
    assert config.soft_moe_num_experts is not None and config.soft_moe_num_slots is not None
    return SoftMoE(config.hidden_dim, config.soft_moe_num_experts, config.soft_moe_num_slots, plain)


def layer_scale(config: ViTConfig) -> nn.Module:
    """The learned factors behind a branch, or none."""
    initial = config.layer_scale_init_value
    return nn.Identity() if initial is None else LayerScale(config.hidden_dim, initial)


def block_config(config: ViTConfig, number: int) -> ViTConfig:
    """The options of one block: experts stand in the second half only."""
    if config.mlp_layer_type != "SoftMoE_FFN" or number >= config.num_layers // 2:
        return config
    return replace(config, mlp_layer_type="FFN", soft_moe_num_experts=None, soft_moe_num_slots=None)


def decoder_config(config: ViTConfig, width: int, num_heads: int) -> ViTConfig:
    """The options of a block of another width, which has no dropout, learned factors or experts."""
    return replace(
        block_config(config, 0),
        hidden_dim=width,
        num_heads=num_heads,
        mlp_dim=4 * width,
        dropout=0.0,
        attention_dropout=0.0,
        projection_dropout=0.0,
        layer_scale_init_value=None,
        # Of no concern to a block, but they might not go with its width.
        stem_type="patchify",
        stem_norm_layer_type=None,
        attn_pool_head=False,
        attn_pool_num_heads=None,
        attn_pool_special_tokens=False,
    )


def pre_block(config: ViTConfig) -> nn.Sequential:
    """What stands before the first block: a norm, dropout, both or nothing."""
    layers = nn.Sequential()
    if config.pre_norm:
        layers.append(make_norm(config)(config.hidden_dim))
    if config.dropout:
        layers.append(nn.Dropout(config.dropout))
    return layers


def stem(config: ViTConfig, input_channels: int) -> nn.Module:
    """Picture to patches, (B, C, H, W) -> (B, D, h, w).

    Paper: Touvron et al. 2022, https://arxiv.org/abs/2203.09795, section 5, for the three layers (hMLP)
    """
    width = config.hidden_dim
    if config.stem_type == "patchify":
        return patchify(input_channels, width, config.patch_size, bias=not config.pre_norm)
    layers = nn.Sequential()
    before = input_channels
    for after, side in ((width // 4, 4), (width // 4, 2), (width, 2)):
        batch_norm = config.stem_norm_layer_type == "BatchNorm2d"
        norm = nn.BatchNorm2d(after) if batch_norm else LayerNorm2d(after, eps=config.norm_layer_eps)
        layers.extend([patchify(before, after, side), norm, nn.GELU()])
        before = after
    return layers[:-1]


def patchify(before: int, after: int, side: int, *, bias: bool = True) -> nn.Conv2d:
    """One linear layer for all patches, (B, before, H, W) -> (B, after, H/side, W/side).

    It starts with weights that keep the variance.
    """
    layer = nn.Conv2d(before, after, kernel_size=side, stride=side, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=(before * side * side) ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def attention_pool(config: ViTConfig) -> nn.Module:
    """What makes the embedding from the tokens."""
    if config.attn_pool_type == "EfficientProbing":
        return EfficientProbing(config.hidden_dim, NUM_PROBES)
    return AttentionPool(
        config.hidden_dim,
        config.attn_pool_num_heads or config.num_heads,
        config.mlp_dim,
        norm_eps=config.attn_pool_norm_eps,
        activation=ACTIVATIONS[config.attn_pool_act_layer_type],
    )
