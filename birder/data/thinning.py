"""Fewer pictures of a large labelled set, so that those of a class still have others of their class beside them."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

OF_A_CLASS = 20
"""Pictures of a class that are kept, where it has so many, before classes are left out."""


def thinned(labels: Array, most: int) -> Array:
    """Some of the pictures, at most ``most``: of large classes fewer, and where that is not enough, of fewer classes.

    Every n-th picture of a set with many classes would leave single pictures, which have no others like them. Here a
    class keeps ``OF_A_CLASS`` pictures or more, all when it has fewer, or it is left out as a whole. What is kept lies
    evenly in the set; no random numbers are drawn.

    Args:
        labels: The class of each picture, int64 (N,).
        most: Pictures to keep, at most; ``OF_A_CLASS`` or more.

    Returns:
        Their places, int64 (at most N,), rising.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = np.unique(labels, return_counts=True)[1]
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    kept = np.minimum(counts, max(most // len(counts), OF_A_CLASS))
    chosen = evenly(len(counts), min(len(counts), len(counts) * most // int(kept.sum())))
    while kept[chosen].sum() > most:  # seldom, and then a few times: where the classes chosen are larger than others
        chosen = evenly(len(counts), len(chosen) - 1)
    return np.sort(np.concatenate([classes[place][evenly(counts[place], kept[place])] for place in chosen]))


def evenly(number: int, most: int) -> Array:
    """``most`` of the whole numbers below ``number``, evenly spaced; all when there are not more."""
    return np.linspace(0, number - 1, min(most, number)).round().astype(np.int64)
