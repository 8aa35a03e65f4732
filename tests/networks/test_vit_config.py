"""Options of a ViT that contradict each other are explained."""

from typing import Any

import pytest

from birder.errors import ConfigError
from birder.networks import create_network

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"hidden_dim": 100}, "hidden_dim: must be a multiple of num_heads, 3, not 100"),
    ({"num_layers": 0}, "num_layers: must be 1 or more, not 0"),
    ({"num_reg_tokens": -1}, "num_reg_tokens: must be 0 or more, not -1"),
    ({"drop_path_rate": 1.0}, "drop_path_rate: must be in 0 to 0.99, not 1.0"),
    ({"attention_dropout": -0.1}, "attention_dropout: must be in 0 to 0.99, not -0.1"),
    ({"norm_layer_eps": -1.0}, "norm_layer_eps: must be in 0 to 1"),
    ({"norm_layer_type": "BatchNorm2d"}, "norm_layer_type: 'BatchNorm2d' is not one of LayerNorm, RMSNorm"),
    ({"act_layer_type": "gelo"}, "act_layer_type: 'gelo' is not one of gelu, .*did you mean gelu"),
    ({"norm_after_pool": True, "post_norm": False}, "norm_after_pool: needs post_norm"),
    ({"stem_norm_layer_type": "BatchNorm2d"}, "stem_norm_layer_type: only the hmlp stem has norms"),
    ({"stem_type": "hmlp", "patch_size": 14}, "stem_type: hmlp makes patches of 16 .*, not of 14 into 192"),
    ({"stem_type": "hmlp", "hidden_dim": 21}, "stem_type: hmlp makes patches of 16 into widths that 4 divides"),
    ({"attn_pool_special_tokens": True}, "attn_pool_special_tokens: needs attn_pool_head"),
    ({"attn_pool_num_heads": 3}, "attn_pool_num_heads: needs attn_pool_head of the type MultiHeadAttentionPool"),
    ({"attn_pool_head": True, "attn_pool_num_heads": 5}, "attn_pool_num_heads: must divide hidden_dim, 192, not 5"),
    (
        {"attn_pool_head": True, "attn_pool_type": "EfficientProbing", "hidden_dim": 186},
        "hidden_dim: must be a multiple of 32 for EfficientProbing, not 186",
    ),
    ({"mlp_layer_type": "SoftMoE_FFN", "soft_moe_num_slots": 4}, "soft_moe_num_experts: SoftMoE_FFN needs a number"),
    ({"soft_moe_num_slots": 4}, "soft_moe_num_slots: only SoftMoE_FFN has experts, not FFN"),
    ({"out_indices": (0, 12)}, r"out_indices: must be rising numbers from 0 to 11, not \[0, 12\]"),
    ({"out_indices": (3, 1)}, r"out_indices: must be rising numbers from 0 to 11, not \[3, 1\]"),
    ({"out_indices": (1, 1)}, "out_indices: must be rising"),
    ({"out_indices": ()}, "out_indices: must be rising"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_a_mistake_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^vit_t16.{message}"):
        create_network("vit_t16", 10, **options)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        create_network("vit_t16", 10, out_indices=(99,), hidden_dim=10)
    assert len(str(caught.value).splitlines()) == 2


def test_parallel_branches_are_counted() -> None:
    with pytest.raises(ConfigError, match="num_parallel: must be 1 or more, not 0"):
        create_network("vit_parallel_s16_18x2_ls", 10, num_parallel=0)
