"""From a model and labelled pictures to a calibration, with figures that say what it is worth.

All figures are cross-fitted: what is measured on a fifth of the pictures was fitted on the other four. What is stored
was fitted on all of them.

Shapes: N pictures, K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from birder.calibration.novelty import Seen, Separation, fit_novelty, folds_of, raw_scores, separation
from birder.calibration.temperature import fit_temperature, log_likelihood
from birder.calibration.wanted import Wanted
from birder.data.samples import Samples
from birder.errors import DataError
from birder.evaluation.conformal import conformal_threshold, prediction_sets
from birder.evaluation.reliability import Threshold, expected_calibration_error, threshold_for
from birder.inference.checklist import log_softmax
from birder.inference.classes import check_classifier, class_names
from birder.inference.classification import evaluation_mode
from birder.inference.embeddings import Embedded, embeddings
from birder.inference.rows import Row
from birder.model_file import Calibration, ModelInfo, Novelty
from birder.networks.base import Network

Numbers: TypeAlias = np.ndarray[Any, Any]
Watch: TypeAlias = Callable[[Embedded | Row], None]

FEWEST = 100
"""Pictures below which nothing is calibrated: a share of 5 % of them would be less than five pictures."""

_TOGETHER = 1024  # embeddings that are classified at once


@dataclass(frozen=True, kw_only=True)
class Found:
    """A calibration, and what it is worth on pictures that it was not fitted on."""

    calibration: Calibration
    """To be stored with the model."""
    accuracy: float
    """The share of the pictures whose class is named first."""
    nll: tuple[float, float]
    """Mean negative log-likelihood of the labels before and after, in nats."""
    ece: tuple[float, float]
    """Expected calibration error before and after, 0-1."""
    threshold: Threshold | None
    """The least score that keeps to the share of mistakes; None if none does."""
    covered: float
    """How often the label was in its prediction set."""
    set_size: float
    """Mean number of classes in a set."""
    separation: Separation | None
    """How well novelty tells the pictures of other things; None without such pictures or without novelty."""
    failures: list[Row]
    """Pictures that could not be read."""


def calibrate(
    network: Network,
    info: ModelInfo,
    samples: Samples,
    wanted: Wanted,
    *,
    others: Samples | None = None,
    training: Samples | None = None,
    batch_size: int = 32,
    workers: int = 0,
    watch: Watch = lambda result: None,
) -> Found:
    """Fit temperature, threshold and novelty.

    Args:
        network: A network with a classifier, where it is to compute.
        info: What its file says; an older calibration in it counts for nothing.
        samples: Pictures of the model's classes that it was not trained on.
        wanted: What to promise.
        others: Pictures of other things. With them, novelty is measured, and left out if it is not surely better than
            max softmax.
        training: Pictures that the network was trained on, to take centroids and covariances of the classes from; these
            are better known then, as training pictures are more. None takes ``samples`` for this, too.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; 0 reads them in this process.
        watch: Called with the result of each picture, to show progress.

    Raises:
        ModelFileError: The model has no classifier.
        DataError: Pictures of other classes, or too few that can be read.
        ConfigError: A batch size or number of workers that makes no sense.
        NotFinite: The network's answer to a picture is no number.
    """
    check_classifier(network)
    class_names(network, info.class_to_idx)
    if any(part is not None and part.class_to_idx != info.class_to_idx for part in (samples, training)):
        raise DataError("the pictures do not have the model's classes: read_samples(source, info.class_to_idx)")

    def seen_of(pictures: Samples) -> tuple[Seen, list[Row]]:
        stream = embeddings(network, info.rgb_stats, pictures, batch_size=batch_size, workers=workers)
        return seen(network, stream, watch)

    known, failures = seen_of(samples)
    if len(known) < FEWEST:
        raise DataError(
            f"{len(known)} pictures that can be read are too few to calibrate with: it takes {FEWEST}, and 1,000 are "
            "better; they must be none that the model was trained on"
        )
    found = replace(_scaled(known, wanted), failures=failures)
    novelty = None
    if wanted.novelty != "none":
        (strange, more), (trained, yet_more) = [
            (None, []) if part is None else seen_of(part) for part in (others, training)
        ]
        novelty, separated = fit_and_measure(wanted, known, strange, trained)
        found = replace(found, separation=separated, failures=[*failures, *more, *yet_more])
    data = samples.fingerprint()
    return replace(found, calibration=replace(found.calibration, data=data, novelty=novelty))


def seen(
    network: Network, results: Iterable[Embedded | Row], watch: Watch = lambda result: None
) -> tuple[Seen, list[Row]]:
    """What the network answered to the pictures that could be read, and the others' rows."""
    rows: list[Embedded] = []
    failures: list[Row] = []
    for result in results:
        watch(result)
        (rows if isinstance(result, Embedded) else failures).append(result)  # type: ignore[arg-type]
    embedded = np.stack([row.embedding for row in rows] or [np.empty(network.embedding_size, np.float32)])[: len(rows)]
    place = next(network.parameters())
    with torch.inference_mode(), evaluation_mode(network):
        parts = [
            network.classify(torch.from_numpy(part).to(place)).float().cpu().numpy()
            for part in np.split(embedded, range(_TOGETHER, len(rows), _TOGETHER))
        ]
    return Seen(
        embeddings=embedded, logits=np.concatenate(parts), labels=np.array([row.label for row in rows])
    ), failures


