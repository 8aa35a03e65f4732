"""A training step of the engine against a bare loop, and where the time goes.

python benchmarks/step.py [--networks convnext_v2_atto …] [--size 112] [--batch-size 32] [--threads 2] [--dtype float32]
    [--optimizer adamw] [--rounds 12] [--data FOLDER] [--profile]

Both move the same network with fused AdamW, smoothed cross-entropy and a shortened gradient, in turns in one process; a
ratio is the median over the rounds of (time of the bare loop / time of the engine). With --data, a folder of
species/picture.jpg or a table, one epoch of the whole of ``fit`` and of a bare loop that reads and varies the pictures,
too, with one reading process each: rounds of five steps, again in turns. With --profile, the operations of a step by
their time. --optimizer is that of the engine; the bare loop keeps AdamW.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from birder.data.augment import training_transform
from birder.data.samples import read_samples
from birder.data.transforms import classification_transform
from birder.networks import Network, create_network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.signature import rgb_stats
from birder.training import fit as fit_module
from birder.training.engine import Engine
from birder.training.groups import kinds
from birder.training.recipe import Augment, Optim, Recipe, Run

NETWORKS = ("convnext_v2_atto", "pvt_v2_b0", "regnet_y_400m", "vit_t16")
CLASSES = 100
STEPS = 5
"""Steps of one turn with reading."""
T = TypeVar("T")
Step = Callable[[Tensor, Tensor], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.size} px, batches of {options.batch_size}, {options.threads} threads, {options.dtype}")
    for name in options.networks:
        recipe = Recipe(
            data=str(options.data or ""),
            network=name,
            size=(options.size,),
            epochs=1,
            batch_size=options.batch_size,
            augment=Augment(policy="none"),
            optim=Optim(name=options.optimizer),
            run=Run(dtype=options.dtype, threads=options.threads),
        )
        compare_steps(name, recipe, options.rounds, profile=options.profile)
        if options.data:
            compare_runs(name, recipe)


def compare_steps(name: str, recipe: Recipe, rounds: int, *, profile: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(recipe.batch_size, 3, *recipe.size, generator=generator)
    labels = torch.randint(CLASSES, (recipe.batch_size,), generator=generator)
    engine = Engine(Classification(build(name, recipe), ClassificationConfig()), recipe, steps_per_epoch=10_000)
    steps: dict[str, Step] = {
        "engine": lambda images, labels: engine.train_step([Batch(images=images, labels=labels)]),
        "bare": bare_step(build(name, recipe), recipe),
    }
    seconds: dict[str, list[float]] = {which: [] for which in steps}
    for number in range(rounds + 2):  # the first two warm up
        for which in sorted(steps, reverse=number % 2 == 1):  # who comes first takes turns
            began = time.perf_counter()
            steps[which](images, labels)
            if number > 1:
                seconds[which].append(time.perf_counter() - began)
    ratio = statistics.median(b / e for e, b in zip(seconds["engine"], seconds["bare"], strict=True))
    speed = recipe.batch_size / statistics.median(seconds["engine"])
    print(f"{name:18} step: {speed:6.1f} images/s, {ratio:.3f} of the bare loop", flush=True)
    if profile:
        with torch.profiler.profile() as profiled:
            steps["engine"](images, labels)
        print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


class Turns:
    """Two threads that take turns, a few steps each, and how long each turn took."""

    def __init__(self, *names: str) -> None:
        """The first name begins."""
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self._order = list(names)  # whose turn it is comes first
        self._changed = threading.Condition()

    def taken(self, name: str, batches: Iterable[T]) -> Iterator[T]:
        """The batches, when it is the turn of ``name``."""
        self._wait(name)
        began = time.perf_counter()
        for number, batch in enumerate(batches, start=1):
            yield batch
            if number % STEPS == 0:
                self.seconds[name].append(time.perf_counter() - began)
                self._pass_on()
                self._wait(name)
                began = time.perf_counter()
        self.leave(name)

    def leave(self, name: str) -> None:
        """The others need not wait for this one any more."""
        with self._changed:
            self._order = [other for other in self._order if other != name]
            self._changed.notify_all()

    def _wait(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._order[0] == name)

    def _pass_on(self) -> None:
        with self._changed:
            self._order = [*self._order[1:], self._order[0]]
            self._changed.notify_all()


def compare_runs(name: str, recipe: Recipe) -> None:
    """An epoch with reading: the whole of ``fit``, and a loop by hand."""
    turns = Turns("fit", "bare")
    read = fit_module.training_batches
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        fit_module.training_batches = lambda *given, **options: turns.taken("fit", read(*given, **options))
        whole = thread.submit(fit_module.fit, recipe, Path(folder) / "run")
        whole.add_done_callback(lambda _: turns.leave("fit"))  # also after an error
        network = build(name, recipe, len(read_samples(recipe.data).class_to_idx))
        step = bare_step(network, recipe)
        for images, labels in turns.taken("bare", bare_batches(recipe)):
            step(images, labels)
        whole.result()
        fit_module.training_batches = read
    # Two rounds warm up, and fit does not come back to say when its last one ended.
    pairs = list(zip(turns.seconds["fit"], turns.seconds["bare"], strict=False))[2:]
    speed = STEPS * recipe.batch_size / statistics.median(ours for ours, _ in pairs)
    print(
        f"{name:18} run:  {speed:6.1f} images/s, {statistics.median(bare / ours for ours, bare in pairs):.3f} of the "
        f"bare loop in {len(pairs)} rounds",
        flush=True,
    )


def build(name: str, recipe: Recipe, classes: int = CLASSES) -> Network:
    torch.manual_seed(0)
    return create_network(name, classes, size=tuple(recipe.size)).train()


def bare_step(network: nn.Module, recipe: Recipe) -> Step:
    """What one would write by hand."""
    of_kind = kinds(network)
    decay = {"matrix": 0.05, "token": 0.0, "vector": 0.0}
    groups = [
        {"params": [weight for weight, kind in of_kind.items() if decay[kind] == value], "weight_decay": value}
        for value in (0.05, 0.0)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    dtype = getattr(torch, recipe.run.dtype)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(images).float(), labels, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    return step


def bare_batches(recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    samples = read_samples(recipe.data)
    normalize = classification_transform(tuple(recipe.size), rgb_stats("imagenet")).normalize
    transform = training_transform(tuple(recipe.size), recipe.augment)
    pictures = [(samples.read, transform, index, int(label)) for index, label in enumerate(samples.labels)]
    loader: Iterable[tuple[Tensor, Tensor]] = DataLoader(
        pictures,
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=1,
        prefetch_factor=4,
        collate_fn=bare_collate,
    )
    for images, labels in loader:
        yield normalize(images), labels


def bare_collate(items: list[tuple[Callable[[int], object], Callable[[object], Tensor], int, int]]) -> object:
    images = torch.stack([transform(read(index)) for read, transform, index, _ in items])
    return images, torch.tensor([label for *_, label in items])


if __name__ == "__main__":
    main()
