"""From samples to batches of training pictures, the same whatever the number of workers.

What a picture looks like in a step is a function of (seed, epoch, index) alone: the random numbers of its augmentation
start there, in whichever process it is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from birder.data.images import read_image
from birder.data.order import batches
from birder.data.samples import Samples
from birder.errors import DataError, ImageError


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one step, as read."""

    images: Tensor
    """(B, 3, H, W), uint8."""
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
            torch.manual_seed(_mix(self.seed, epoch, index))
            return self.transform(image), self.samples.labels[index]


def training_batches(
    samples: TrainingSet, *, batch_size: int, start: int, stop: int, workers: int = 0
) -> Iterator[Pictures]:
    """The batches of the steps ``start`` to ``stop``, read ahead by ``workers`` processes.

    Raises:
        DataError: Not one picture of a batch can be read.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Steps(batches(len(samples), batch_size, seed=samples.seed, start=start, stop=stop)),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # or it would take a number from the generator of the network
    )
    return iter(loader)


def collate(items: list[tuple[Tensor, int] | tuple[str, str]]) -> Pictures:
    """One batch of what ``TrainingSet`` gave.

    Raises:
        DataError: Not one picture can be read.
    """
    readable = [item for item in items if isinstance(item[0], Tensor)]
    unreadable = [(item[0], str(item[1])) for item in items if isinstance(item[0], str)]
    if not readable:
        path, reason = unreadable[0]
        raise DataError(f"none of the {len(unreadable)} pictures of a batch can be read; {path}: {reason}")
    return Pictures(
        images=torch.stack([image for image, _ in readable]),
        labels=torch.tensor([label for _, label in readable]),
        unreadable=unreadable,
    )


class _Steps:
    """A batch sampler that goes over its batches once."""

    def __init__(self, steps: Iterator[list[tuple[int, int]]]) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.steps


def _mix(*numbers: int) -> int:
    """A seed for every combination of small numbers."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
