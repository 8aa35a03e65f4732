"""ViTs against timm's: the same weights give the same logits, also after a change of size."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from birder.networks import create_network
from birder.networks.base import Network

timm = pytest.importorskip("timm")

WIDTH, HEADS, DEPTH, CLASSES = 32, 2, 2, 7
SIZE = (64, 96)

# Ours to timm's.
NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^reg_tokens$", "reg_token"),
    (r"^pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pre_block\.0\.", "norm_pre."),
    (r"^encoder\.block\.", "blocks."),
    (r"\.attn_blocks\.(\d)\.0\.", r".attns.\1.norm."),
    (r"\.attn_blocks\.(\d)\.1\.", r".attns.\1.attn."),
    (r"\.attn_blocks\.(\d)\.2\.", r".attns.\1.ls."),
    (r"\.mlp_blocks\.(\d)\.0\.", r".ffns.\1.norm."),
    (r"\.mlp_blocks\.(\d)\.1\.", r".ffns.\1.mlp."),
    (r"\.mlp_blocks\.(\d)\.2\.", r".ffns.\1.ls."),
    (r"\.layer_scale_(\d)\.", r".ls\1."),
    (r"mlp\.0\.", "mlp.fc1."),
    (r"mlp\.3\.", "mlp.fc2."),
    (r"^embedding_norm\.", "fc_norm."),
    (r"^classifier\.", "head."),
)

LAYERS = timm.layers
PARALLEL = timm.models.vision_transformer.ParallelThingsBlock

# Our name, our options; timm's options.
PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "class token": ("vit_s16", {}, {}),
    "registers and mean": (
        "vit_reg4_b16_avg",
        {},
        {"class_token": False, "reg_tokens": 4, "global_pool": "avg", "fc_norm": False},
    ),
    "registers and class token": ("vit_reg4_b16", {}, {"reg_tokens": 4}),
    "attention pool (SigLIP)": ("vit_b16_ap_c1", {}, {"class_token": False, "global_pool": "map"}),
    "attention pool beside registers": (
        "vit_reg8_b14_ap",
        {"attn_pool_norm_eps": 1e-6, "patch_size": 16},
        {"class_token": False, "reg_tokens": 8, "global_pool": "map"},
    ),
    "attention pool of registers, too": (
        "vit_reg8_l16_aps",
        {"attn_pool_norm_eps": 1e-6},
        {"class_token": False, "reg_tokens": 8, "global_pool": "map", "pool_include_prefix": True},
    ),
    "DeiT 3": ("deit3_b16", {}, {"no_embed_class": True, "init_values": 1e-5}),
    "DeiT 3 with registers": ("deit3_reg4_s16", {}, {"no_embed_class": True, "init_values": 1e-5, "reg_tokens": 4}),
    "quick GELU and a norm before (CLIP)": (
        "vit_b16_pn_quick_gelu",
        {},
        {
            "pre_norm": True,
            "norm_layer": lambda *size, **options: nn.LayerNorm(*size, eps=1e-5),
            "act_layer": "quick_gelu",
        },
    ),
    "no norm behind": (
        "vit_b32_pn_npn",
        {"patch_size": 16},
        {
            "pre_norm": True,
            "norm_layer": lambda *size, **options: nn.LayerNorm(*size, eps=1e-5),
            "final_norm": False,
        },
    ),
    "norm after the mean": (
        "vit_reg1_s16_nap_avg",
        {},
        {"class_token": False, "reg_tokens": 1, "global_pool": "avg", "fc_norm": True},
    ),
    "gates": (
        "vit_reg8_so150m_p14_swiglu",
        {"patch_size": 16},
        {"reg_tokens": 8, "mlp_layer": LAYERS.SwiGLU, "act_layer": nn.SiLU},
    ),
    "NormFormer": (
        "vit_b16_nf_swiglu",
        {},
        {"mlp_layer": LAYERS.SwiGLU, "act_layer": nn.SiLU, "scale_attn_norm": True, "scale_mlp_norm": True},
    ),
    "norms of queries and keys": ("vit_b16_qkn_ls", {}, {"qk_norm": True, "init_values": 1e-5}),
    "RMS norms": (
        "vit_reg1_s16_rms_ls",
        {},
        {"reg_tokens": 1, "init_values": 1e-5, "norm_layer": lambda *size, **options: nn.RMSNorm(*size, eps=1e-6)},
    ),
    "parallel": ("vit_parallel_s16_18x2_ls", {}, {"init_values": 1e-5, "block_fn": PARALLEL}),
    "parallel and mean": (
        "vit_parallel_s16_18x2_ls_avg",
        {},
        {"init_values": 1e-5, "block_fn": PARALLEL, "class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
}


def theirs_of(network: Network, **options: Any) -> nn.Module:
    """The network of timm, with our weights."""
    theirs = timm.models.VisionTransformer(
        img_size=network.size,
        patch_size=16,
        num_classes=CLASSES,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=2.0,
        **options,
    )
    state = {renamed(name): tensor for name, tensor in network.state_dict().items()}
    registers = network.config.num_reg_tokens
    if network.config.class_token and registers and network.config.pos_embed_special_tokens:
        # timm puts the class token before the registers.
        table = state["pos_embed"]
        state["pos_embed"] = torch.cat(
            [table[:, registers : registers + 1], table[:, :registers], table[:, registers + 1 :]], 1
        )
    theirs.load_state_dict(state)
    return theirs.eval()


def renamed(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def assert_equal_logits(ours: Tensor, theirs: Tensor) -> None:
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5 * theirs.std()


@torch.no_grad()
@pytest.mark.parametrize("pair", PAIRS)
def test_equal_weights_give_equal_logits(pair: str) -> None:
    name, options, theirs_options = PAIRS[pair]
    small = {"num_layers": DEPTH, "num_heads": HEADS, "hidden_dim": WIDTH, "mlp_dim": 2 * WIDTH}
    network = create_network(name, CLASSES, size=SIZE, **small, **options).eval()
    for weight in network.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.2)
    x = torch.randn(3, 3, *SIZE)
    theirs = theirs_of(network, **theirs_options)
    assert_equal_logits(network(x), theirs(x))

    size = (96, 48)
    network.adjust_size(size)
    theirs.set_input_size(img_size=size)
    x = torch.randn(3, 3, *size)
    assert_equal_logits(network(x), theirs(x))
