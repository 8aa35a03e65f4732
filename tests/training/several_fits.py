"""Run by torchrun in the tests: whole runs by two processes, and what each of them had; see test_fit_parallel."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from birder.distributed import primary, processes, rank
from birder.networks import Network
from birder.training.checkpoints import Checkpoints
from birder.training.fit import _Training, fit
from birder.training.recipe import Augment, Recipe, Run, Schedule

RECIPE = Recipe(
    data="",
    network="convnext_v2_atto",
    network_options={"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)},
    size=(32,),
    epochs=2,
    batch_size=8,
    augment=Augment(min_scale=0.7, policy="none"),
    schedule=Schedule(warmup_epochs=0.0),
    run=Run(device="cpu", dtype="float32", threads=1, workers=0),
)


def with_batch_norms(birds: Path) -> Recipe:
    """Each process shows its batch norms other pictures."""
    data, val = str(birds / "train"), str(birds / "val")
    return replace(RECIPE, network="regnet_y_200m", network_options={}, data=data, val=val)


def with_gaps(gaps: Path, **run: str) -> Recipe:
    """Two pictures a step, one for each process, and some cannot be read."""
    return replace(RECIPE, data=str(gaps), batch_size=2, run=replace(RECIPE.run, **run))


def statistics(network: Network) -> list[float]:
    """A number for each batch norm's mean."""
    means = {name: tensor for name, tensor in network.named_buffers() if name.endswith("running_mean")}
    return [float(means[name].double().sum()) for name in sorted(means)]


def noted(notes: list[list[list[float]]]) -> None:
    """Write down what the network has seen before and while it is used between two epochs."""
    result = _Training._result

    @contextmanager
    def wrapped(training: _Training) -> Iterator[Network]:
        own = statistics(training.network)
        with result(training) as network:
            notes.append([own, statistics(network)])
            yield network

    _Training._result = wrapped


def forbid_looking() -> None:
    """Only the first process may look for a checkpoint; another could see one that the first did not."""

    def newest(checkpoints: Checkpoints, report: object) -> None:
        raise AssertionError(f"process {rank()} looked for the newest checkpoint itself")

    if not primary():
        Checkpoints.newest = newest


def main(birds: Path, gaps: Path, out: Path) -> None:
    torch.set_num_threads(1)
    notes: list[list[list[float]]] = []
    with processes(torch.device("cpu")):
        forbid_looking()
        noted(notes)
        fit(with_batch_norms(birds), out / "whole")
        (out / f"notes{rank()}.json").write_text(json.dumps(notes))
        if primary():
            shutil.copytree(out / "whole", out / "again")
            max((out / "again" / "checkpoints").iterdir()).unlink()
        torch.distributed.barrier()
        fit(with_batch_norms(birds), out / "again")
        for parallel in ("ddp", "fsdp"):
            fit(with_gaps(gaps, parallel=parallel), out / parallel)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
