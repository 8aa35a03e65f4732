"""What a network's embeddings are worth, without training it: the numbers behind ``birder probe``.

The network stays as it is. On its embeddings of labelled pictures stand three classifiers: the nearest neighbours, a
linear probe, and the nearest class mean of a few pictures of each class. All are made of the training part alone; the
validation part is asked once, at the end. Some thousand pictures cost seconds; of many pictures of many classes the
linear probe takes longest, see ``birder.evaluation.linear``.

Shapes: N pictures, D size of the embedding, K classes.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from birder.data.grouping import relative_names
from birder.data.samples import Samples
from birder.data.split import deal
from birder.data.tables import check_folder, write_csv
from birder.errors import ConfigError, DataError
from birder.evaluation.linear import tuned_linear
from birder.evaluation.metrics import Accuracy, top_k_accuracy
from birder.evaluation.representation import chunks, diagnosis, nearest_class
from birder.files import write_text
from birder.inference.embeddings import Embedded, embeddings, stacked
from birder.inference.rows import Row
from birder.networks.base import Network
from birder.signature import RGBStats

SHOTS = (1, 2, 5, 10, 20)
DRAWS = 10
"""How often the few pictures of each class are drawn."""


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """How well the classes are told apart by the means of a few pictures of each."""

    shots: int
    """Pictures of each class; all there are of classes that have fewer."""
    accuracy: Accuracy
    """The mean over the draws; the interval is that of as many pictures asked once, and so rather too wide."""
    spread: float
    """Standard deviation between the draws."""
    incomplete: int
    """Classes that have fewer pictures."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the embeddings of a network are worth. Pictures that could not be read are in none of the numbers."""

    training: int
    """Pictures that the classifiers were made of."""
    validation: int
    """Pictures that they were asked about."""
    classes: int
    """Classes of the training pictures, K."""
    dimensions: int
    """Size of the embedding, D."""
    neighbours: int
    """How many neighbours vote."""
    knn: Accuracy
    """Accuracy of the nearest neighbours."""
    linear: Accuracy
    """Accuracy of the linear probe."""
    linear_top3: Accuracy
    """The part whose class is among the first three of the linear probe."""
    weight_decay: float
    """How strongly the weights of the linear probe were drawn to zero, as a fifth of the training part chose."""
    few_shot: list[FewShot]
    """One row for each number of pictures that the largest class has, fewest first."""
    diagnosis: dict[str, float]
    """``rank``, ``deviation`` and ``uniformity`` of the validation part; see ``birder.evaluation.representation``."""
    failures: list[Row]
    """Pictures that could not be read, of both parts."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        plain = dataclasses.asdict(dataclasses.replace(self, failures=[]))
        rows = [{"path": failure.path, "reason": failure.reason} for failure in self.failures]
        return plain | {"unreadable": len(rows), "failures": rows}


def probe(
    network: Network,
    stats: RGBStats,
    training: Samples,
    validation: Samples,
    *,
    k: int = 20,
    shots: Sequence[int] = SHOTS,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 0,
    device: torch.device | str | None = None,
    watch: Callable[[Iterator[Embedded | Row]], Iterable[Embedded | Row]] = iter,
    tell: Callable[[str], object] = str,
) -> Probe:
    """Judge a network by its embeddings of labelled pictures.

    Args:
        network: Any network, with or without a classifier; it is left as it is.
        stats: Colour statistics, from the model file.
        training: What the classifiers are made of.
        validation: What they are asked about, with the same classes: ``read_samples(source, training.class_to_idx)``.
        k: How many neighbours vote.
        shots: Pictures of each class to draw, for the few-shot curve.
        seed: Of the draws, and of the part that chooses the strength of the linear probe.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        device: Where to compute, and where the network is moved; None is where it is.
        watch: Passes on the results of the single pictures as they come, and may look at them, to show progress.
        tell: Is told in words what is computed of them after that, each part as it begins.

    Raises:
        ConfigError: A number that makes no sense, a network that does not take RGB.
        DataError: The parts have different classes or the same pictures, too few of their pictures can be read, or
            embeddings are zero.
        NotFinite: An embedding is no number.
    """
    if training.class_to_idx != validation.class_to_idx:
        raise DataError(
            "the two parts do not have the same classes: read_samples(source, training.class_to_idx) gives them"
        )
    _check(k, shots)
    names = {os.path.abspath(training.name(index)) for index in range(len(training))}
    both = sum(os.path.abspath(validation.name(index)) in names for index in range(len(validation)))
    if both:
        raise DataError(f"{both} of {len(validation)} pictures to ask about are learned from: give others to one part")
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": device}
    streams = [embeddings(network, stats, samples, **options) for samples in (training, validation)]
    results = list(watch(chain(*streams)))
    place = next(network.parameters()).device
    parts = [stacked(part, place) for part in (results[: len(training)], results[len(training) :])]
    failures = [row for row in results if isinstance(row, Row)]
    return probe_embeddings(*parts[0], *parts[1], k=k, shots=shots, seed=seed, failures=failures, tell=tell)


def probe_embeddings(
    rows: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    *,
    k: int = 20,
    shots: Sequence[int] = SHOTS,
    seed: int = 0,
    failures: Sequence[Row] = (),
    tell: Callable[[str], object] = str,
) -> Probe:
    """Judge embeddings: ``probe`` without pictures.

    Args:
        rows: (N, D), what the classifiers are made of.
        labels: (N,), int64; a class may be missing.
        queries: (M, D), what they are asked about.
        truth: (M,), the labels of these; of a class that is missing among ``labels``, none is named right.
        k: See ``probe``.
        shots: See ``probe``.
        seed: See ``probe``.
        failures: Pictures that have no embedding.
        tell: See ``probe``.

    Raises:
        ConfigError: A number that makes no sense.
        DataError: Fewer than two classes or two queries, or embeddings that are zero.
    """
    _check(k, shots)
    classes, known = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise DataError("the pictures that could be read have only one class: there is nothing to tell apart")
    if len(queries) < 2:
        raise DataError(f"there must be two pictures to ask about, or more, not {len(queries)}")
    linear = tuned_linear(rows, known, seed=seed, tell=tell)
    first = [linear.logits(part).topk(min(3, len(classes))).indices for _, part in chunks(queries, len(classes))]
    ranked = classes[torch.cat(first)].cpu().numpy()
    return Probe(
        training=len(rows),
        validation=len(queries),
        classes=len(classes),
        dimensions=rows.shape[1],
        neighbours=min(k, len(rows)),
        knn=_accuracy(nearest_class(rows, labels, queries, k) == truth),
        linear=_accuracy(torch.from_numpy(ranked[:, 0]).to(truth.device) == truth),
        linear_top3=Accuracy.of(top_k_accuracy(truth.cpu().numpy(), ranked, 3) * len(truth), len(truth)),
        weight_decay=linear.weight_decay,
        few_shot=_curve(rows, labels, queries, truth, shots=shots, seed=seed),
        diagnosis=diagnosis(queries),
        failures=list(failures),
    )


def nearest_mean(rows: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The class whose mean is nearest, (M,), after all embeddings are centred by ``rows`` and scaled to length one.

    Paper: Wang et al. 2019 (SimpleShot), https://arxiv.org/abs/1911.04623
    Differs: centred by the mean of the pictures at hand, as no others are known.

    Args:
        rows: (N, D), a few pictures of each class.
        labels: (N,), int64; a class may be missing.
        queries: (M, D).
    """
    classes, known = labels.unique(return_inverse=True)
    centre = rows.mean(dim=0)
    means = torch.zeros_like(rows[: len(classes)]).index_add_(0, known, F.normalize(rows - centre))
    means /= known.bincount()[:, None]
    # The nearest in Euclid's sense: of |q - m|^2, |q|^2 is the same for all classes.
    lengths = means.square().sum(dim=1)
    nearest = [
        (2 * F.normalize(part - centre) @ means.T - lengths).argmax(dim=1) for _, part in chunks(queries, len(classes))
    ]
    return classes[torch.cat(nearest)]


