"""Prediction sets: as many species as it takes to have the right one among them in a stated share of the pictures.

Split conformal prediction needs labelled pictures that the network has not learned from, and makes no assumption but
one: that the pictures it is used on are of the same kind, so that all could be shuffled. Then the sets have the label
in them with at least the stated probability, whatever the network is worth; a bad network has large sets.

A method says how strange a class is for a picture, 0-1. ``lac``, the default, is 1 minus its probability, which gives
the smallest sets on average; they may be empty where no class is probable. ``aps`` is the probability of all classes
that are as probable or more, itself included; its sets are larger, vary more with the difficulty of a picture, and are
never empty.

Papers: Vovk et al. 2005, Algorithmic Learning in a Random World; Sadinle et al. 2019, https://arxiv.org/abs/1609.00451
(lac); Romano et al. 2020, https://arxiv.org/abs/2006.02544 (aps).
Differs: the paper draws a random number for each picture, which makes the sets of aps smaller. Here the same picture
always has the same set.

Shapes: N pictures, K classes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from birder.errors import ConfigError, DataError

Numbers: TypeAlias = np.ndarray[Any, Any]
Method: TypeAlias = Literal["lac", "aps"]


@dataclass(frozen=True, kw_only=True)
class Resplits:
    """What sets were worth on one half of the pictures when their threshold came from the other, in many splits."""

    coverage: float
    """The part of the pictures whose label is in their set, the mean over the splits."""
    low: float
    """In one split of twenty it is less."""
    high: float
    """In one split of twenty it is more."""
    size: float
    """Classes in a set, the mean over pictures and splits."""


def class_scores(probabilities: Numbers, method: Method = "lac") -> Numbers:
    """How strange each class is for each picture, (N, K) -> (N, K) in float64, 0-1.

    Args:
        probabilities: Of all classes for ``aps``; for ``lac`` of any, in any shape.
        method: ``lac`` or ``aps``.

    Raises:
        ConfigError: No such method.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if method == "lac":
        return 1 - probabilities
    if method != "aps":
        raise ConfigError(f"method: {method!r} is none of lac, aps")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def label_scores(probabilities: Numbers, labels: Numbers, method: Method = "lac") -> Numbers:
    """How strange the label is for each picture, (N, K) and (N,) -> (N,).

    For ``lac`` the probability of the label is enough: ``class_scores(evaluation.label_probability)``.

    Raises:
        ConfigError: No such method.
    """
    return class_scores(probabilities, method)[np.arange(len(labels)), labels]


def conformal_threshold(label_scores: Numbers, coverage: float) -> float:
    """How strange a class may be that belongs to the set: the ceil((N + 1) coverage)-th smallest of the scores.

    Args:
        label_scores: Of labelled pictures that the network has not learned from, (N,); NaN is one that is not known,
            and counts as stranger than all others.
        coverage: How often the label shall be in the set, above 0 and below 1.

    Returns:
        The threshold; infinite where there are too few pictures to promise anything but the set of all classes, which
        is fewer than coverage / (1 - coverage).

    Raises:
        ConfigError: A coverage that is not between 0 and 1.
        DataError: The scores are not (N,).
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage is a part of the pictures, above 0 and below 1, not {coverage}")
    scores = np.asarray(label_scores, np.float64)
    if scores.ndim != 1:
        raise DataError(f"the scores of labels must be (N,), not {scores.shape}")
    # 0.9 * 10 is 9, but in floats may be a little more, which would ask for one picture too many.
    place = math.ceil(round((len(scores) + 1) * coverage, 9))
    if place > len(scores):
        return math.inf
    return float(np.partition(np.where(np.isnan(scores), math.inf, scores), place - 1)[place - 1])


def prediction_sets(probabilities: Numbers, threshold: float, method: Method = "lac") -> Numbers:
    """Which classes are in the set of each picture, (N, K) -> (N, K) of bool.

    Args:
        probabilities: See ``class_scores``.
        threshold: What ``conformal_threshold`` gave for scores of the same method.
        method: ``lac`` or ``aps``.

    Raises:
        ConfigError: No such method.
    """
    return class_scores(probabilities, method) <= threshold


def resplits(label_scores: Numbers, scores: Numbers, coverage: float, *, draws: int = 1000, seed: int = 0) -> Resplits:
    """Keep the promise or break it: halve the pictures at random, threshold from one half, sets for the other.

    Args:
        label_scores: How strange the label is for each picture, (N,).
        scores: ``class_scores`` (N, K). Of the best classes alone, (N, T), the size of the sets is counted up to T.
        coverage: How often the label shall be in the set, above 0 and below 1.
        draws: How many random splits; odd pictures go to the half that is asked.
        seed: The same seed gives the same splits.

    Raises:
        ConfigError: A coverage that is not between 0 and 1, or no splits.
        DataError: Fewer than two pictures, or scores of other pictures.
    """
    if len(label_scores) < 2 or len(scores) != len(label_scores):
        raise DataError(f"cannot halve {len(label_scores)} pictures, of which {len(scores)} have scores")
    if draws < 1:
        raise ConfigError(f"at least one split is needed, not {draws}")
    random, half = np.random.default_rng(seed), len(label_scores) // 2
    covered, sizes = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        order = random.permutation(len(label_scores))
        threshold = conformal_threshold(label_scores[order[:half]], coverage)
        asked = order[half:]
        covered[draw] = np.less_equal(label_scores[asked], threshold).mean()
        sizes[draw] = np.less_equal(scores[asked], threshold).sum() / len(asked)
    low, high = np.quantile(covered, (0.05, 0.95)).tolist()
    return Resplits(coverage=float(covered.mean()), low=low, high=high, size=float(sizes.mean()))
