"""Published models as networks, by name."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import birder
from birder.errors import ConfigError, UnknownName
from birder.hub.load import load_pretrained_model, load_pretrained_model_and_transform
from birder.model_file import save_model
from birder.networks import Network, create_network
from birder.signature import rgb_stats
from tests.loopback import add_to_catalogue

SMALL = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}


@pytest.fixture
def network() -> Network:
    return create_network("convnext_v2_atto", 3, size=(32, 32), **SMALL).eval()


@pytest.fixture
def wren(home: Path, network: Network) -> Path:
    """The file of the published model ``wren``, placed by hand."""
    (home / "models").mkdir(parents=True)
    path = home / "models" / "wren.pt"
    save_model(path, network, class_to_idx={"a": 0, "b": 1, "c": 2}, rgb_stats=rgb_stats("imagenet"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    add_to_catalogue(home, "wren", sha256=digest, mib=path.stat().st_size / 2**20, url="https://example.org")
    return path


@pytest.mark.parametrize("weights", [lambda path: "wren", str, Path], ids=["name", "text", "Path"])
def test_a_name_and_a_path_give_the_same(weights: Callable[[Path], str | Path], wren: Path, network: Network) -> None:
    net, info = load_pretrained_model(weights(wren), inference=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(x), network(x))
    assert info.class_to_idx == {"a": 0, "b": 1, "c": 2}
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())


def test_it_is_there_to_be_trained_unless_told_otherwise(wren: Path) -> None:
    net, _ = birder.load_pretrained_model("wren")
    assert net.training and all(weight.requires_grad for weight in net.parameters())


def test_options(wren: Path) -> None:
    net, info = load_pretrained_model(
        "wren", dtype=torch.bfloat16, device="cpu", new_size=(64, 96), custom_config={"drop_path_rate": 0.25}
    )
    assert net.size == (64, 96)
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    assert net(torch.randn(2, 3, 64, 96, dtype=torch.bfloat16)).shape == (2, 3)
    assert info.custom_config is not None and info.custom_config["drop_path_rate"] == 0.25


def test_a_place_of_ones_own(wren: Path, tmp_path: Path) -> None:
    wren.rename(tmp_path / "mine.pt")
    net, _ = load_pretrained_model("wren", dst=tmp_path / "mine.pt", progress_bar=False)
    assert net.num_classes == 3


def test_another_form(wren: Path, home: Path, network: Network) -> None:
    path = home / "models" / "emu.safetensors"
    save_model(path, network, class_to_idx={"a": 0, "b": 1, "c": 2}, rgb_stats=rgb_stats("imagenet"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    add_to_catalogue(home, "emu", sha256=digest, mib=0.1, url="https://example.org", file_format="safetensors")
    x = torch.randn(1, 3, 32, 32)
    for file_format in ("safetensors", None):
        assert torch.equal(load_pretrained_model("emu", file_format=file_format, inference=True)[0](x), network(x))
    with pytest.raises(ConfigError, match="emu is published as safetensors, not as 'pt'"):
        load_pretrained_model("emu", file_format="pt")


def test_with_its_transform(wren: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (50, 40), (10, 200, 30))
    net, info, transform = birder.load_pretrained_model_and_transform("wren")
    assert torch.equal(transform(image), birder.classification_transform((32, 32), info.rgb_stats)(image))
    assert not net.training
    options = {"center_crop": 0.8, "simple_crop": True}
    _, _, other = load_pretrained_model_and_transform("wren", inference=False, classification_kwargs=options)
    assert torch.equal(other(image), birder.classification_transform((32, 32), info.rgb_stats, **options)(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"naflex": True}, "naflex: pictures in their own proportions are not supported yet"),
        ({"detection_kwargs": {}}, "detection_kwargs: models for object_detection are not supported yet"),
    ],
)
def test_what_is_not_supported_yet(options: dict[str, Any], message: str, wren: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pretrained_model_and_transform("wren", **options)


def test_an_unknown_name(wren: Path) -> None:
    with pytest.raises(UnknownName, match=r"no published model is called 'wrenn', and no file; did you mean wren\?"):
        birder.load_pretrained_model("wrenn")
