"""Pictures of plain colours, and a network that knows them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from birder.model_file import ModelInfo
from birder.networks import Network, create_network
from birder.signature import PRESETS, make_signature

COLOURS = {"Blue": (0, 0, 255), "Green": (0, 255, 0), "Red": (255, 0, 0)}


@pytest.fixture
def network() -> Network:
    """Answers with the brightest channel, at the labels of ``COLOURS``."""

    def forward(images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)).flip(dims=[1]) * 3

    net = create_network("convnext_v2_atto", 3, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    net.forward = forward  # type: ignore[method-assign]
    return net.eval()


@pytest.fixture
def info() -> ModelInfo:
    return ModelInfo({"Blue": 0, "Green": 1, "Red": 2}, make_signature(3, 3, (32, 32)), PRESETS["neutral"], None)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Four blue, one of them unreadable; two green, one of them looking red; no red."""
    folder = tmp_path / "colours"
    for name, shown in {
        "Blue/1": "Blue",
        "Blue/2": "Blue",
        "Blue/4": "Blue",
        "Green/1": "Green",
        "Green/2": "Red",
    }.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), COLOURS[shown]).save(path)
    (folder / "Blue/3.png").write_text("no picture")
    torch.manual_seed(0)
    return folder
