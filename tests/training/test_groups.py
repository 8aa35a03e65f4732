"""The groups of an optimiser: what each weight is, and how deep it lies.

What is expected of each network stands in ``tests/golden/groups``, one parameter a line: depth, kind, name. The files
were written by ``python tests/training/test_groups.py``, and read line by line.
"""

from pathlib import Path

import pytest
import torch
from torch import nn

from birder.networks import create_network
from birder.training.groups import depths, kinds, layer_scales, parameter_groups
from birder.training.recipe import Optim

GROUPS = Path(__file__).resolve().parents[1] / "golden" / "groups"
TINY_VIT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
EXPERTS = {"mlp_layer_type": "SoftMoE_FFN", "soft_moe_num_experts": 1, "soft_moe_num_slots": 2}
NETWORKS = {
    "convnext_v2_atto": {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 2)},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 40, 64)},
    "regnet_y_200m": {"depth": 4, "w_0": 8, "w_a": 16.0, "w_m": 1.65},
    "vit_reg4_b16": {**TINY_VIT, **EXPERTS, "layer_scale_init_value": 0.1, "attn_pool_head": True},
    "vit_parallel_s16_18x2_ls": {**TINY_VIT, "num_layers": 1},
}


def tiny(name="convnext_v2_atto"):
    return create_network(name, 3, size=(32, 32), **NETWORKS[name])


def lines(network):
    """Depth, kind and name of each parameter."""
    depth, kind = depths(network), kinds(network)
    return [f"{depth[weight]} {kind[weight]} {name}" for name, weight in network.named_parameters()]


def by_name(module, groups):
    """The group of each parameter."""
    names = {weight: name for name, weight in module.named_parameters()}
    return {names[weight]: group for group in groups for weight in group["params"]}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_is_of_the_kind_and_as_deep_as_it_should_be(name):
    assert lines(tiny(name)) == (GROUPS / f"{name}.txt").read_text().splitlines()


class Odd(nn.Module):
    """Weights whose shape alone would deceive."""

    def __init__(self):
        super().__init__()
        self.one_class = nn.Linear(8, 1)
        self.one_channel = nn.Conv2d(1, 1, kernel_size=1)
        self.wide_norm = nn.LayerNorm((4, 4))
        self.position_embedding = nn.Embedding(4, 8)
        self.words = nn.Embedding(4, 8)
        self.token_mixer = nn.Linear(4, 4)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.rel_pos_h = nn.Parameter(torch.zeros(3, 8))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, 8))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.gamma = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3, 8))
        self.projection = nn.Parameter(torch.zeros(8, 8))


def test_type_and_name_decide_before_the_shape():
    module = Odd()
    names = {weight: name for name, weight in module.named_parameters()}
    found = {}
    for weight, kind in kinds(module).items():
        found.setdefault(kind, set()).add(names[weight])
    assert found["matrix"] == {
        "one_class.weight",
        "one_channel.weight",
        "words.weight",
        "token_mixer.weight",
        "projection",
    }
    assert found["token"] == {
        "position_embedding.weight",
        "decoder_pos_embed",
        "relative_position_bias_table",
        "rel_pos_h",
        "cls_token",
        "mask_token",
    }
    assert found["vector"] == set(names.values()) - found["matrix"] - found["token"]


def test_each_kind_has_its_decay():
    network = tiny("vit_reg4_b16")
    groups = parameter_groups(network, network, Optim(weight_decay=0.3, vector_decay=0.2, token_decay=0.1))
    assert [group["kind"] for group in groups] == ["matrix", "token", "vector"]
    assert {group["scale"] for group in groups} == {1.0}
    kind = {name: kind for _, kind, name in (line.split() for line in lines(network))}
    for name, group in by_name(network, groups).items():
        assert group["weight_decay"] == {"matrix": 0.3, "vector": 0.2, "token": 0.1}[kind[name]]


