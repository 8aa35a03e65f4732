"""What a training picture costs before it reaches the network: reading, augmenting, and both by worker processes.

python benchmarks/loading.py [FOLDER] [--size 224] [--pictures 400]

FOLDER is a data set, a folder, table or shards; left out, drawn birds of 500 x 400 pixels are written and used. Prints
milliseconds per picture on one core, the best of three rounds, and pictures/s through the loader.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from birder.data.augment import training_transform
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.loader import TrainingSet, training_batches
from birder.data.samples import Samples, read_samples
from birder.training.recipe import Augment

T = TypeVar("T")
POLICIES = {
    "none": Augment(policy="none"),
    "trivialaugment": Augment(policy="trivialaugment"),
    "randaugment": Augment(policy="randaugment"),
    "birder 4": Augment(policy="birder", level=4),
    "birder 8": Augment(policy="birder", level=8),
    "autoaugment": Augment(policy="autoaugment"),
    "augmix": Augment(policy="augmix"),
    "3augment": Augment(policy="3augment"),
    "clip": Augment(policy="clip"),
}
THROUGH_THE_LOADER = ("none", "trivialaugment", "birder 8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pictures", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        if options.folder is None:
            birds = DrawnBirds(size=(400, 500))
            write_folder(birds, Path(temporary), -(-options.pictures // birds.species))
        samples = read_samples(options.folder or temporary)
        step = max(len(samples) // options.pictures, 1)
        measure(samples.select(np.arange(len(samples))[::step][: options.pictures]), options.size)


def measure(samples: Samples, side: int) -> None:
    size = (side, side)
    images = [samples.read(index) for index in range(len(samples))]  # also warms the file cache
    kilobytes = sum(len(samples.content(index)) for index in range(len(samples))) / len(samples) / 1e3
    print(f"{len(samples)} pictures of {images[0].size} and the like, {kilobytes:.0f} kB each, to {side} px")
    report("read", samples.read, range(len(samples)))
    for name, augment in POLICIES.items():
        report(f"crop, flip, {name}", training_transform(size, augment), images)
    steps = len(samples) // 32
    for name in THROUGH_THE_LOADER:
        dataset = TrainingSet(samples, training_transform(size, POLICIES[name]), seed=0)
        for workers in (0, 1, 2):
            batches = training_batches(dataset, batch_size=32, start=0, stop=4 * steps, workers=workers)
            next(batches)  # the processes have started
            began = time.perf_counter()
            count = sum(len(batch.labels) for batch in batches)
            print(f"{name}, {workers} workers: {count / (time.perf_counter() - began):.0f} pictures/s")


def report(name: str, function: Callable[[T], object], items: Iterable[T]) -> None:
    items, seconds = list(items), []
    for _ in range(3):
        began = time.perf_counter()
        for item in items:
            function(item)
        seconds.append(time.perf_counter() - began)
    print(f"{name}: {min(seconds) / len(items) * 1e3:.2f} ms per picture")


if __name__ == "__main__":
    main()