def split_off(source: Path, samples: Samples, *, val: float = 0.2, seed: int = 0) -> tuple[Samples, Samples]:
    """A training and a validation part of one set, the same pictures as ``birder data split --val`` gives.

    Args:
        source: Where the samples come from.
        samples: All pictures.
        val: Share of the pictures to validate on.
        seed: Another one, another split.

    Raises:
        DataError: No class has enough pictures to give one away.
    """
    groups = np.arange(len(samples))
    part = deal(samples.labels, groups, relative_names(source, samples), val=val, test=0.0, seed=seed)
    if not part.any():
        raise DataError(f"{source} has too few pictures of each class to hold some out: give others to validate on")
    return samples.select(np.flatnonzero(part == 0)), samples.select(np.flatnonzero(part == 1))


def _check(k: int, shots: Sequence[int]) -> None:
    if min((k, *shots)) < 1:
        raise ConfigError(f"k and shots must be 1 or more, not {k} and {', '.join(map(str, shots))}")


def _accuracy(right: Tensor) -> Accuracy:
    return Accuracy.of(int(right.sum()), len(right))


def _curve(
    rows: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, *, shots: Sequence[int], seed: int
) -> list[FewShot]:
    counts = labels.unique(return_counts=True)[1]
    # The pictures of a smaller number are among those of a larger one, so that the curve is smooth.
    places = [_place_in_class(labels, np.random.default_rng((seed, draw))) for draw in range(DRAWS)]
    curve = []
    for number in sorted({shot for shot in shots if shot <= counts.max()}):
        chosen = [place < number for place in places]
        right = [int((nearest_mean(rows[some], labels[some], queries) == truth).sum()) / len(truth) for some in chosen]
        curve.append(
            FewShot(
                shots=number,
                accuracy=Accuracy.of(float(np.mean(right)) * len(truth), len(truth)),
                spread=float(np.std(right, ddof=1)),
                incomplete=int((counts < number).sum()),
            )
        )
    return curve


