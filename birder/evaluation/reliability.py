"""Does a probability mean what it says? And how sure must an answer be to be trusted?

Everything here is about the class that was named first: ``confidence`` is the probability that it was given, (N,), 0-1,
and ``right`` whether it is the class on the label, (N,), bool.

Papers: Guo et al. 2017, https://arxiv.org/abs/1706.04599 (reliability diagram, expected calibration error); Brier 1950,
https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; El-Yaniv and Wiener 2010,
https://jmlr.org/papers/v11/el-yaniv10a.html (accuracy against coverage).

Shapes: N pictures.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from birder.data.thinning import evenly
from birder.errors import ConfigError, DataError
from birder.evaluation.metrics import wilson_interval

Numbers: TypeAlias = np.ndarray[Any, Any]

BINS = 15
"""Bins of a reliability diagram, as the paper has them."""
MOST_POINTS = 200
"""Points of a curve of accuracy against coverage, at most."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers whose confidence lies above ``low``, up to and with ``high``; 0 itself is in the first bin."""

    low: float
    """Where the bin begins, 0-1."""
    high: float
    """Where it ends, 0-1."""
    pictures: int
    """Answers in it."""
    confidence: float
    """Their mean confidence; NaN without answers."""
    accuracy: float
    """The part of them that is right; NaN without answers."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How right a model is when it only answers where it is sure. P points, at most 200, the surest answers first."""

    threshold: Numbers
    """The least confidence that counts as an answer, (P,), falling."""
    coverage: Numbers
    """The part of the pictures that are answered then, (P,), rising to 1."""
    accuracy: Numbers
    """The part of these answers that is right, (P,)."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A least confidence, and what it would have done on these pictures."""

    threshold: float
    """Answers with this confidence or more count."""
    coverage: float
    """The part of the pictures that are answered."""
    error: float
    """The part of these answers that is wrong."""
    interval: tuple[float, float]
    """Where the true error lies with a confidence of 95 %, by Wilson's method."""


def reliability(confidence: Numbers, right: Numbers, bins: int = BINS) -> list[Bin]:
    """A reliability diagram: bins of equal width, lowest first, also those without answers; (N,) each.

    Raises:
        DataError: The two do not belong together, or a confidence is no number in 0-1.
        ConfigError: Fewer than one bin.
    """
    confidence, right = _checked(confidence, right)
    places, edges = bin_of(confidence, bins), _edges(bins)
    pictures = np.bincount(places, minlength=bins)
    sums = np.bincount(places, confidence, minlength=bins)
    hits = np.bincount(places, right, minlength=bins)
    return [
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            pictures=int(count),
            confidence=float(sums[number] / count) if count else math.nan,
            accuracy=float(hits[number] / count) if count else math.nan,
        )
        for number, count in enumerate(pictures)
    ]


def expected_calibration_error(confidence: Numbers, right: Numbers, bins: int = BINS) -> float:
    """The mean distance between confidence and accuracy of the bins, weighed by their answers; NaN without answers.

    A small set of perfectly calibrated answers has an error above 0, too, as its bins are small.

    Raises:
        DataError: See ``reliability``.
        ConfigError: See ``reliability``.
    """
    confidence, right = _checked(confidence, right)
    return binned_error(bin_of(confidence, bins), confidence - right, bins)


def brier(confidence: Numbers, right: Numbers) -> float:
    """The mean squared distance between confidence and truth, 0 to 1, less is better; NaN without answers.

    It is that of "the first answer is right", which has two outcomes, not that of all classes at once.

    Raises:
        DataError: See ``reliability``.
    """
    confidence, right = _checked(confidence, right)
    return float(np.square(confidence - right).mean()) if len(right) else math.nan


def accuracy_by_coverage(confidence: Numbers, right: Numbers) -> Coverage:
    """Accuracy of the answers above each threshold; (N,) each. Answers that are equally sure come and go together.

    Raises:
        DataError: See ``reliability``.
    """
    threshold, answered, wrong = _by_threshold(*_checked(confidence, right))
    kept = evenly(len(threshold), MOST_POINTS)
    threshold, answered, wrong = threshold[kept], answered[kept], wrong[kept]
    return Coverage(threshold=threshold, coverage=answered / max(1, len(right)), accuracy=1 - wrong / answered)


def threshold_for(confidence: Numbers, right: Numbers, max_error: float = 0.05) -> Threshold | None:
    """The lowest threshold at which no more than ``max_error`` of the answers on these pictures are wrong.

    The threshold is chosen on the same pictures, so on others the error may be above ``max_error``; ``interval`` says
    by how much.

    Returns:
        None where no threshold keeps the promise.

    Raises:
        ConfigError: ``max_error`` is not in 0-1.
        DataError: See ``reliability``.
    """
    if not 0 <= max_error <= 1:
        raise ConfigError(f"max_error is a part of the answers, 0 to 1, not {max_error}")
    threshold, answered, wrong = _by_threshold(*_checked(confidence, right))
    (kept,) = np.nonzero(wrong / answered <= max_error)
    if not len(kept):
        return None
    total, errors = int(answered[kept[-1]]), int(wrong[kept[-1]])
    return Threshold(
        threshold=float(threshold[kept[-1]]),
        coverage=total / len(right),
        error=errors / total,
        interval=wilson_interval(errors, total),
    )


def bin_of(confidence: Numbers, bins: int = BINS) -> Numbers:
    """The number of the bin of each answer, (N,) -> (N,), 0 to ``bins`` - 1.

    Raises:
        ConfigError: Fewer than one bin.
    """
    return np.searchsorted(_edges(bins)[1:-1], confidence)


def binned_error(places: Numbers, excess: Numbers, bins: int = BINS) -> float:
    """The expected calibration error of answers in these bins, whose confidence is that much above the truth; (N,)."""
    return float(np.abs(np.bincount(places, excess, minlength=bins)).sum() / len(places)) if len(places) else math.nan


def _edges(bins: int) -> Numbers:
    if bins < 1:
        raise ConfigError(f"a reliability diagram has one bin at least, not {bins}")
    return np.linspace(0.0, 1.0, bins + 1)


def _by_threshold(confidence: Numbers, right: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Each confidence that occurs, highest first; how many are as sure or surer; how many of these are wrong."""
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], np.cumsum(~right[order])
    last = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True)) if len(order) else order
    return confidence[last], last + 1, wrong[last]


def _checked(confidence: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise DataError(f"confidence and right must be (N,) both, not {confidence.shape} and {right.shape}")
    # A softmax in float32 may be above 1 by its rounding.
    if not ((confidence >= 0) & (confidence <= 1 + 1e-5)).all():
        raise DataError("confidence must be a probability, 0 to 1, for every picture; NaN is none")
    return confidence, right
