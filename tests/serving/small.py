"""A small model with decided opinions, and drawn birds as the bytes of files."""

import io
from pathlib import Path

import torch

from birder.data.drawn.birds import DrawnBirds
from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats

SPECIES = ("Wren", "Great Tit", "Magpie", "Snowy Owl", "Emu")
_TINY = {"size": (32, 32), "in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
_BIRDS = DrawnBirds(size=(64, 64))


def small_model(folder: Path) -> Path:
    """A model file in a folder, named model.safetensors."""
    torch.manual_seed(1)
    network = create_network("convnext_v2_atto", len(SPECIES), **_TINY)
    torch.nn.init.normal_(network.get_parameter("classifier.weight"))
    path = folder / "model.safetensors"
    save_model(path, network, class_to_idx={name: i for i, name in enumerate(SPECIES)}, rgb_stats=rgb_stats("birder"))
    return path


def bird(number: int) -> bytes:
    """A JPEG of a drawn bird; each number is another one."""
    file = io.BytesIO()
    _BIRDS.draw(number % _BIRDS.species, number // _BIRDS.species).image.save(file, "JPEG")
    return file.getvalue()
