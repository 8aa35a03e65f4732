"""Run by torchrun in the tests: some steps on the same batches, whatever the number of processes; see test_parallel."""

import json
import sys
from pathlib import Path

import torch

from birder.distributed import added, primary, processes, rank, world_size
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.training.engine import Engine
from birder.training.parallel import prepared, whole_network
from birder.training.recipe import Average, Optim, Recipe, Run

NETWORKS = {
    "convnext_v2_atto": {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)},
    "vit_t16": {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "drop_path_rate": 0.0},
}


def a_batch(step: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 4, (size,), generator=generator)
    images = torch.randn(size, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch(images=images, labels=labels)


def part(batch: Batch, number: int, of: int) -> Batch:
    return Batch(images=batch.images.tensor_split(of)[number], labels=batch.labels.tensor_split(of)[number])


def main(network: str, optimizer: str, parallel: str, state: Path, first: int, last: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(11)
    lr = {"sgd": 0.05}.get(optimizer, 3e-3)
    recipe = Recipe(
        data="",
        epochs=1,
        optim=Optim(name=optimizer, lr=lr),
        average=Average(decay=0.9),
        run=Run(dtype="float32", parallel=parallel, accumulate=2, gradient_checkpointing=True),
    )
    with processes(torch.device("cpu")):
        built = create_network(network, 4, size=(32, 32), **NETWORKS[network])
        objective = Classification(built, ClassificationConfig())
        engine = Engine(objective, recipe, steps_per_epoch=20, call=prepared(objective, recipe.run))
        if state.exists():
            engine.load_state_dict(torch.load(state, weights_only=True))
        losses = []
        for step in range(first, last):
            own = part(a_batch(step, size), rank(), world_size())
            count = len(own.labels)
            (pictures,) = added([count], torch.device("cpu"))
            parts = [piece for number in range(2) if len((piece := part(own, number, 2)).labels)]
            result = engine.train_step(parts, int(pictures))
            mean = result["loss"].item() * count / pictures if count else 0.0
            losses += added([mean], torch.device("cpu"))
        final = engine.state_dict()
        with engine.averaged():
            logits = whole_network(built).eval()(a_batch(99, 4).images)
        if primary():
            torch.save(final, state)
            print(json.dumps({"losses": losses, "logits": logits.tolist(), "processes": world_size()}))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0], words[1], words[2], Path(words[3]), *(int(word) for word in words[4:]))