def _place_in_class(labels: Tensor, random: np.random.Generator) -> Tensor:
    """When each picture is drawn among those of its class, from 0, in random order; (N,)."""
    values = labels.cpu().numpy()
    order = random.permutation(len(values))
    by_class = order[np.argsort(values[order], kind="stable")]
    sizes = np.unique(values, return_counts=True)[1]
    place = np.empty(len(values), np.int64)
    place[by_class] = np.concatenate([np.arange(size) for size in sizes])
    return torch.from_numpy(place).to(labels.device)


def check_output(path: Path) -> None:
    """Say now what would keep ``write_probe`` from writing when the work is done.

    Raises:
        ConfigError: Another suffix than .json and .csv, or a folder that cannot be written to.
    """
    if path.suffix.lower() not in (".json", ".csv"):
        raise ConfigError(f"{path}: the numbers go to a file that ends in .json or .csv")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; the numbers go to a file")
    check_folder(path.parent)


def write_probe(path: Path, result: Probe, about: Mapping[str, Any]) -> None:
    """Write all numbers as JSON, or as a table with the columns measure, shots, value, low, high; atomically.

    Args:
        path: Ends in .json or .csv; its folder is made if need be.
        result: What was measured.
        about: What it was measured of, for the beginning of the JSON.

    Raises:
        ConfigError: It cannot be written.
    """
    check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".json":
            write_text(path, json.dumps({**about, **result.to_dict()}, indent=2, ensure_ascii=False) + "\n")
        else:
            write_csv(path, ["measure", "shots", "value", "low", "high"], _table(result))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _table(result: Probe) -> Iterator[list[str]]:
    accuracies = [("knn", "", result.knn), ("linear", "", result.linear), ("linear_top3", "", result.linear_top3)]
    few = [("nearest_mean", str(row.shots), row.accuracy) for row in result.few_shot]
    for measure, shots, accuracy in accuracies + few:
        yield [measure, shots, *(f"{value:.6f}" for value in (accuracy.value, *accuracy.interval))]
    for measure, value in result.diagnosis.items():
        yield [measure, "", f"{value:.6f}", "", ""]
