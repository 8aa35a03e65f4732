"""Run by torchrun in test_prototypes: some steps of DINO or iBOT, whatever the number of processes."""

import json
import sys
from typing import Any

import torch
from torch import Tensor

from birder.distributed import added, primary, processes, rank, world_size
from birder.objectives.base import Batch
from birder.objectives.configs import DINOConfig, IBOTConfig
from birder.objectives.dino import DINO
from birder.objectives.ibot import IBOT
from birder.testing import small_vit
from birder.training.engine import Engine
from birder.training.parallel import prepared
from birder.training.recipe import Optim, Recipe, Run

CPU = torch.device("cpu")
HEAD: dict[str, Any] = {
    "prototypes": 24,
    "hidden": 32,
    "bottleneck": 8,
    "small_views": 2,
    "small_size": 16,
    "teacher_temperature": (0.04, 0.07),
    "momentum": (0.5, 1.0),
    "hold_last": 0.15,
}
"""In the first two of ten steps the last layer is held."""
STEPS = 4
PARTS = 2


def objective_of(kind: str) -> DINO | IBOT:
    torch.manual_seed(11)
    network = small_vit()
    # In double numbers, as the order of sums differs between processes, and the steps make more of it.
    if kind == "dino":
        return DINO(network, DINOConfig(**HEAD)).double()
    return IBOT(network, IBOTConfig(**HEAD, patch_prototypes=12, shared_head=False, patch_weight=0.5)).double()


def whole_batch(step: int) -> tuple[Batch, Tensor]:
    """All pictures of a step, and the masks of their large crops, (pictures, 2, 64)."""
    size = 5 if step % 2 else 3  # the second process has fewer, and once less than it has parts
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(size, 2, 3, 32, 32, generator=generator).double() + torch.arange(size).view(-1, 1, 1, 1, 1)
    small = torch.randn(size, 2, 3, 16, 16, generator=generator).double()
    masks = torch.rand(size, 2, 64, generator=generator) < 0.3
    masks[0, 0] = False
    return Batch(images=images, small=small, labels=torch.zeros(size, dtype=torch.int64)), masks


def own_parts(step: int) -> list[tuple[Batch, Tensor]]:
    """What this process sees of a step, with a blank where there is nothing for it."""
    batch, masks = whole_batch(step)
    assert batch.small is not None
    tensors = (batch.images, batch.small, batch.labels, masks)
    own = [tensor.tensor_split(world_size())[rank()] for tensor in tensors]
    parts = []
    for images, small, labels, hidden in zip(*(tensor.tensor_split(PARTS) for tensor in own), strict=True):
        if blank := not len(images):
            images, small, labels = torch.ones(2, 2, 3, 32, 32), torch.ones(2, 2, 3, 16, 16), torch.zeros(2)
            images, small = images.double(), small.double()
            hidden = torch.zeros(2, 2, 64, dtype=torch.bool)
        crops = hidden.transpose(0, 1).flatten(0, 1)
        parts.append((Batch(images=images, small=small, labels=labels, blank=blank), crops))
    return parts


def results(kind: str, parallel: str = "ddp") -> dict[str, Any]:
    """Losses of all pictures in each step, the centre after each, and what the teacher makes of one picture."""
    objective = objective_of(kind)
    coming: list[Tensor] = []
    objective.masks = lambda number, grid: coming.pop(0)  # of no concern to DINO
    recipe = Recipe(
        data="",
        epochs=1,
        optim=Optim(name="sgd", lr=0.05, momentum=0.0),
        run=Run(dtype="float32", parallel=parallel, accumulate=PARTS),
    )
    engine = Engine(objective, recipe, steps_per_epoch=10, call=prepared(objective, recipe.run))
    losses, centers = [], []
    for step in range(STEPS):
        parts = own_parts(step)
        coming[:] = [masks for _, masks in parts]
        count = sum(batch.count for batch, _ in parts)
        (pictures,) = added([count], CPU)
        result = engine.train_step([batch for batch, _ in parts], int(pictures))
        names = sorted(name for name in result if name != "gradient_norm")
        losses += added([result[name].item() * count / pictures for name in names], CPU)
        losses.append(result["gradient_norm"].item())
        centers += objective.center.value.tolist()
        centers += objective.patch_center.value.tolist() if isinstance(objective, IBOT) else []
    state = engine.state_dict()["objective"]
    teacher = objective_of(kind)
    teacher.load_state_dict(state)
    embedding = teacher.eval().result.embedding(whole_batch(99)[0].images[:1, 0])
    return {"losses": losses, "centers": centers, "embedding": embedding.flatten().tolist()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with processes(CPU):
        found = {kind: results(kind, sys.argv[1]) for kind in ("dino", "ibot")}
        if primary():
            print(json.dumps(found))
