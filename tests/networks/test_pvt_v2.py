"""PVT v2: its sizes, timm's numbers, what older files mean, its start, and what is hidden from it."""

import itertools
import re
from typing import Any

import pytest
import torch
from torch import nn

from birder.errors import ConfigError
from birder.layers.shape import DropPath
from birder.networks import Network, create_network, list_networks
from birder.networks.pvt_v2 import PVTv2

SMALL: dict[str, Any] = {
    "depths": (1, 1, 2, 1),
    "embed_dims": (8, 16, 20, 32),
    "mlp_ratios": (2.0, 2.0, 2.0, 2.0),
    "drop_path_rate": 0.0,
}

MILLIONS = {
    "pvt_v2_b0_li": 3.39,
    "pvt_v2_b0": 3.67,
    "pvt_v2_b1_li": 12.91,
    "pvt_v2_b1": 14.01,
    "pvt_v2_b2_li": 22.55,
    "pvt_v2_b2": 25.36,
    "pvt_v2_b3_li": 38.74,
    "pvt_v2_b3": 45.24,
    "pvt_v2_b4": 62.56,
    "pvt_v2_b5": 81.96,
}


def small(name: str = "pvt_v2_b0", num_classes: int = 4, **options: Any) -> PVTv2:
    network = create_network(name, num_classes, size=(64, 64), **{**SMALL, **options})
    assert isinstance(network, PVTv2)
    return network


@torch.no_grad()
def lively(network: Network, scale: float = 1.0) -> Network:
    """In evaluation mode, with norms and biases that are not those of the start, and all weights scaled."""
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            weight.mul_(4)
        else:
            weight.uniform_(0.5, 1.5) if name.endswith("weight") else weight.normal_(std=0.1)
        weight.mul_(scale)
    return network.eval()


def test_all_are_here() -> None:
    assert list_networks("pvt_v2_*") == list(MILLIONS)


@pytest.mark.parametrize("name", MILLIONS)
def test_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = create_network(name, 1000)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6, 2) == MILLIONS[name]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_timm_gives_the_same_numbers(name: str, size: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    network = lively(create_network(name, 10, norm_eps=1e-3, stage_norm_eps=1e-2))
    other = timm.create_model(name, num_classes=10).eval()
    for path, module in other.named_modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-2 if re.fullmatch(r"stages\.\d\.norm", path) else 1e-3
    other.load_state_dict({timm_name(key): tensor for key, tensor in network.state_dict().items()})
    x = torch.randn(2, 3, *size)
    expected, logits = other(x), network(x)
    assert expected.std(dim=0).mean() > 0.1 * expected.std()  # the pictures differ
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.std().item())


def timm_name(name: str) -> str:
    """The word for one of our weights in timm."""
    name = re.sub(r"^body\.stage(\d)", lambda match: f"stages.{int(match[1]) - 1}", name)
    return name.replace("classifier", "head")


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (40, 72), (33, 65)])
def test_sizes_are_halved_and_rounded_up(size: tuple[int, int], linear: bool) -> None:
    maps = small(linear=linear).detection_features(torch.randn(2, 3, *size))
    assert {name: tuple(features.shape[1:]) for name, features in maps.items()} == {
        f"stage{number}": (width, -(-size[0] // 2 ** (number + 1)), -(-size[1] // 2 ** (number + 1)))
        for number, width in enumerate((8, 16, 20, 32), start=1)
    }
    assert all(features.isfinite().all() for features in maps.values())


def eps_of(network: Network) -> tuple[set[float], set[float]]:
    """Eps of all layer norms but those at the ends of stages, and of these."""
    norms = {name: module.eps for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}
    ends = {norms.pop(f"body.{stage}.norm") for stage in network.stages}
    return set(norms.values()), ends


def test_older_files_have_other_norms() -> None:
    assert eps_of(create_network("pvt_v2_b0", 4)) == ({1e-6}, {1e-6})
    before_4, before_7 = PVTv2.older
    assert (before_4.before, before_7.before) == ((0, 4), (0, 7))
    assert eps_of(small(**before_4.options)) == ({1e-5}, {1e-5})
    assert eps_of(small(**before_7.options)) == ({1e-6}, {1e-5})


@torch.no_grad()
def test_the_norms_of_older_files_make_other_numbers() -> None:
    today = lively(small(), scale=2**-4)  # small weights make small maps, where eps counts
    x = torch.randn(2, 3, 64, 64)
    embeddings = [today.embedding(x)]
    for row in PVTv2.older:
        network = small(**row.options).eval()
        network.load_state_dict(today.state_dict())
        embeddings.append(network.embedding(x))
    for one, other in itertools.combinations(embeddings, 2):
        assert (one - other).abs().max() > 1e-3 * one.std()


def test_it_starts_small_and_unbiased() -> None:
    for name, module in create_network("pvt_v2_b0", 100).named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            expected = fan_in**-0.5 if isinstance(module, nn.Conv2d) else 0.02
            error = 5 * expected / (2 * module.weight.numel()) ** 0.5  # of the deviation, 5 sigma
            assert abs(module.weight.std().item() - expected) < error, name
            assert not module.bias.any(), name


def test_drop_path_rises_to_the_last_block() -> None:
    rates = [module.rate for module in small(drop_path_rate=0.4).modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_acts_in_training_only() -> None:
    network = small(drop_path_rate=0.5)
    x = torch.randn(8, 3, 64, 64)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@torch.no_grad()
@pytest.mark.parametrize("linear", [False, True])
def test_memory_with_channels_last_gives_the_same(linear: bool) -> None:
    network = lively(small(linear=linear))
    x = torch.randn(2, 3, 64, 96)
    expected = network(x)
    last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_token_stands_where_the_mask_is() -> None:
    network = small()
    network.body = nn.Sequential()  # what is left is the patch embedding
    x, token = torch.randn(1, 3, 64, 64), torch.arange(8.0).reshape(1, 1, 1, 8)
    stem = network.encode_masked(x, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), token)
    assert torch.equal(stem[0, :, :8, 8:], torch.arange(8.0).reshape(8, 1, 1).expand(8, 8, 8))
    assert torch.equal(stem[:, :, 8:], network.patch_embed(x)[:, :, 8:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dims": (8, 16, 24, 32)}, r"pvt_v2_b0.embed_dims: must be multiples of the heads, \(1, 2, 5, 8\), not"),
        ({"embed_dims": (8, 16, 32)}, r"embed_dims: expected 4 values, got 3"),
        ({"depths": (1, 1, 0, 1)}, r"depths: must be 1 or more, and embed_dims: \(1, 1, 0, 1\)"),
        ({"mlp_ratios": (2.0, 2.0, 0.0, 2.0)}, r"mlp_ratios: times embed_dims, must be 1 or more, not"),
        ({"mlp_ratios": (2.0, 2.0, float("inf"), 2.0)}, r"mlp_ratios: times embed_dims, must be 1 or more, not"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate: must be in 0 to 0.99, not 1.0"),
        ({"norm_eps": -1e-6}, r"norm_eps: must be in 0 to 1, not -1e-06"),
        ({"stage_norm_eps": 2}, r"stage_norm_eps: must be in 0 to 1, not 2"),
        ({"sr_ratio": 8}, r"sr_ratio: no such option"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


@pytest.mark.parametrize("size", [(31, 64), (64, 16), (64.0, 64)])
def test_sizes_that_leave_nothing_to_attend_to_are_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"size must be \(height, width\), 32 pixels or more each, not"):
        small().adjust_size(size)
