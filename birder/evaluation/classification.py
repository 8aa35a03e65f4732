"""How good a classifier is on labelled pictures. The same function serves ``birder evaluate`` and training."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from birder.data.samples import Samples
from birder.distributed import collected, rank, world_size
from birder.errors import DataError, NotFinite
from birder.evaluation.estimates import Estimate, Indices, bootstrap
from birder.evaluation.metrics import (
    ClassScore,
    Confusion,
    Labels,
    balanced_accuracy,
    costliest,
    macro_f1,
    most_confused,
    per_class,
    top_k_accuracy,
    wilson_interval,
)
from birder.evaluation.reliability import Bin, bin_of, binned_error, brier, expected_calibration_error, reliability
from birder.inference.classes import class_names
from birder.inference.classification import Floats
from birder.inference.rows import Row
from birder.inference.scores import Scores, best, scores
from birder.model_file import ModelInfo
from birder.networks.base import Network

Halves: TypeAlias = np.ndarray[Any, np.dtype[np.float16]]

KEPT = 5
"""Classes that are kept for each picture, so that a million pictures of ten thousand classes fit in memory."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What pictures show, and what they were taken for."""

    labels: Labels
    """What they show, (N,)."""
    ranked: Labels
    """What they were taken for, best first, (N, T); T is 5, or less if fewer classes are known."""
    probabilities: Floats
    """With what probability, (N, T)."""

    @property
    def predicted(self) -> Labels:
        """The class that was named first, (N,)."""
        return self.ranked[:, 0]

    @property
    def confidence(self) -> Floats:
        """Its probability, (N,)."""
        return self.probabilities[:, 0]

    @property
    def right(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether it is the class on the label, (N,)."""
        return self.predicted == self.labels


@dataclass(frozen=True, kw_only=True)
class Evaluation(Ranked):
    """What a classifier said of labelled pictures; each figure about it is computed when it is first asked for.

    Pictures that could not be read are in none of the figures. Where a table of results has fewer answers to a picture
    than T, ``ranked`` is -1 and ``probabilities`` NaN.
    """

    names: list[str]
    """Class names in the order of the labels; K of them."""
    paths: Sequence[Path]
    """The pictures that were classified; N of them. Those in tar files have the name of the tar file before theirs."""
    label_probability: Floats
    """The probability of the class on the label, (N,); NaN where it is not known."""
    failures: list[Row]
    """Pictures that could not be read."""
    embeddings: Halves | None = None
    """The embeddings, (N, D), if they were asked for; what is too large for half precision is its largest number."""
    missing: int = 0
    """Labelled pictures that a table of results does not have; they are in none of the figures."""
    superfluous: int = 0
    """Pictures of a table of results that have no label."""

    @property
    def pictures(self) -> int:
        """Pictures that were classified, N."""
        return len(self.labels)

    @cached_property
    def top1(self) -> float:
        """Accuracy: the part whose class was named first."""
        return float(self.right.mean())

    @cached_property
    def top1_interval(self) -> tuple[float, float]:
        """Where the true accuracy lies with a confidence of 95 %, by Wilson's method."""
        return wilson_interval(int(self.right.sum()), self.pictures)

    @cached_property
    def top3(self) -> float:
        """The part whose class was among the first three; 1 where there are no more classes, NaN if it is not known."""
        return _top(self.labels, self.ranked, 3, len(self.names))

    @cached_property
    def top5(self) -> float:
        """The part whose class was among the first five; 1 where there are no more classes, NaN if it is not known."""
        return _top(self.labels, self.ranked, 5, len(self.names))

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have pictures."""
        return macro_f1(self.labels, self.predicted, len(self.names))

    @cached_property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have pictures: the accuracy if there were equally many pictures of each."""
        return balanced_accuracy(self.labels, self.predicted, len(self.names))

    @cached_property
    def ece(self) -> float:
        """Expected calibration error, 0-1; see ``birder.evaluation.reliability``."""
        return expected_calibration_error(self.confidence, self.right)

    @cached_property
    def brier(self) -> float:
        """Brier score of the first answers, 0-1; see ``birder.evaluation.reliability``."""
        return brier(self.confidence, self.right)

    @cached_property
    def reliability(self) -> list[Bin]:
        """Confidence and accuracy in 15 bins."""
        return reliability(self.confidence, self.right)

    @cached_property
    def classes(self) -> list[ClassScore]:
        """One row for each class that has pictures or was predicted."""
        return per_class(self.labels, self.predicted, self.names)

    @cached_property
    def confused(self) -> list[Confusion]:
        """The commonest mistakes, commonest first."""
        return most_confused(self.labels, self.predicted, self.names)

    @cached_property
    def costliest(self) -> list[Confusion]:
        """The mistakes that cost most when every species counts the same, costliest first."""
        return costliest(self.labels, self.predicted, self.names)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """``top1``, ``top3``, ``top5``, ``macro_f1``, ``balanced_accuracy``, ``ece`` and ``brier`` with intervals.

        The intervals are made by bootstrap, which takes seconds for 50,000 pictures.
        """
        return bootstrap(_figures(self), self.pictures)

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data for JSON: all but the single pictures; NaN becomes None."""
        return {
            "pictures": self.pictures,
            "unreadable": len(self.failures),
            "missing": self.missing,
            "superfluous": self.superfluous,
            "classes_with_pictures": sum(row.samples > 0 for row in self.classes),
            "classes_of_the_model": len(self.names),
            "top1": self.top1,
            "top1_interval_95": list(self.top1_interval),
            "top3": known(self.top3),
            "top5": known(self.top5),
            "macro_f1": self.macro_f1,
            "balanced_accuracy": self.balanced_accuracy,
            "ece": self.ece,
            "brier": self.brier,
            "estimates": {name: plain(estimate) for name, estimate in self.estimates.items()},
            "reliability": [plain(row) for row in self.reliability],
            "classes": [plain(row) for row in self.classes],
            "confused": [plain(row) for row in self.confused],
            "costliest": [plain(row) for row in self.costliest],
            "failures": [{"path": failure.path, "reason": failure.reason} for failure in self.failures],
        }


def plain(row: ClassScore | Confusion | Estimate | Bin) -> dict[str, Any]:
    """A row of numbers as plain data for JSON; NaN becomes None."""
    return {name: known(value) for name, value in dataclasses.asdict(row).items()}


class _Answer(NamedTuple):
    ranked: Labels
    """Labels of the best classes, (T,)."""
    probabilities: Floats
    """(T,)."""
    of_label: float
    """Probability of the class on the label."""
    embedding: Halves | None
    """(D,)."""


def evaluate(
    network: Network,
    info: ModelInfo,
    samples: Samples,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    embeddings: bool = False,
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
        embeddings: Keep the embedding of each picture.
        watch: Passes on the results of the single pictures as they come, and may look at them, to show progress.
        together: All processes of a training call this at once: each classifies a part, and all get the whole.

    Raises:
        DataError: The samples have other classes than the model, or not one picture can be read.
        ConfigError: A number that makes no sense, or no such device.
        ModelFileError: The classes of ``info`` are not those of the network.
        NotFinite: The network's answer to a picture is no number.
    """
    names = class_names(network, info.class_to_idx)
    if samples.class_to_idx != info.class_to_idx:
        raise DataError(
            "the samples do not have the model's classes: read_samples(source, info.class_to_idx) gives them"
        )
    part = samples.select(np.arange(rank(), len(samples), world_size())) if together else samples
    rows = scores(network, info, part, batch_size=batch_size, workers=workers, device=device, embeddings=embeddings)
    results = [
        row if isinstance(row, Row) else _answer(row, label)
        for row, label in zip(watch(rows), part.labels.tolist(), strict=True)
    ]
    if together:
        results = _joined(collected(results))
    return _evaluation(samples, results, names)


def _evaluation(samples: Samples, results: Sequence[Row | _Answer], names: list[str]) -> Evaluation:
    """What the results of all samples, in their order, come to."""
    failures = [row for row in results if isinstance(row, Row)]
    for failure in failures:
        if failure.code == "not_finite":
            raise NotFinite(f"{failure.path}: {failure.reason}")
    answers = [row for row in results if isinstance(row, _Answer)]
    if not answers:
        reason = f"; {failures[0].path}: {failures[0].reason}" if failures else ""
        raise DataError(f"none of the {len(samples)} pictures can be read{reason}")
    embedded = [answer.embedding for answer in answers if answer.embedding is not None]
    classified = samples.select(np.flatnonzero([isinstance(row, _Answer) for row in results]))
    return Evaluation(
        names=names,
        paths=classified.paths,
        labels=classified.labels,
        ranked=np.stack([answer.ranked for answer in answers]),
        probabilities=np.stack([answer.probabilities for answer in answers]),
        label_probability=np.array([answer.of_label for answer in answers], np.float32),
        failures=failures,
        embeddings=np.stack(embedded) if embedded else None,
    )


def _answer(row: Scores, label: int) -> _Answer:
    order = best(row.probabilities, KEPT)
    embedding = None if row.embedding is None else halves(row.embedding)
    return _Answer(order.astype(np.int32), row.probabilities[order], float(row.probabilities[label]), embedding)


def _joined(parts: list[list[Row | _Answer]]) -> list[Row | _Answer]:
    """The results in the order of the samples, of which process r of W has had every W-th from r on."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def halves(numbers: Floats) -> Halves:
    """In half precision; what is too large for it becomes its largest number."""
    most = np.finfo(np.float16).max
    return np.clip(numbers, -most, most).astype(np.float16)


def _top(labels: Labels, ranked: Labels, k: int, num_classes: int) -> float:
    """NaN where fewer than k answers of each picture are known, though there are more classes."""
    return top_k_accuracy(labels, ranked, k) if ranked.shape[1] >= min(k, num_classes) else math.nan


def _figures(evaluation: Evaluation) -> Callable[[Indices], dict[str, float]]:
    """The figures of some of the pictures; what does not depend on the choice is computed once."""
    labels, predicted, num_classes = evaluation.labels, evaluation.predicted.copy(), len(evaluation.names)
    excess = evaluation.confidence.astype(np.float64) - evaluation.right
    places = bin_of(evaluation.confidence)
    squares, means = np.square(excess), {}
    for name, k, figure in (("top1", 1, evaluation.top1), ("top3", 3, evaluation.top3), ("top5", 5, evaluation.top5)):
        found = (evaluation.ranked[:, :k] == labels[:, None]).any(axis=1)
        means[name] = np.full(len(labels), np.nan) if math.isnan(figure) else found

    def figures(indices: Indices) -> dict[str, float]:
        truth, answers = labels[indices], predicted[indices]
        return {
            **{name: float(values[indices].mean()) for name, values in means.items()},
            "macro_f1": macro_f1(truth, answers, num_classes),
            "balanced_accuracy": balanced_accuracy(truth, answers, num_classes),
            "ece": binned_error(places[indices], excess[indices]),
            "brier": float(squares[indices].mean()),
        }

    return figures


def known(value: Any) -> Any:
    """The value for JSON, which has no NaN: None in its place."""
    return None if isinstance(value, float) and math.isnan(value) else value
