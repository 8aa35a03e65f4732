"""What the names of vision transformers say: ``vit_reg4_b14_nps_ls`` is made of its parts.

family _ registers _ size and patch _ options       reg4: four registers; b: base; 14: patches of 14 x 14 pixels
"""

import re
from collections.abc import Mapping
from typing import Any

# Letter: blocks, heads, width, width of the MLP, drop path rate.
SIZES: Mapping[str, tuple[int, int, int, int, float]] = {
    "t": (12, 3, 192, 768, 0.0),
    "s": (12, 6, 384, 1536, 0.0),
    "m": (12, 8, 512, 2048, 0.0),
    "b": (12, 12, 768, 3072, 0.1),
    "b32": (12, 12, 768, 3072, 0.0),
    "so150m": (18, 16, 896, 2320, 0.1),
    "l": (24, 16, 1024, 4096, 0.1),
    "so400m": (27, 16, 1152, 4304, 0.1),
    "h": (32, 16, 1280, 5120, 0.1),
    "g": (40, 16, 1408, 6144, 0.1),
    "1b": (40, 24, 1536, 6144, 0.1),
    "gigantic": (48, 16, 1664, 8192, 0.1),
    "e": (56, 16, 1792, 15360, 0.1),
}

SIZE_OPTIONS = ("num_layers", "num_heads", "hidden_dim", "mlp_dim", "drop_path_rate")

POOL = {"attn_pool_head": True}
SOFT_MOE = {"mlp_layer_type": "SoftMoE_FFN", "soft_moe_num_experts": 32}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "avg": {"class_token": False},
    "ap": {**POOL, "class_token": False},
    "ap_c1": {**POOL, "class_token": False, "attn_pool_norm_eps": 1e-6},
    "aps": {**POOL, "class_token": False, "attn_pool_special_tokens": True},
    "eps": {**POOL, "class_token": False, "attn_pool_special_tokens": True, "attn_pool_type": "EfficientProbing"},
    "hmlp": {"stem_type": "hmlp"},
    "hmlp_bn": {"stem_type": "hmlp", "stem_norm_layer_type": "BatchNorm2d"},
    "ls": {"layer_scale_init_value": 1e-5},
    "nap": {"norm_after_pool": True},
    "nf_swiglu": {"attn_norm": True, "mlp_layer_type": "Norm_SwiGLU_FFN"},
    "npn": {"post_norm": False},
    "nps": {"pos_embed_special_tokens": False},
    "pn": {"pre_norm": True, "norm_layer_eps": 1e-5},
    "qkn": {"qk_norm": True},
    "quick_gelu": {"act_layer_type": "quick_gelu"},
    "rms": {"norm_layer_type": "RMSNorm"},
    "soft_moe_32e_4s": {**SOFT_MOE, "soft_moe_num_slots": 4},
    "soft_moe_32e_6s": {**SOFT_MOE, "soft_moe_num_slots": 6},
    "swiglu": {"mlp_layer_type": "SwiGLU_FFN"},
}

DEIT3_DROP_PATH = {"t": 0.0, "s": 0.05, "m": 0.1, "b": 0.2, "l": 0.45, "h": 0.55}

