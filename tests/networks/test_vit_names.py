"""The names of all vision transformers, and what each stands for, as recorded."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from birder.networks import networks
from birder.networks.vit_names import OPTIONS, SIZES, VIT, options_of


@pytest.mark.parametrize("family", ["ViT", "ViT_Parallel"])
def test_names_and_options_are_those_recorded(shared: Path, family: str) -> None:
    text = (shared / "spec" / "registered_networks.json").read_text(encoding="utf-8")
    recorded = {name: row for name, row in json.loads(text).items() if row["family"] == family}
    ours = {name: (cls, config) for name, (cls, config) in networks.items() if cls.__name__ == family.replace("_", "")}
    assert list(ours) == list(recorded)
    for name, (cls, config) in ours.items():
        assert asdict(config) == asdict(type(config)(**recorded[name]["config"])), name
        assert list(cls.default_size) == recorded[name]["default_size"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_b32_pn_npn", {"patch_size": 32, "drop_path_rate": 0.0, "pre_norm": True, "post_norm": False}),
        ("vit_1b_p16", {"patch_size": 16, "hidden_dim": 1536}),
        ("vit_gigantic14", {"patch_size": 14, "hidden_dim": 1664}),
        ("vit_reg8_so150m_p14_swiglu_avg", {"num_reg_tokens": 8, "mlp_layer_type": "SwiGLU_FFN", "class_token": False}),
        ("vit_b16_nf_swiglu", {"attn_norm": True, "mlp_layer_type": "Norm_SwiGLU_FFN"}),
        ("vit_b16_pn_quick_gelu", {"act_layer_type": "quick_gelu", "norm_layer_eps": 1e-5}),
        ("deit3_reg4_l14", {"drop_path_rate": 0.45, "layer_scale_init_value": 1e-5, "pos_embed_special_tokens": False}),
    ],
)
def test_a_name_says_its_options(name: str, options: dict[str, Any]) -> None:
    said = options_of(name)
    assert {key: said.get(key) for key in options} == options


@pytest.mark.parametrize("name", ["vit_x16", "vit_b16_", "vit_b16_pm", "vit_b", "vit_b16_nf", "b16"])
def test_other_words_mean_nothing(name: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        options_of(name)


def test_every_word_is_used() -> None:
    words = VIT.split()
    assert len(words) == len(set(words)) == 127
    assert not [word for word in OPTIONS if not any(f"_{word}_" in f"{name}_" for name in words)]
    assert not [size for size in SIZES if not any(f"_{size}" in name for name in words)]
