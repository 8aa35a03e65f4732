"""Labelled pictures to embeddings: a stream of what each picture gives, or why it could not be read.

Shapes: N pictures, D size of the embedding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from birder.data.loader import TrainingSet, collate, guarded, start_worker
from birder.data.order import Key
from birder.data.samples import Samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, DataError, NotFinite
from birder.inference.classification import Floats, infer_batch
from birder.inference.rows import Row
from birder.networks.base import Network
from birder.signature import RGBStats


class Embedded(NamedTuple):
    """A picture that went through the network."""

    name: str
    """What it is called."""
    label: int
    """What it shows."""
    embedding: Floats
    """(D,)."""


def embeddings(
    network: Network,
    stats: RGBStats,
    samples: Samples,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[Embedded | Row]:
    """The embedding of each picture: one result for each, those of a batch that cannot be read after the others.

    Args:
        network: Any network, with or without a classifier; it is left in the mode it is in.
        stats: Colour statistics, from the model file.
        samples: Labelled pictures.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        device: Where to compute, and where the network is moved; None is where it is.

    Raises:
        ConfigError: A number that makes no sense, a network that does not take RGB, or, while running, a batch that is
            too large for the memory.
        DataError: While running: a worker was killed.
        NotFinite: While running: an embedding is no number.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
    if network.input_channels != 3:
        raise ConfigError(f"pictures have 3 channels, this network takes {network.input_channels}")
    network.to(device)
    transform = classification_transform(network.size, stats)
    keys = [Key(0, index) for index in range(len(samples))]
    loader = DataLoader(
        TrainingSet(samples, transform.pixels, seed=0),  # the transform draws no random numbers
        batch_sampler=[keys[start : start + batch_size] for start in range(0, len(keys), batch_size)],
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from torch's own, in the middle of a training
        pin_memory=next(network.parameters()).is_cuda,
    )
    place = next(network.parameters()).device

    def stream() -> Iterator[Embedded | Row]:
        for pictures in guarded(loader):
            images = transform.normalize(pictures.images.to(place, non_blocking=True))
            rows = _embedded(network, images) if len(images) else ()
            for name, label, row in zip(pictures.names, pictures.labels.tolist(), rows, strict=True):
                if not np.isfinite(row).all():
                    raise NotFinite(f"{name}: the network's embedding is not a number; its weights may be damaged")
                yield Embedded(name, label, row)
            for name, reason in pictures.unreadable:
                yield Row(path=name, status="error", reason=reason)

    return stream()


def stacked(results: Sequence[Embedded | Row], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) and labels (N,) of the pictures that could be read.

    Raises:
        DataError: There are none.
    """
    readable = [row for row in results if isinstance(row, Embedded)]
    if not readable:
        first = next((f"; {row.path}: {row.reason}" for row in results if isinstance(row, Row)), "")
        raise DataError(f"none of {len(results)} pictures can be read{first}")
    rows = torch.from_numpy(np.stack([row.embedding for row in readable]))
    return rows.to(device), torch.tensor([row.label for row in readable], device=device)


def _embedded(network: Network, images: Tensor) -> Floats:
    try:
        _, rows = infer_batch(network, images, return_embedding=True)
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"a batch of {len(images)} does not fit into the memory: lower batch_size") from error
    assert rows is not None, "they were asked for"
    return rows
