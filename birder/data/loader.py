"""From samples to batches of training pictures, the same whatever the number of workers.

What a picture looks like in a step is a function of (seed, epoch, index) alone: the random numbers of its augmentation
start there, in whichever process it is read.
"""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from birder.data.images import read_image
from birder.data.order import batches
from birder.data.samples import Samples
from birder.errors import DataError, ImageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one step, as read."""

    images: Tensor
    """(B, 3, H, W), uint8; B may be less than was asked for, and 0."""
    labels: Tensor
    """(B,), int64."""
    unreadable: list[tuple[str, str]]
    """(path, reason) of those that are missing because they could not be read."""


class TrainingSet(Dataset[tuple[Tensor, int] | tuple[str, str]]):
    """Samples by (epoch, index): (picture, label), or (path, reason) of one that cannot be read."""

    def __init__(self, samples: Samples, transform: Callable[[Image.Image], Tensor], seed: int) -> None:
        """``transform`` makes an RGB picture into uint8 (3, H, W)."""
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | tuple[str, str]:
        """Read one sample as it looks in this epoch."""
        epoch, index = key
        try:
            image = read_image(self.samples.paths[index])
        except ImageError as error:
            return str(self.samples.paths[index]), str(error)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also start a GPU's numbers, the network's, anew.
            torch.default_generator.manual_seed(_mix(self.seed, epoch, index))
            return self.transform(image), self.samples.labels[index]


def training_batches(
    samples: TrainingSet, *, batch_size: int, start: int, stop: int, workers: int = 0
) -> Iterator[Pictures]:
    """The batches of the steps ``start`` to ``stop``, read ahead by ``workers`` processes.

    Raises:
        DataError: While running: a process was killed.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Steps(batches(len(samples), batch_size, seed=samples.seed, start=start, stop=stop)),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from the generator of the network
    )
    return guarded(loader)


def collate(items: list[tuple[Tensor, int] | tuple[str, str]]) -> Pictures:
    """One batch of what ``TrainingSet`` gave."""
    readable = [item for item in items if isinstance(item[0], Tensor)]
    unreadable = [(item[0], str(item[1])) for item in items if isinstance(item[0], str)]
    return Pictures(
        images=torch.stack([image for image, _ in readable]) if readable else torch.empty(0, 3, 0, 0).byte(),
        labels=torch.tensor([label for _, label in readable], dtype=torch.int64),
        unreadable=unreadable,
    )


def guarded(loader: Iterable[T]) -> Iterator[T]:
    """What a loader gives.

    Raises:
        DataError: One of its processes was killed.
    """
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a process that reads pictures was killed, most often because memory ran out: use fewer workers, "
                "or 0 to see at which file it happens"
            ) from error
        yield batch


class _Steps:
    """A batch sampler that goes over its batches once."""

    def __init__(self, steps: Iterator[list[tuple[int, int]]]) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.steps


def _mix(*numbers: int) -> int:
    """A seed for every combination of small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def start_worker(worker: int) -> None:
    """What a process that reads pictures does first; ``worker`` is its number."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
