"""From samples to batches of training pictures, the same whatever the number of workers.

What a picture looks like in a step is a function of the seed and its ``Key`` (epoch, sample, copy) alone: the random
numbers of its augmentation start there, in whichever process it is read. So no process has random numbers of its own
that would have to be saved: seed and step are the whole state of the stream.
"""

import atexit
import dataclasses
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import active_children
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from birder.data.order import Key, batches
from birder.data.samples import Samples
from birder.errors import DataError, ImageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one step, as read."""

    images: Tensor
    """(B, 3, H, W), uint8; (B, V, 3, H, W) with several views; B may be less than was asked for, and 0."""
    labels: Tensor
    """(B,), int64."""
    names: list[str]
    """What they are called, B of them."""
    unreadable: list[tuple[str, str]]
    """(name, reason) of those that are missing because they could not be read."""
    small: Tensor | None = None
    """(B, V', 3, h, w), uint8, smaller views, if there are any."""

    def pin_memory(self) -> "Pictures":
        """The same in memory that a GPU can read while it computes; called by the loader."""
        small = self.small.pin_memory() if self.small is not None else None
        return dataclasses.replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory(), small=small)


Looks = Tensor | tuple[Tensor, ...]
"""A picture, (3, H, W); or its views (V, 3, H, W), and perhaps smaller ones (V', 3, h, w). uint8."""
Item = tuple[Looks, int, str] | tuple[str, str]
"""A picture, its label and its name; or name and reason of one that cannot be read."""


class TrainingSet(Dataset[Item]):
    """Samples by ``Key``: what they look like at that place in the stream."""

    def __init__(self, samples: Samples, transform: Callable[[Image.Image], Looks], seed: int) -> None:
        """``transform`` makes an RGB picture into uint8 (3, H, W), or into several views."""
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        """Read one sample as it looks there."""
        name = self.samples.name(key.sample)
        try:
            image = self.samples.read(key.sample)
        except ImageError as error:
            return name, error.reason
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would also start a GPU's numbers, the network's, anew.
            torch.default_generator.manual_seed(_start(self.seed, key))
            return self.transform(image), int(self.samples.labels[key.sample]), name


def training_batches(
    samples: TrainingSet,
    *,
    batch_size: int,
    start: int,
    stop: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    balance: float = 0.0,
    repeats: int = 1,
    pin_memory: bool = False,
) -> Iterator[Pictures]:
    """The batches of the steps ``start`` to ``stop``, read ahead by ``workers`` processes.

    One loader serves all epochs, so there is no pause between them.

    Args:
        samples: What to read.
        batch_size: Pictures of one step, of all processes of the training together.
        start: The first step.
        stop: The step after the last.
        workers: Processes that read beside this one; 0 reads between the steps.
        rank: Which part of each step's pictures is this process's; see ``birder.data.order.batches``.
        world: How many such parts there are.
        balance: How evenly the classes are seen, 0 to 1.
        repeats: How often a picture is in a batch, each time varied otherwise.
        pin_memory: Put batches where a CUDA device reads them faster.

    Raises:
        DataError: While running: a process was killed.
    """
    steps = batches(
        len(samples),
        batch_size,
        seed=samples.seed,
        start=start,
        stop=stop,
        rank=rank,
        world=world,
        balance=balance,
        labels=samples.samples.labels,
        repeats=repeats,
    )
    return guarded(_loader(samples, steps, workers, pin_memory=pin_memory))


def looked_at(
    samples: TrainingSet, rows: Iterable[int], *, epoch: int = 0, batch_size: int = 64, workers: int = 0
) -> Iterator[Pictures]:
    """Some samples in order, as they look in one epoch.

    Args:
        samples: What to read.
        rows: Which of them.
        epoch: Another one, other random numbers.
        batch_size: Pictures that come together.
        workers: Processes that read beside this one.

    Raises:
        DataError: While running: a process was killed.
    """
    keys = [Key(epoch, row) for row in rows]
    steps = iter([keys[first : first + batch_size] for first in range(0, len(keys), batch_size)])
    return guarded(_loader(samples, steps, workers))


def collate(items: list[Item]) -> Pictures:
    """One batch of what ``TrainingSet`` gave."""
    readable = [item for item in items if len(item) == 3]
    looks = [look if isinstance(look, tuple) else (look,) for look, _, _ in readable]
    images, *small = [torch.stack(views) for views in zip(*looks, strict=True)] or [torch.empty(0, 3, 0, 0).byte()]
    return Pictures(
        images=images,
        labels=torch.tensor([label for _, label, _ in readable], dtype=torch.int64),
        names=[name for _, _, name in readable],
        unreadable=[item for item in items if len(item) == 2],
        small=small[0] if small else None,
    )


def guarded(loader: Iterable[T]) -> Iterator[T]:
    """What a loader gives.

    Raises:
        DataError: One of its processes was killed.
    """
    batches = iter(loader)
    # Once more, so that it comes before what torch does when Python is left, which waits.
    atexit.unregister(_end_readers)
    atexit.register(_end_readers)
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


def _loader(
    samples: TrainingSet, steps: Iterator[list[Key]], workers: int, *, pin_memory: bool = False
) -> Iterable[Pictures]:
    return DataLoader(
        samples,
        batch_sampler=_Steps(steps),
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from the generator of the network
        pin_memory=pin_memory,
    )


class _Steps:
    """A batch sampler that goes over its batches once."""

    def __init__(self, steps: Iterator[list[Key]]) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[list[Key]]:
        return self.steps


def _start(seed: int, key: Key) -> int:
    """Where the random numbers of a picture start; of a first copy, as before there were others."""
    numbers = (seed, key.epoch, key.sample, *([key.copy] if key.copy else []))
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _end_readers() -> None:
    """End the processes that still read when Python is left, as after an error that nobody has foreseen.

    They do not answer to SIGTERM, by which Python would end them, and it would wait for them for ever.
    """
    if hasattr(signal, "SIGCHLD"):  # torch raises an error there
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in active_children():
        if process.daemon:
            process.kill()


def start_worker(worker: int) -> None:
    """What a process that reads pictures does first; ``worker`` is its number."""
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the main process answers, and ends those who read for it
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