VIT = """
    vit_t32 vit_t16 vit_t14
    vit_s32 vit_s16 vit_s16_avg vit_s16_ls vit_s16_pn vit_s14
    vit_m32 vit_m16 vit_m16_avg vit_m14
    vit_b32 vit_b32_pn vit_b32_pn_npn
    vit_b16 vit_b16_hmlp vit_b16_hmlp_bn vit_b16_avg vit_b16_ls vit_b16_pn vit_b16_pn_quick_gelu
    vit_b16_ap vit_b16_ap_c1 vit_b16_qkn_ls vit_b16_nf_swiglu vit_b14
    vit_so150m_p16_avg vit_so150m_p14_avg vit_so150m_p14_ap
    vit_l32 vit_l16 vit_l16_avg vit_l16_ap vit_l16_ap_c1
    vit_l14 vit_l14_pn vit_l14_pn_npn vit_l14_pn_quick_gelu
    vit_so400m_p16_avg vit_so400m_p14_ap vit_so400m_p14_ap_c1
    vit_h16 vit_h14 vit_h14_pn vit_g16 vit_g14 vit_1b_p16 vit_gigantic14 vit_e14
    vit_reg1_t32 vit_reg1_t16 vit_reg1_t14
    vit_reg1_s32 vit_reg1_s16 vit_reg1_s16_ls vit_reg1_s16_rms_ls vit_reg1_s16_nap_avg
    vit_reg1_s14 vit_reg1_s14_ls vit_reg4_s14_nps_ls
    vit_reg4_m32 vit_reg4_m16 vit_reg4_m16_rms_avg vit_reg4_m14
    vit_reg4_b32 vit_reg1_b16_nap_avg vit_reg4_b16 vit_reg4_b16_avg
    vit_reg1_b14 vit_reg4_b14 vit_reg8_b14_ap vit_reg4_b14_nps_ls
    vit_reg4_so150m_p16_avg vit_reg8_so150m_p16_swiglu_ap
    vit_reg4_so150m_p14_avg vit_reg4_so150m_p14_ls
    vit_reg4_so150m_p14_ap vit_reg4_so150m_p14_aps vit_reg4_so150m_p14_eps
    vit_reg8_so150m_p14_avg vit_reg8_so150m_p14_swiglu vit_reg8_so150m_p14_swiglu_avg vit_reg8_so150m_p14_ap
    vit_reg4_l32 vit_reg4_l16 vit_reg8_l16_avg vit_reg8_l16_aps
    vit_reg1_l14_nap_avg vit_reg4_l14 vit_reg4_l14_nps_ls vit_reg8_l14_ap vit_reg8_l14_rms_ap
    vit_reg8_so400m_p14_ap
    vit_reg4_h16 vit_reg4_h14 vit_reg4_g16 vit_reg4_g14 vit_reg4_gigantic14
    deit3_t16 deit3_t14 deit3_s16 deit3_s14 deit3_m16 deit3_m14
    deit3_b16 deit3_b14 deit3_l16 deit3_l14 deit3_h16 deit3_h14
    deit3_reg4_t16 deit3_reg4_t14 deit3_reg4_s16 deit3_reg4_s14 deit3_reg4_m16 deit3_reg4_m14
    deit3_reg4_b16 deit3_reg4_b14 deit3_reg4_l16 deit3_reg4_l14 deit3_reg4_h16 deit3_reg4_h14
    vit_s16_soft_moe_32e_4s_avg vit_s14_soft_moe_32e_6s_avg vit_m16_soft_moe_32e_4s_avg
"""
"""All names of plain ViTs. A deit3 is a ViT with other drop paths, ``nps`` and ``ls``."""

_OPTION = "|".join(sorted(OPTIONS, key=len, reverse=True))  # the longest word that fits
_NAME = re.compile(
    rf"(?P<family>[a-z0-9]+)(_reg(?P<registers>\d+))?_(?P<size>[a-z0-9]+?)(_p)?(?P<patch>\d\d)(_({_OPTION}))*"
)


def options_of(name: str) -> dict[str, Any]:
    """The options that a name says, for the configuration."""
    parts = _NAME.fullmatch(name)
    assert parts, f"{name} has parts that SIZES and OPTIONS do not explain"
    size, patch = parts["size"], parts["patch"]
    numbers = SIZES.get(size + patch) or SIZES[size]
    options = {"patch_size": int(patch), **dict(zip(SIZE_OPTIONS, numbers, strict=True))}
    if parts["registers"]:
        options["num_reg_tokens"] = int(parts["registers"])
    words = re.findall(rf"_({_OPTION})(?=_|$)", name[parts.end("patch") :])
    if parts["family"] == "deit3":
        options["drop_path_rate"] = DEIT3_DROP_PATH[size]
        words += ["nps", "ls"]
    for word in words:
        options.update(OPTIONS[word])
    return options
