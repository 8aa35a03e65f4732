"""A small network with decided opinions, and a folder of pictures good and bad."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.model_file import ModelInfo
from birder.networks import Network, create_network
from birder.signature import make_signature, rgb_stats

NAMES = ("Wren", "Great Tit", "Magpie", "Snowy Owl", "Emu")


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    net = create_network(
        "convnext_v2_atto", 5, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1), drop_path_rate=0.5
    )
    torch.nn.init.normal_(net.classifier.weight)
    return net.eval()


@pytest.fixture
def info() -> ModelInfo:
    return ModelInfo(
        {name: label for label, name in enumerate(NAMES)}, make_signature(5, 3, (32, 32)), rgb_stats("birder"), None
    )


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Seven files; the second, the fifth and the last cannot be read."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(4):
        picture = Image.fromarray(random.integers(0, 255, (40 + 10 * number, 60, 3), np.uint8))
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    return [paths[0], tmp_path / "cut.png", paths[1], paths[2], tmp_path / "text.jpg", paths[3], tmp_path / "no.jpg"]
