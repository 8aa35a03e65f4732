"""RegNet: its widths, torchvision's numbers, its start, and what is hidden from it."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.conv import SqueezeExcite
from birder.networks import Network, create_network, list_networks, networks
from birder.networks.regnet import RegNet, divisible, stage_widths

SMALL: dict[str, Any] = {"depth": 6, "w_0": 8, "w_a": 8.0, "w_m": 2.0}

# Blocks and widths of the stages, from the tables of the paper; 8g of X is the only one with a group that is cut.
STAGES = {
    "regnet_x_200m": ((1, 1, 4, 7), (24, 56, 152, 368)),
    "regnet_x_400m": ((1, 2, 7, 12), (32, 64, 160, 400)),
    "regnet_x_600m": ((1, 3, 5, 7), (48, 96, 240, 528)),
    "regnet_x_800m": ((1, 3, 7, 5), (64, 128, 288, 672)),
    "regnet_x_1_6g": ((2, 4, 10, 2), (72, 168, 408, 912)),
    "regnet_x_3_2g": ((2, 6, 15, 2), (96, 192, 432, 1008)),
    "regnet_x_4g": ((2, 5, 14, 2), (120, 240, 560, 1360)),
    "regnet_x_6_4g": ((2, 4, 10, 1), (168, 392, 784, 1624)),
    "regnet_x_8g": ((2, 5, 15, 1), (80, 240, 720, 1920)),
    "regnet_x_12g": ((2, 5, 11, 1), (224, 448, 896, 2240)),
    "regnet_x_16g": ((2, 6, 13, 1), (256, 512, 896, 2048)),
    "regnet_x_32g": ((2, 7, 13, 1), (336, 672, 1344, 2520)),
    "regnet_y_200m": ((1, 1, 4, 7), (24, 56, 152, 368)),
    "regnet_y_400m": ((1, 3, 6, 6), (48, 104, 208, 440)),
    "regnet_y_600m": ((1, 3, 7, 4), (48, 112, 256, 608)),
    "regnet_y_800m": ((1, 3, 8, 2), (64, 144, 320, 784)),
    "regnet_y_1_6g": ((2, 6, 17, 2), (48, 120, 336, 888)),
    "regnet_y_3_2g": ((2, 5, 13, 1), (72, 216, 576, 1512)),
    "regnet_y_4g": ((2, 6, 12, 2), (128, 256, 512, 1088)),
    "regnet_y_6_4g": ((2, 7, 14, 2), (144, 288, 576, 1296)),
    "regnet_y_8g": ((2, 4, 10, 1), (224, 448, 896, 2016)),
    "regnet_y_12g": ((2, 5, 11, 1), (224, 448, 896, 2240)),
    "regnet_y_16g": ((2, 4, 11, 1), (224, 448, 1232, 3024)),
    "regnet_y_32g": ((2, 5, 12, 1), (232, 696, 1392, 3712)),
    "regnet_y_64g": ((2, 5, 12, 1), (328, 984, 1968, 4920)),
    "regnet_y_128g": ((2, 7, 17, 1), (528, 1056, 2904, 7392)),
}


def small(name: str = "regnet_y_200m", num_classes: int = 4, **options: Any) -> RegNet:
    network = create_network(name, num_classes, size=(64, 64), **{**SMALL, **options})
    assert isinstance(network, RegNet)
    return network


@torch.no_grad()
def lively(network: Network) -> Network:
    """In evaluation mode, with norms that are not those of the start, and with the statistics of some pictures."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(std=0.2)
        norm.momentum = None  # the plain average
    network.train()(pictures(8, 64, 64))
    return network.eval()


def pictures(*shape: int) -> Tensor:
    """Noise, of another colour in each."""
    count, height, width = shape
    return torch.randn(count, 3, height, width) + 2 * torch.randn(count, 3, 1, 1)


