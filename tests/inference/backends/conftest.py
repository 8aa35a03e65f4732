"""A small network of each family, none of whose weights is zero, and pictures for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from birder.data.fitting import Pixels, normalized
from birder.networks import Network, create_network
from birder.signature import rgb_stats

FAMILIES: dict[str, dict[str, Any]] = {
    "convnext_v2_atto": {"in_channels": (8, 16, 24, 32), "num_layers": (1, 1, 1, 1)},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1)},
    "regnet_y_200m": {},
    "vit_t16": {"num_layers": 2},
    "vit_parallel_s16_18x2_ls_avg": {"num_layers": 2},
}
SIZE = (64, 64)
STATS = rgb_stats("birder")
MOST = 5
"""Batch size of the backends."""

Build = Callable[..., Network]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build() -> Build:
    """Makes the small network of a family."""

    def network(family: str = "convnext_v2_atto", classes: int = 7) -> Network:
        torch.manual_seed(0)
        made = create_network(family, classes, size=SIZE, **FAMILIES[family])
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.02)
        return made

    return network


@pytest.fixture
def pictures() -> Pixels:
    """uint8 (B, H, W, 3)."""
    return np.random.default_rng(1).integers(0, 256, (MOST, *SIZE, 3), np.uint8)


@pytest.fixture
def images(pictures: Pixels) -> Tensor:
    """The same, as the network takes them."""
    return torch.from_numpy(normalized(pictures, STATS))