def fit_and_measure(
    wanted: Wanted, known: Seen, strange: Seen | None = None, training: Seen | None = None
) -> tuple[Novelty | None, Separation | None]:
    """The novelty to store, None if it is not surely better than max softmax; and how well it does."""
    novelty, raw = fit_novelty(wanted.novelty, known, kept=wanted.kept, training=training)
    if strange is None or not len(strange):
        return novelty, None
    plain = [raw_scores("max_softmax", {}, pictures) for pictures in (known, strange)]
    found = separation((raw, plain[0]), (raw_scores(novelty.kind, novelty.arrays, strange), plain[1]))
    measured = {
        "auroc": found.auroc.value,
        "auroc_max_softmax": found.auroc.value - found.better.value,
        "fpr95": found.fpr95.value,
        "fpr95_max_softmax": found.fpr95.value + found.fewer.value,
        "pictures": len(strange),
    }
    return (replace(novelty, measured=measured) if found.better.low > 0 else None), found


def _scaled(known: Seen, wanted: Wanted) -> Found:
    """Temperature and threshold from all pictures, and figures of temperatures that were fitted on others."""
    part = folds_of(len(known))
    probabilities = np.empty(known.logits.shape)
    for fold, rest in _splits(part):
        temperature = fit_temperature(known.logits[rest], known.labels[rest])
        probabilities[fold] = np.exp(log_softmax(known.logits[fold] / temperature))
    label = probabilities[np.arange(len(known)), known.labels]
    before = np.exp(log_softmax(known.logits))
    right = known.logits.argmax(axis=1) == known.labels
    threshold = threshold_for(probabilities.max(axis=1), right, wanted.max_error)
    inside = np.empty(len(known), bool)
    sizes = np.empty(len(known))
    for fold, rest in _splits(part):
        limit = conformal_threshold(1 - label[rest], wanted.coverage)
        sets = prediction_sets(probabilities[fold], limit)
        inside[fold], sizes[fold] = sets[np.arange(len(sets)), known.labels[fold]], sets.sum(axis=1)
    return Found(
        calibration=Calibration(
            temperature=fit_temperature(known.logits, known.labels),
            pictures=len(known),
            data="",
            max_error=wanted.max_error,
            threshold=None if threshold is None else threshold.threshold,
        ),
        accuracy=float(right.mean()),
        nll=(-float(log_likelihood(known.logits, known.labels).mean()), -float(np.log(label).mean())),
        ece=(
            expected_calibration_error(before.max(axis=1), right),
            expected_calibration_error(probabilities.max(axis=1), right),
        ),
        threshold=threshold,
        covered=float(inside.mean()),
        set_size=float(sizes.mean()),
        separation=None,
        failures=[],
    )


def _splits(part: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Masks of each fold and of the rest."""
    for number in np.unique(part):
        yield part == number, part != number
