"""Run by torchrun in the tests: losses, gradients and states of several processes, compared with those of one.

Each process trains alone first, before they meet, on all pictures; then together, each on its share of them.
"""

import json
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from birder.distributed import primary, processes, rank, world_size
from birder.objectives.base import Batch
from birder.objectives.configs import BarlowTwinsConfig, MMCRConfig, SimCLRConfig, VICRegConfig
from birder.objectives.methods import create_objective
from birder.testing import small_network
from birder.training.parallel import prepared, whole
from birder.training.recipe import Run

# Heads of a single layer have no batch norms, which see the pictures of one process only.
CONFIGS = {
    "mmcr": MMCRConfig(num_views=3, projector=(12,), local_weight=0.1, momentum=0.9),
    "simclr": SimCLRConfig(projection=12),
    "barlow_twins": BarlowTwinsConfig(projector=(12,)),
    "vicreg": VICRegConfig(projector=(12,)),
}
PICTURES = 6
STEPS = 2
Result = tuple[list[float], list[dict[str, Tensor]], dict[str, Tensor]]


def share(step: int, views: int, counts: Sequence[int]) -> Batch:
    """This process's pictures of a step; as the training does it, two blank ones where it has none."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(PICTURES, views, 3, 32, 32, generator=generator, dtype=torch.float64)
    images += torch.randn(PICTURES, 1, 3, 1, 1, generator=generator, dtype=torch.float64)
    own = images.split(list(counts))[rank()]
    blank = len(own) == 0
    own = torch.zeros_like(images[:2]) if blank else own
    return Batch(images=own, labels=torch.zeros(len(own), dtype=torch.int64), blank=blank)


def trained(name: str, counts: Sequence[int], parallel: str) -> Result:
    """Some plain steps: losses, gradients of each step, and the state in the end."""
    torch.manual_seed(3)
    config = CONFIGS[name]
    objective = create_objective(config, small_network(0)).double().train()
    call = prepared(objective, Run(parallel=parallel))
    learned = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01)
    losses, gradients = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = call(share(step, config.views.large, counts), 0.0)["loss"]
        loss.backward()
        gradients.append({key: whole(w.grad) for key, w in objective.named_parameters() if w.requires_grad})
        losses.append(loss.item())
        optimizer.step()
        objective.after_step(0.0)
    return losses, gradients, whole(objective.state_dict())


def distance(one: Result, other: Result) -> float:
    """The largest difference of two results, relative to the largest number of each tensor."""
    pairs = [(torch.tensor(one[0]), torch.tensor(other[0]))]
    for first, second in zip([*one[1], one[2]], [*other[1], other[2]], strict=True):
        assert first.keys() == second.keys()
        pairs += [(first[key].double(), second[key].double()) for key in first]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-3)) for a, b in pairs)


def main(cases: list[tuple[str, list[int]]]) -> None:
    torch.set_num_threads(1)
    alone = {name: trained(name, [PICTURES], "ddp") for name in CONFIGS}
    with processes(torch.device("cpu")):
        far = {
            f"{name} {parallel} {counts}": distance(alone[name], trained(name, counts, parallel))
            for name in CONFIGS
            for parallel, counts in cases
        }
        if primary():
            print(json.dumps({"processes": world_size(), "distances": far}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
