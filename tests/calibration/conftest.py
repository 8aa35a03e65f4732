"""A small network, and pictures whose labels follow its own opinions, so that the right temperature is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.transforms import classification_transform
from birder.inference.classification import infer_image
from birder.model_file import save_model
from birder.networks import Network, create_network
from birder.signature import rgb_stats
from tests.cli.conftest import birder

__all__ = ["birder"]  # a fixture

NAMES = ("Emu", "Great Tit", "Magpie", "Wren")
COUNT = 300
HEAT = 2.5
"""The temperature at which the network is as sure as it is often right."""


@pytest.fixture(scope="session")
def network() -> Network:
    torch.manual_seed(1)
    net = create_network("convnext_v2_atto", 4, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(net.classifier.weight, std=3)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "birds.safetensors"
    classes = {name: label for label, name in enumerate(NAMES)}
    save_model(path, network, class_to_idx=classes, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture(scope="session")
def data(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of species; what each picture shows is drawn from the network's probabilities at ``HEAT``."""
    folder = tmp_path_factory.mktemp("data")
    for name in NAMES:
        (folder / name).mkdir()
    random = np.random.default_rng(0)
    transform = classification_transform((32, 32), rgb_stats("birder"))
    for number in range(COUNT):
        picture = Image.fromarray(random.integers(0, 255, (3, 3, 3), np.uint8)).resize((32, 32))
        logits = infer_image(network, picture, transform, return_logits=True)[0][0].astype(np.float64) / HEAT
        shares = np.exp(logits - logits.max())
        name = NAMES[random.choice(4, p=shares / shares.sum())]
        picture.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of other things: stripes."""
    folder = tmp_path_factory.mktemp("others")
    random = np.random.default_rng(1)
    for number in range(60):
        stripes = random.integers(0, 255, (32, 1, 3), np.uint8).repeat(32, axis=1)
        Image.fromarray(stripes).save(folder / f"{number}.png")
    return folder