def test_all_are_here() -> None:
    assert list_networks("regnet_[xy]_*") == list(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_widths_and_blocks_of_the_paper(name: str) -> None:
    stages = stage_widths(networks[name][1])
    depths, widths = STAGES[name]
    assert stages == list(zip(widths, depths, strict=True))
    assert networks[name][1].se_ratio == (0.25 if "_y_" in name else 0.0)


def test_the_nearest_multiple_but_not_far_below() -> None:
    assert [divisible(width, 8) for width in (3, 8, 11, 12, 84)] == [8, 8, 16, 16, 88]  # 8 is below 0.9 * 11
    assert [divisible(width, 56) for width in (224, 251, 252, 253, 2016)] == [224, 280, 280, 280, 2016]


def test_groups_are_cut_to_the_width_and_gates_follow_the_input() -> None:
    with torch.device("meta"):
        network = create_network("regnet_x_8g", 10)
        gated = create_network("regnet_y_8g", 10)
    convs = [block.f.block[1][0] for block in network.blocks()]
    assert {(conv.out_channels, conv.out_channels // conv.groups) for conv in convs} == {
        (80, 80), (240, 120), (720, 120), (1920, 120)
    }  # fmt: skip
    assert not [module for module in network.modules() if isinstance(module, SqueezeExcite)]
    gates = [module.fc1.out_channels for module in gated.modules() if isinstance(module, SqueezeExcite)]
    assert gates == [8, 56, 56, 112, 112, 112, 112, *[224] * 10]


def torchvision_name(name: str) -> str:
    """The word for one of our weights in torchvision."""
    name = re.sub(r"^body\.stage(\d)\.block\.(\d+)", r"trunk_output.block\1.block\1-\2", name)
    for place, letter in (("0", "a"), ("1", "b"), ("2", "se"), ("3", "c")):
        name = name.replace(f".f.block.{place}.", f".f.{letter}.")
    return name.replace("classifier", "fc")


@torch.no_grad()
@pytest.mark.parametrize("name", ["regnet_x_400m", "regnet_y_400m", "regnet_y_800m"])
def test_torchvision_gives_the_same_numbers(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    network = lively(create_network(name, 1000))
    other = models.get_model(f"{name}f").eval()
    other.load_state_dict({torchvision_name(key): tensor for key, tensor in network.state_dict().items()})
    x = pictures(2, 64, 72)
    expected, logits = other(x), network(x)
    assert expected.std(dim=0).mean() > 0.1 * expected.std()  # the pictures differ
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.std().item())


@pytest.mark.parametrize("size", [(32, 32), (40, 72), (33, 65)])
def test_sizes_are_halved_and_rounded_up(size: tuple[int, int]) -> None:
    network = small()
    maps = network.detection_features(torch.randn(2, 3, *size))
    assert {name: tuple(features.shape[1:]) for name, features in maps.items()} == {
        f"stage{number}": (width, -(-size[0] // 2 ** (number + 1)), -(-size[1] // 2 ** (number + 1)))
        for number, width in enumerate((8, 16, 32, 64), start=1)
    }


def test_it_starts_so_that_gradients_keep_their_size() -> None:
    network = create_network("regnet_y_400m", 1000)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_out = module.weight[0, 0].numel() * module.weight.shape[0]
            expected = math.sqrt(2 / fan_out) if isinstance(module, nn.Conv2d) else 0.01
            error = 5 * expected / (2 * module.weight.numel()) ** 0.5  # of the deviation, 5 sigma
            assert abs(module.weight.std().item() - expected) < error, name
            assert module.bias is None or not module.bias.any(), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert bool((module.weight == 1).all()), name


@torch.no_grad()
def test_memory_with_channels_last_gives_the_same() -> None:
    network = lively(small())
    x = torch.randn(2, 3, 64, 96)
    expected = network(x)
    last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_token_stands_where_the_mask_is() -> None:
    network = lively(small())
    network.body = nn.Sequential()  # what is left is the stem
    x, token = torch.randn(1, 3, 64, 64), torch.arange(32.0).reshape(1, 1, 1, 32)
    stem = network.encode_masked(x, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), token)
    assert torch.equal(stem[0, :, :16, 16:], torch.arange(32.0).reshape(32, 1, 1).expand(32, 16, 16))
    assert torch.equal(stem[:, :, 16:], network.stem(x)[:, :, 16:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 2}, r"regnet_y_200m.depth: a RegNet has 4 stages, and depth 2, .* make 2, of width 8, 16"),
        ({"w_a": 0.0}, r"depth: a RegNet has 4 stages, and depth 6, w_0 8, w_a 0 and w_m 2 make 1, of width 8"),
        ({"w_a": -1.0}, r"w_a: must be in 0 to 10000, not -1"),
        ({"w_0": 4}, r"w_0: must be in 8 to 10000, not 4"),
        ({"w_m": 1.0}, r"w_m: must be in 1.01 to 100, not 1.0"),
        ({"w_m": float("nan")}, r"w_m: must be in 1.01 to 100, not nan"),
        ({"group_width": 0}, r"group_width: must be in 1 to 10000, not 0"),
        ({"se_ratio": 1.5}, r"se_ratio: must be in 0 to 1, not 1.5"),
        ({"drop_path_rate": 0.1}, r"drop_path_rate: no such option"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)
