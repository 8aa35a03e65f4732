"""ConvNeXt v2: its sizes, its start, and what is hidden from it."""

import pytest
import torch
from torch import nn

from birder.errors import ConfigError, UnknownName
from birder.layers.norm import GlobalResponseNorm
from birder.layers.shape import DropPath
from birder.networks import Network, create_network
from birder.networks.convnext_v2 import ConvNeXtV2

SMALL = {"in_channels": (8, 16, 24, 32), "num_layers": (1, 1, 2, 1)}


def small(num_classes: int = 4, **options: object) -> Network:
    return create_network("convnext_v2_atto", num_classes, size=(64, 64), **SMALL, **options)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("convnext_v2_atto", 3.71),
        ("convnext_v2_femto", 5.23),
        ("convnext_v2_pico", 9.07),
        ("convnext_v2_nano", 15.62),
        ("convnext_v2_tiny", 28.64),
        ("convnext_v2_small", 50.32),
        ("convnext_v2_base", 88.72),
        ("convnext_v2_large", 197.96),
        ("convnext_v2_xlarge", 350.45),
        ("convnext_v2_huge", 660.29),
    ],
)
def test_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = create_network(name, 1000)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 2) == millions


def test_stages_have_their_strides() -> None:
    network = small()
    x = torch.randn(1, 3, 64, 96)
    maps = network.detection_features(x)
    assert {name: tuple(features.shape[1:]) for name, features in maps.items()} == {
        "stage1": (8, 16, 24),
        "stage2": (16, 8, 12),
        "stage3": (24, 4, 6),
        "stage4": (32, 2, 3),
    }
    assert torch.equal(maps["stage4"], network.forward_features(x))


def test_norms_have_the_eps_that_the_published_weights_were_trained_with() -> None:
    eps = {name: module.eps for name, module in small().named_modules() if hasattr(module, "eps")}
    assert eps.pop("stem.1") == 1e-5
    assert set(eps.values()) == {1e-6}


def test_it_starts_small_and_unbiased() -> None:
    network = create_network("convnext_v2_atto", 10)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected = 0.02 * (0.001 if name == "classifier" else 1.0)
            error = 5 * expected / (2 * module.weight.numel()) ** 0.5  # of the deviation, 5 sigma
            assert abs(module.weight.std().item() - expected) < error, name
            assert not module.bias.any(), name
        if isinstance(module, GlobalResponseNorm):
            assert not module.gamma.any(), name
            assert not module.beta.any(), name


def test_drop_path_rises_to_the_last_block() -> None:
    rates = [module.rate for module in small(drop_path_rate=0.4).modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_can_be_uniform() -> None:
    network = small(drop_path_rate=0.4, drop_path_uniform=True)
    assert {module.rate for module in network.modules() if isinstance(module, DropPath)} == {0.4}


def test_drop_path_acts_in_training_only() -> None:
    network = small(drop_path_rate=0.5)
    x = torch.randn(8, 3, 64, 64)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@torch.no_grad()
def test_nothing_hidden_is_the_plain_network() -> None:
    network = small().eval()
    x = torch.randn(2, 3, 64, 96)
    for token in (None, torch.randn(1, 1, 1, 8)):
        assert torch.equal(network.encode_masked(x, torch.zeros(2, 6), token), network.forward_features(x))


@torch.no_grad()
def test_what_is_hidden_has_no_influence() -> None:
    network = small().eval()
    x = torch.randn(2, 3, 64, 96)
    mask = torch.zeros(2, 2, 3)
    mask[:, 1, 2] = 1
    changed = x.clone()
    changed[:, :, 32:, 64:] = 7.0
    hidden, hidden_too = (network.encode_masked(image, mask.flatten(1), None) for image in (x, changed))
    assert torch.equal(hidden, hidden_too)
    assert not torch.allclose(hidden, network.forward_features(x))


@torch.no_grad()
def test_the_token_stands_where_the_mask_is() -> None:
    network = small()
    assert isinstance(network, ConvNeXtV2)
    network.body = nn.Sequential()  # what is left is the stem
    x, token = torch.randn(1, 3, 64, 64), torch.arange(8.0).reshape(1, 1, 1, 8)
    stem = network.encode_masked(x, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), token)
    assert torch.equal(stem[0, :, :8, 8:], torch.arange(8.0).reshape(8, 1, 1).expand(8, 8, 8))
    assert torch.equal(stem[:, :, 8:], network.stem(x)[:, :, 8:])


def test_options_of_the_head() -> None:
    assert small(head_bias=False).classifier.bias is None
    hidden = small(mlp_head=True)
    assert hidden(torch.randn(1, 3, 64, 64)).shape == (1, 4)
    assert [type(module) for module in hidden.classifier] == [nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear]


def test_a_typo_in_the_name_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownName, match=r"no network is called 'convnext_v2_tny'; did you mean convnext_v2_tiny"):
        create_network("convnext_v2_tny", 10)


def test_a_typo_in_an_option_is_answered_with_near_options() -> None:
    with pytest.raises(ConfigError, match=r"convnext_v2_tiny.drop_path: no such option; did you mean drop_path_rate"):
        create_network("convnext_v2_tiny", 10, drop_path=0.1)


def test_an_option_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ConfigError, match=r"convnext_v2_tiny.num_layers: expected 4 values, got 3"):
        create_network("convnext_v2_tiny", 10, num_layers=(1, 1, 1))