def test_there_are_no_empty_groups():
    network = tiny()
    assert [group["kind"] for group in parameter_groups(network, network, Optim())] == ["matrix", "vector"]
    network.freeze()
    network.classifier.bias.requires_grad_(False)
    (group,) = parameter_groups(network, network, Optim())
    assert group["params"] == [network.classifier.weight]


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_trained_weight_is_in_one_group(layer_decay):
    network = tiny()
    network.freeze(1)
    groups = parameter_groups(network, network, Optim(layer_decay=layer_decay))
    held = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in network.parameters() if weight.requires_grad)


def test_a_tensor_with_two_names_counts_once():
    network = tiny()
    objective = nn.ModuleDict({"network": network, "again": network.classifier, "tied": nn.Linear(16, 3)})
    objective["tied"].weight = network.classifier.weight
    held = [id(weight) for group in parameter_groups(objective, network, Optim()) for weight in group["params"]]
    assert sorted(held) == sorted({id(weight) for weight in objective.parameters()})


def test_the_learning_rate_falls_from_the_head_to_the_stem():
    network = tiny()  # five blocks, so seven depths
    groups = by_name(network, parameter_groups(network, network, Optim(layer_decay=0.8, layer_decay_min=0.35)))
    for line in lines(network):
        depth, _, name = line.split()
        assert groups[name]["scale"] == pytest.approx(max(0.35, 0.8 ** (6 - int(depth))))
    assert groups["stem.0.weight"]["scale"] == 0.35
    assert groups["classifier.weight"]["scale"] == 1.0
    assert set(layer_scales(network, Optim()).values()) == {1.0}


def test_what_an_objective_adds_learns_at_the_full_rate():
    network = tiny()
    objective = nn.ModuleDict({"head": nn.Linear(16, 8), "network": network})
    groups = by_name(objective, parameter_groups(objective, network, Optim(layer_decay=0.5)))
    assert groups["head.weight"]["scale"] == groups["network.classifier.weight"]["scale"] == 1.0
    assert groups["network.body.stage4.2.block.0.weight"]["scale"] == 0.5
    assert groups["head.weight"] is groups["network.classifier.weight"]


@pytest.mark.parametrize(("layer_decay", "least"), [(0.65, 0.0), (0.65, 0.2), (1.0, 0.0)])
def test_a_vit_of_timm_gets_the_groups_of_timm(layer_decay, least):
    """But for its final norm, which timm lets learn as the last block does, where BEiT and we take it to the head."""
    pytest.importorskip("timm")
    from timm.models.vision_transformer import VisionTransformer
    from timm.optim import param_groups_layer_decay

    class OnTop(nn.Module):
        """Our contract for a network of theirs."""

        def __init__(self, vit):
            super().__init__()
            self.vit = vit

        def blocks(self):
            return list(self.vit.blocks)

    vit = VisionTransformer(
        img_size=32, num_classes=3, embed_dim=16, depth=5, num_heads=2, init_values=0.1, reg_tokens=2
    )
    tokens = {"cls_token", "reg_token", "pos_embed"}
    theirs = param_groups_layer_decay(vit, 0.05, no_weight_decay_list=tokens, layer_decay=layer_decay, min_scale=least)
    options = Optim(weight_decay=0.05, layer_decay=layer_decay, layer_decay_min=least)
    found = by_name(vit, parameter_groups(OnTop(vit), OnTop(vit), options))
    expected = by_name(vit, theirs)
    assert found.keys() == expected.keys()
    for name, group in found.items():
        assert group["weight_decay"] == expected[name]["weight_decay"], name
        scale = 1.0 if name.startswith("norm.") else expected[name]["lr_scale"]
        assert group["scale"] == pytest.approx(scale), name


if __name__ == "__main__":
    for name in NETWORKS:
        (GROUPS / f"{name}.txt").write_text("\n".join(lines(tiny(name))) + "\n")
