"""What a training picture costs before it reaches the network: reading, augmenting, and both by worker processes.

python benchmarks/loading.py FOLDER [--size 112] [--pictures 500]

FOLDER has one folder per species. Prints milliseconds per picture on one core, and pictures/s through the loader.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from birder.data.augment import training_transform
from birder.data.images import read_image
from birder.data.loader import TrainingSet, training_batches
from birder.data.samples import read_samples
from birder.training.recipe import Augment

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = read_samples(options.folder)
    size = (options.size, options.size)

    paths = samples.paths[:: max(len(samples) // options.pictures, 1)][: options.pictures]
    images = [read_image(path) for path in paths]  # also warms the file cache
    print(f"{len(paths)} pictures of {images[0].size} and the like, to {options.size} px")
    report("read", read_image, paths)
    for policy in ("none", "trivialaugment", "randaugment"):
        report(f"crop, flip, {policy}", training_transform(size, Augment(policy=policy)), images)

    dataset = TrainingSet(samples, training_transform(size, Augment()), seed=0)
    steps = len(paths) // 32
    for workers in (0, 1, 2):
        began = time.perf_counter()
        batches = training_batches(dataset, batch_size=32, start=0, stop=steps, workers=workers)
        count = sum(len(batch.labels) for batch in batches)
        print(f"{workers} workers: {count / (time.perf_counter() - began):.0f} pictures/s, start-up included")


def report(name: str, function: Callable[[T], object], items: Iterable[T]) -> None:
    items = list(items)
    began = time.perf_counter()
    for item in items:
        function(item)
    print(f"{name}: {(time.perf_counter() - began) / len(items) * 1e3:.2f} ms per picture")


if __name__ == "__main__":
    main()
