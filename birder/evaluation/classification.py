"""How good a classifier is on labelled pictures. The same function serves ``birder evaluate`` and training."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from birder.data.samples import Samples
from birder.distributed import collected, rank, world_size
from birder.errors import DataError, NotFinite
from birder.evaluation.metrics import (
    ClassScore,
    Confusion,
    Labels,
    macro_f1,
    most_confused,
    per_class,
    top_k_accuracy,
    wilson_interval,
)
from birder.inference.classification import Floats
from birder.inference.rows import Row
from birder.inference.scores import Scores, best, class_names, scores
from birder.model_file import ModelInfo
from birder.networks.base import Network

Best = tuple[Labels, Floats]
"""Labels of the best classes, and their probabilities."""

_KEPT = 5  # classes that are kept for each picture, so that a million pictures of ten thousand classes fit in memory


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a classifier did. Pictures that could not be read are in none of the numbers."""

    pictures: int
    """Pictures that were classified."""
    top1: float
    """Accuracy: the part whose class was named first."""
    top1_interval: tuple[float, float]
    """Where the true accuracy lies with a confidence of 95 %, by Wilson's method."""
    top3: float
    """The part whose class was among the first three; 1 where there are no more classes."""
    macro_f1: float
    """Mean F1 of the classes that have pictures."""
    classes: list[ClassScore]
    """One row for each class that has pictures or was predicted."""
    confused: list[Confusion]
    """The commonest mistakes, commonest first."""
    failures: list[Row]
    """Pictures that could not be read."""
    names: list[str]
    """Class names in the order of the labels."""
    paths: Sequence[Path]
    """The pictures that were classified; N of them. Those in tar files have the name of the tar file before theirs."""
    labels: Labels
    """What they show, (N,)."""
    ranked: Labels
    """What they were taken for, best first, (N, T); T is 5, or the number of classes if that is smaller."""
    probabilities: Floats
    """With what probability, (N, T)."""

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data for JSON: all but the single pictures; NaN becomes None."""
        return {
            "pictures": self.pictures,
            "unreadable": len(self.failures),
            "classes_with_pictures": sum(row.samples > 0 for row in self.classes),
            "classes_of_the_model": len(self.names),
            "top1": self.top1,
            "top1_interval_95": list(self.top1_interval),
            "top3": self.top3,
            "macro_f1": self.macro_f1,
            "classes": [_plain(row) for row in self.classes],
            "confused": [_plain(row) for row in self.confused],
            "failures": [{"path": failure.path, "reason": failure.reason} for failure in self.failures],
        }


def evaluate(
    network: Network,
    info: ModelInfo,
    samples: Samples,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    watch: Callable[[Iterator[Scores | Row]], Iterable[Scores | Row]] = iter,
    together: bool = False,
) -> Evaluation:
    """Classify labelled pictures and compare.

    Args:
        network: A network with a classifier; it is left in the mode it is in.
        info: What the model file says.
        samples: Labelled pictures, read with the classes of the model: ``read_samples(source, info.class_to_idx)``.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        device: Where to compute, and where the network is moved; None is where it is.
        watch: Passes on the results of the single pictures as they come, and may look at them, to show progress.
        together: All processes of a training call this at once: each classifies a part, and all get the whole.

    Raises:
        DataError: The samples have other classes than the model, or not one picture can be read.
        ConfigError: A number that makes no sense, or no such device.
        ModelFileError: The classes of ``info`` are not those of the network.
        NotFinite: The network's answer to a picture is no number.
    """
    names = class_names(network, info)
    if samples.class_to_idx != info.class_to_idx:
        raise DataError(
            "the samples do not have the model's classes: read_samples(source, info.class_to_idx) gives them"
        )
    part = samples.select(np.arange(rank(), len(samples), world_size())) if together else samples
    rows = scores(network, info, part, batch_size=batch_size, workers=workers, device=device)
    results = [row if isinstance(row, Row) else _best(row) for row in watch(rows)]
    if together:
        results = _joined(collected(results))
    failures = [row for row in results if isinstance(row, Row)]
    for failure in failures:
        if failure.code == "not_finite":
            raise NotFinite(f"{failure.path}: {failure.reason}")
    classified = [row for row in results if not isinstance(row, Row)]
    if not classified:
        reason = f"; {failures[0].path}: {failures[0].reason}" if failures else ""
        raise DataError(f"none of the {len(samples)} pictures can be read{reason}")
    return _compare(
        samples,
        np.array([not isinstance(row, Row) for row in results]),
        names=names,
        ranked=np.stack([labels for labels, _ in classified]),
        probabilities=np.stack([values for _, values in classified]),
        failures=failures,
    )


def _best(row: Scores) -> Best:
    order = best(row.probabilities, _KEPT)
    return order.astype(np.int32), row.probabilities[order]


def _joined(parts: list[list[Row | Best]]) -> list[Row | Best]:
    """The results in the order of the samples, of which process r of W has had every W-th from r on."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def _compare(
    samples: Samples,
    read: Labels,
    *,
    names: list[str],
    ranked: Labels,
    probabilities: Floats,
    failures: list[Row],
) -> Evaluation:
    classified = samples.select(np.flatnonzero(read))
    labels = classified.labels
    predicted = ranked[:, 0]
    right = int((labels == predicted).sum())
    return Evaluation(
        pictures=len(labels),
        top1=right / len(labels),
        top1_interval=wilson_interval(right, len(labels)),
        top3=top_k_accuracy(labels, ranked, 3),
        macro_f1=macro_f1(labels, predicted, len(names)),
        classes=per_class(labels, predicted, names),
        confused=most_confused(labels, predicted, names),
        failures=failures,
        names=names,
        paths=classified.paths,
        labels=labels,
        ranked=ranked,
        probabilities=probabilities,
    )


def _plain(row: ClassScore | Confusion) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
