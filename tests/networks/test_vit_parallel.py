"""ViT Parallel: sums of branches."""

from typing import Any

import torch
from torch import nn

from birder.layers.norm import LayerScale
from birder.layers.shape import DropPath
from birder.networks import create_network

SMALL: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}


def test_branches_see_the_same_tokens() -> None:
    """Equation 3 of the paper: x + sum of all attentions of x, then + sum of all MLPs of that."""
    network = create_network("vit_parallel_s16_18x2_ls", 4, size=(32, 32), num_parallel=3, **SMALL).eval().double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    block = network.blocks()[0]
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    after = x + torch.stack([branch(x) for branch in block.get_submodule("attn_blocks").children()]).sum(dim=0)
    expected = after + torch.stack([branch(after) for branch in block.get_submodule("mlp_blocks").children()]).sum(
        dim=0
    )
    torch.testing.assert_close(block(x), expected)
    norm, layer, scale, _ = block.get_submodule("attn_blocks.1").children()
    torch.testing.assert_close(block.get_submodule("attn_blocks.1")(x), layer(norm(x)) * scale.gamma)


def test_each_branch_has_its_own_drop_path() -> None:
    network = create_network("vit_parallel_s16_18x2_ls", 4, size=(32, 32), drop_path_rate=0.2, **SMALL)
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert rates == [0.0] * 4 + [0.2] * 4


def test_without_layer_scale_nothing_scales() -> None:
    network = create_network("vit_parallel_s16_18x2_ls", 4, size=(32, 32), layer_scale_init_value=None, **SMALL)
    assert not any(isinstance(module, LayerScale) for module in network.modules())


def test_attention_starts_as_torch_makes_it() -> None:
    network = create_network("vit_parallel_s16_18x2_ls", 4, size=(32, 32), **SMALL)
    largest = network.get_parameter("encoder.block.0.attn_blocks.0.1.qkv.weight").abs().max()
    assert 0.9 * 16**-0.5 < largest.item() <= 16**-0.5
