"""Labelled pictures to probabilities: a stream, in order, of what each shows or why it could not be read.

Pictures are read in batches and, with ``workers``, by other processes while the network computes. Only some batches are
in memory at a time; a picture that cannot be read is one row with the reason, and touches no other.

Shapes: K classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from birder.data.loader import guarded, start_worker
from birder.data.samples import Samples
from birder.data.transforms import InferenceTransform, classification_transform
from birder.errors import ConfigError, ImageError
from birder.inference.classes import check_classifier
from birder.inference.classification import Floats, infer_batch
from birder.inference.rows import NOT_FINITE, Row
from birder.model_file import ModelInfo
from birder.networks.base import Network

_AHEAD = 2  # batches that each worker reads before they are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The probability of every class for one picture."""

    path: Path
    """The file, or the name within the archive it is in."""
    probabilities: Floats
    """(K,), in the order of the labels."""
    embedding: Floats | None = None
    """(D,), if embeddings were asked for."""


def scores(
    network: Network,
    info: ModelInfo,
    samples: Samples,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    embeddings: bool = False,
) -> Iterator[Scores | Row]:
    """The probabilities of all classes for each picture, or an error row, in the same order.

    Of a model that is calibrated, they are the calibrated ones: its logits are divided by its temperature.

    Args:
        network: A network with a classifier.
        info: What the model file says; see ``load_model``.
        samples: Pictures in files or shards.
        batch_size: Pictures that go through the network together; the results do not depend on it.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        device: Where to compute, and where the network is moved; None is where it is.
        embeddings: Also give the embedding of each picture.

    Raises:
        ConfigError: A number that makes no sense, a network that does not take RGB, or no such device.
        ModelFileError: The network has no classifier.
        DataError: While running: a worker was killed.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
    check_classifier(network)
    if device is not None:
        _move(network, device)
    transform = classification_transform(network.size, info.rgb_stats)
    loader = DataLoader(
        _Pictures(transform, samples),
        batch_sampler=[
            list(range(start, min(start + batch_size, len(samples)))) for start in range(0, len(samples), batch_size)
        ],
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_collate,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from torch's own, in the middle of a training
        pin_memory=next(network.parameters()).is_cuda,
    )
    temperature = None if info.calibration is None else info.calibration.temperature
    asked = _Question(network=network, transform=transform, temperature=temperature, embeddings=embeddings)
    return _scores(asked, loader)


def best(probabilities: Floats, top: int) -> np.ndarray[Any, Any]:
    """Labels of the highest probabilities, (K,) -> (top,), best first; of equal ones the lower label first."""
    return np.argsort(-probabilities, kind="stable")[:top]


class _Pictures(Dataset[tuple[Path, Tensor | str]]):
    """The number of a sample -> (path, uint8 (3, H, W) or the reason why not)."""

    def __init__(self, transform: InferenceTransform, samples: Samples) -> None:
        self.transform = transform
        self.samples = samples

    def __getitem__(self, index: int) -> tuple[Path, Tensor | str]:
        path = self.samples.paths[index]
        try:
            return path, self.transform.pixels(self.samples.read(index))
        except ImageError as error:
            return path, error.reason
        except MemoryError:
            return path, "memory: not enough memory to resize it"


@dataclass(frozen=True, kw_only=True)
class _Batch:
    paths: list[Path]
    reasons: list[str | None]
    """None for each picture that could be read."""
    pixels: Tensor | None
    """(B, 3, H, W) of those that could be read, uint8."""

    def pin_memory(self) -> "_Batch":
        """Called by the loader."""
        pixels = None if self.pixels is None else self.pixels.pin_memory()
        return _Batch(paths=self.paths, reasons=self.reasons, pixels=pixels)


def _collate(items: list[tuple[Path, Tensor | str]]) -> _Batch:
    pictures = [picture for _, picture in items if isinstance(picture, Tensor)]
    return _Batch(
        paths=[path for path, _ in items],
        reasons=[picture if isinstance(picture, str) else None for _, picture in items],
        pixels=torch.stack(pictures) if pictures else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Question:
    network: Network
    transform: InferenceTransform
    temperature: float | None
    """None leaves the probabilities as the network gives them."""
    embeddings: bool

    def answers(self, pixels: Tensor) -> Iterator[tuple[Floats, Floats | None]]:
        """Probabilities (K,) and embedding (D,) or None of each picture."""
        device = next(self.network.parameters()).device
        images = self.transform.normalize(pixels.to(device, non_blocking=True))
        try:
            out, rows = infer_batch(
                self.network,
                images,
                return_embedding=self.embeddings,
                return_logits=self.temperature is not None,
            )
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"a batch of {len(pixels)} does not fit into the memory of {device}: lower batch_size"
            ) from error
        if self.temperature is not None:
            out = (torch.from_numpy(out) / self.temperature).softmax(dim=1).numpy()
        return zip(out, repeat(None) if rows is None else rows, strict=False)


def _scores(asked: _Question, loader: Iterable[_Batch]) -> Iterator[Scores | Row]:
    for batch in guarded(loader):
        rows = iter(()) if batch.pixels is None else asked.answers(batch.pixels)
        for path, reason in zip(batch.paths, batch.reasons, strict=True):
            if reason is not None:
                yield Row(path=str(path), status="error", reason=reason)
                continue
            probabilities, embedding = next(rows)
            if np.isfinite(probabilities).all():
                yield Scores(path=path, probabilities=probabilities, embedding=embedding)
            else:
                yield Row(path=str(path), status="error", reason=NOT_FINITE)


def _move(network: Network, device: torch.device | str) -> None:
    try:
        network.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"cannot compute on {device}; cpu is always there ({str(error).splitlines()[0]})") from error
