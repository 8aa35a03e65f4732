"""Drawn birds that are small in their picture and anywhere in it, and networks that have learned to tell them apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from birder.data.drawn import DrawnBirds
from birder.data.drawn.backdrop import backdrop
from birder.data.drawn.chance import generator
from birder.data.drawn.plumage import paint
from birder.data.drawn.pose import strike_pose
from birder.networks import Network, create_network
from birder.training.optim import make_optimizers
from birder.training.recipe import Optim

SIZE = 64
SPECIES = 3
_BIRD = 36  # height and width that it fits into
_TILES = 10  # of each species


@dataclass(frozen=True)
class Scenes:
    """N pictures of one bird each."""

    images: Tensor
    """(N, 3, SIZE, SIZE), normalised."""
    labels: Tensor
    """(N,)."""
    birds: np.ndarray[Any, np.dtype[np.bool_]]
    """(N, SIZE, SIZE), where the bird is."""


def scenes(count: int, split: str) -> Scenes:
    """So many pictures; those of different splits have other birds of the same species."""
    rng = generator(0, split)
    species = DrawnBirds(families=SPECIES, species=SPECIES, difficulty=0.0, size=(SIZE, SIZE)).species_list
    tiles = [
        [paint(one, strike_pose(one.shape, "branch", rng), (_BIRD, _BIRD), rng).image for _ in range(_TILES)]
        for one in species
    ]
    images, masks = [], []
    labels = [number % SPECIES for number in range(count)]
    for label in labels:
        tile = tiles[label][int(rng.integers(_TILES))]
        place = tuple(int(rng.integers(SIZE - side)) for side in tile.size)
        picture, mask = backdrop("branch", (SIZE, SIZE), 0.5, 0.5, rng), Image.new("L", (SIZE, SIZE))
        picture.paste(tile, place, tile)
        mask.paste(tile.getchannel("A"), place)
        images.append(np.asarray(picture))
        masks.append(np.asarray(mask) > 127)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return Scenes(images=pixels / 64 - 2, labels=torch.tensor(labels), birds=np.stack(masks))


def learned(name: str, options: dict[str, Any], *, steps: int, lr: float = 2e-3) -> Network:
    """A small network that has learned the birds, in evaluation mode."""
    torch.manual_seed(0)
    network = create_network(name, SPECIES, size=(SIZE, SIZE), **options)
    known = scenes(512, "known")
    optimisers = make_optimizers(
        network.train(), network, Optim(name="muon" if name.startswith("vit") else "adamw", lr=lr)
    )
    for step in range(steps):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = lr * min(1.0, (step + 1) / 10) * (1 - step / steps)
        batch = torch.randint(len(known.labels), (32,))
        network.zero_grad()
        F.cross_entropy(network(known.images[batch]), known.labels[batch]).backward()
        for optimiser in optimisers:
            optimiser.step()
    network.zero_grad()
    return network.eval()
