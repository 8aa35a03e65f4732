"""Whether explanations are about what a network has learned: on the bird, and gone with the weights.

Paper: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 3.1, for making weights random from the classifier
down
"""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from birder.explain import explain
from birder.networks import Network, create_network
from tests.explain.scenes import SIZE, SPECIES, Scenes, learned, scenes
from tests.explain.test_explanation import SMALL, made

VIT = {"patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96}
LEARNED: dict[str, tuple[dict[str, Any], int, float]] = {  # options, steps, learning rate
    "regnet_y_200m": (SMALL["RegNet"], 120, 0.01),
    "vit_t16": ({**VIT, "num_layers": 2}, 120, 0.03),
    "vit_parallel_s16_18x2_ls_avg": ({**VIT, "num_layers": 1, "layer_scale_init_value": 1.0}, 120, 0.03),
}
SLOWLY = {
    name: (VIT, 150, 0.03)
    for name in ("vit_s16_avg", "vit_reg1_s16_rms_ls", "vit_parallel_s16_18x2_ls", "vit_reg8_b14_ap")
}
VITS = ["vit_t16", "vit_parallel_s16_18x2_ls_avg", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWLY)]


@cache
def network_of(name: str) -> Network:
    options, steps, lr = {**LEARNED, **SLOWLY}[name]
    network = learned(name, options, steps=steps, lr=lr)
    with torch.no_grad():
        right = network(unseen().images).argmax(dim=1) == unseen().labels
    assert right.float().mean() > 0.8  # or there is nothing to explain
    return network


@cache
def unseen() -> Scenes:
    return scenes(60, "unseen")


def heats(network: Network, count: int = 60) -> list[np.ndarray[Any, Any]]:
    """Explanations of the true species."""
    pairs = zip(unseen().images[:count], unseen().labels[:count], strict=True)
    return [explain(network, image, label=int(label)).heat for image, label in pairs]


@pytest.mark.parametrize("name", VITS)
def test_the_heat_lies_on_the_bird(name: str) -> None:
    """A bird is 9 % of a picture, and covers the middle of every second."""
    birds = unseen().birds
    found = heats(network_of(name))
    hit = [bird.flat[heat.argmax()] for heat, bird in zip(found, birds, strict=True)]
    share = [(heat * bird).sum() / heat.sum() for heat, bird in zip(found, birds, strict=True)]
    middle = birds[:, SIZE // 2, SIZE // 2].mean()
    assert np.mean(hit) > middle + 0.15
    assert np.mean(share) > 4 * birds.mean()


@pytest.mark.parametrize("name", ["regnet_y_200m", *VITS])
def test_random_weights_destroy_what_was_learned(name: str) -> None:
    """The mean of four draws: one of them may look at what is bright, and so at some birds."""
    trained = network_of(name)
    before = heats(trained, 12)
    likeness = np.array(
        [
            [np.mean([*map(rank_correlation, before, heats(one, 12))]) for one in ever_more_random(trained, seed=seed)]
            for seed in range(4)
        ]
    ).mean(axis=0)
    assert abs(likeness[0]) < 0.85  # without the classifier: attention still finds birds, but not what tells them apart
    assert abs(likeness[-1]) < 0.25  # without anything


@pytest.mark.parametrize("name, family", [("convnext_v2_atto", "ConvNeXtV2"), ("pvt_v2_b0", "PVTv2")])
def test_every_part_of_a_network_counts(name: str, family: str) -> None:
    """Of these families, which learn slowly, the weights are random from the start."""
    network = made(name, classes=SPECIES, patches=5)
    images = [torch.randn(3, 5, 6).repeat_interleave(32, 1).repeat_interleave(32, 2) for _ in range(12)]
    before = [explain(network, image, label=0).heat for image in images]
    for one in ever_more_random(network, SMALL[family]):
        after = [explain(one, image, label=0).heat for image in images]
        assert abs(np.mean([*map(rank_correlation, before, after)])) < 0.5


def ever_more_random(network: Network, options: dict[str, Any] | None = None, seed: int = 0) -> Iterator[Network]:
    """Copies with a random classifier, then also a random last block, and so on to the first layer."""
    torch.manual_seed(100 + seed)
    options = {**LEARNED, **SLOWLY}[network.name][0] if options is None else options
    other = create_network(network.name, SPECIES, size=network.size, **options).eval()
    nn.init.normal_(other.classifier.weight, std=float(network.classifier.weight.detach().std()))
    broken = copy.deepcopy(network)
    for part, random in zip(_from_the_top(broken), _from_the_top(other), strict=True):
        part.load_state_dict(random.state_dict())
        yield broken


def _from_the_top(network: Network) -> list[nn.Module]:
    return [network.classifier, *reversed(network.blocks()), network]


def rank_correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Spearman's; 0 where there is no heat."""
    if not (one.any() and other.any()):
        return 0.0
    first, second = (_ranks(heat[::4, ::4].ravel()) for heat in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Places in the order; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def test_the_rank_correlation_itself() -> None:
    heat = np.random.default_rng(0).random((64, 64), np.float32)
    assert rank_correlation(heat, heat**3) == pytest.approx(1)
    assert rank_correlation(heat, 1 - heat) == pytest.approx(-1)
    assert abs(rank_correlation(heat, heat[::-1])) < 0.2
