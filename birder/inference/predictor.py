"""Files to predictions: a stream, in the order of the files, of what each shows or why it could not be read.

Pictures are read in batches and, with ``workers``, by other processes while the network computes. Only some batches are
in memory at a time, so the files may be a million; a file that cannot be read is one ``Failure`` and touches no other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from birder.data.images import read_image
from birder.data.loader import guarded, start_worker
from birder.data.samples import Samples
from birder.data.transforms import InferenceTransform, classification_transform
from birder.errors import ConfigError, ImageError, ModelFileError
from birder.inference.classification import Floats, infer_batch
from birder.model_file import ModelInfo
from birder.networks.base import Network

T = TypeVar("T")

_AHEAD = 2  # batches that each worker reads before they are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a picture shows, most probable first."""

    path: Path
    """The file."""
    names: tuple[str, ...]
    """Class names."""
    probabilities: tuple[float, ...]
    """The probability of each of these names, 0-1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A file that has no prediction."""

    path: Path
    """The file."""
    reason: str
    """Why, in a few words."""
    readable: bool = False
    """Whether the picture is sound, and it is the network whose answer was no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The probability of every class for one picture."""

    path: Path
    """The file."""
    probabilities: Floats
    """(K,), in the order of the labels."""


def predict(
    network: Network,
    info: ModelInfo,
    paths: Iterable[str | Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[Prediction | Failure]:
    """Name what is in pictures, one result for each path, in the same order.

    Args:
        network: A network with a classifier.
        info: What the model file says; see ``load_model``.
        paths: Files. They are taken as needed, so this may be a generator that goes on for days.
        top: Classes for each picture, at most as many as there are.
        batch_size: Pictures that go through the network together; the results do not depend on it.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        device: Where to compute, and where the network is moved; None is where it is.

    Raises:
        ConfigError: A number that makes no sense, a network that does not take RGB, or no such device.
        ModelFileError: The classes of ``info`` are not those of the network.
        DataError: While running: a worker was killed.
    """
    if top < 1:
        raise ConfigError(f"top must be 1 or more, not {top}")
    names = class_names(network, info)
    rows = scores(network, info, paths, batch_size=batch_size, workers=workers, device=device)
    return (row if isinstance(row, Failure) else _prediction(row, names, top) for row in rows)


def scores(
    network: Network,
    info: ModelInfo,
    paths: Iterable[str | Path] | Samples,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[Scores | Failure]:
    """The probabilities of all classes for each path, in the same order; arguments and errors as in ``predict``.

    Pictures that are in no files of their own come as ``Samples``; their names stand in for the paths.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
    if network.num_classes == 0:
        raise ModelFileError("the model has no classifier: it gives embeddings, no species")
    if network.input_channels != 3:
        raise ConfigError(f"pictures have 3 channels, this network takes {network.input_channels}")
    if device is not None:
        _move(network, device)
    transform = classification_transform(network.size, info.rgb_stats)
    # The "indices" of this loader are paths, so nothing about them need be known beforehand.
    keys: Iterable[Any] = range(len(paths)) if isinstance(paths, Samples) else map(Path, paths)
    loader = DataLoader(
        _Pictures(transform, paths if isinstance(paths, Samples) else None),
        batch_sampler=_batches(keys, batch_size),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_collate,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from torch's own, in the middle of a training
        pin_memory=next(network.parameters()).is_cuda,
    )
    return _scores(network, transform, loader)


def class_names(network: Network, info: ModelInfo) -> list[str]:
    """The names of the network's classes, in the order of their labels.

    Raises:
        ModelFileError: The model file does not name each class of the network once.
    """
    names = sorted(info.class_to_idx, key=info.class_to_idx.__getitem__)
    if [info.class_to_idx[name] for name in names] != list(range(network.num_classes)):
        raise ModelFileError(f"the model names {len(names)} classes, but its network tells {network.num_classes} apart")
    return names


def best(probabilities: Floats, top: int) -> np.ndarray[Any, Any]:
    """Labels of the highest probabilities, (K,) -> (top,), best first; of equal ones the lower label first."""
    return np.argsort(-probabilities, kind="stable")[:top]


class _Pictures(Dataset[tuple[Path, Tensor | str]]):
    """A path, or with ``samples`` the number of one -> (path, uint8 (3, H, W) or the reason why not)."""

    def __init__(self, transform: InferenceTransform, samples: Samples | None) -> None:
        self.transform = transform
        self.samples = samples

    def __getitem__(self, key: Any) -> tuple[Path, Tensor | str]:
        path = key if self.samples is None else self.samples.paths[key]
        try:
            image = read_image(path) if self.samples is None else self.samples.read(key)
            return path, self.transform.pixels(image)
        except ImageError as error:
            return path, str(error)
        except MemoryError:
            return path, "not enough memory to resize it"


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


def _batches(keys: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    batch = []
    for key in keys:
        batch.append(key)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _scores(network: Network, transform: InferenceTransform, loader: Iterable[_Batch]) -> Iterator[Scores | Failure]:
    for batch in guarded(loader):
        rows = iter(()) if batch.pixels is None else iter(_probabilities(network, transform, batch.pixels))
        for path, reason in zip(batch.paths, batch.reasons, strict=True):
            if reason is not None:
                yield Failure(path=path, reason=reason)
                continue
            row = next(rows)
            if np.isfinite(row).all():
                yield Scores(path=path, probabilities=row)
            else:
                yield Failure(path=path, reason="the network's answer is not a number (NaN)", readable=True)


def _probabilities(network: Network, transform: InferenceTransform, pixels: Tensor) -> Floats:
    device = next(network.parameters()).device
    try:
        out, _ = infer_batch(network, transform.normalize(pixels.to(device, non_blocking=True)))
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"a batch of {len(pixels)} does not fit into the memory of {device}: lower batch_size"
        ) from error
    return out


def _prediction(row: Scores, names: list[str], top: int) -> Prediction:
    labels = best(row.probabilities, top)
    return Prediction(
        path=row.path,
        names=tuple(names[label] for label in labels),
        probabilities=tuple(float(row.probabilities[label]) for label in labels),
    )


def _move(network: Network, device: torch.device | str) -> None:
    try:
        network.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"cannot compute on {device}; cpu is always there ({str(error).splitlines()[0]})") from error
