"""Labels that are probably wrong, found by confident learning.

A picture is suspected when the network is surer of another class than it usually is of pictures that truly bear that
class's label, and less sure of the label than usual. The network must not have learned from the pictures.

Paper: Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068, section 3.1 (off-diagonals of the confident
joint), ordered by normalised margin.
Differs: only the best classes that an evaluation keeps, five, can be the right one.

Shapes: N pictures, K classes, T best classes of each picture.
"""

from dataclasses import dataclass

import numpy as np

from birder.evaluation.classification import Evaluation


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A picture whose label is probably wrong."""

    index: int
    """Which picture, its place in ``Evaluation.paths``."""
    label: int
    """The class on its label."""
    predicted: int
    """The class that it probably shows."""
    score: float
    """How much more probable than the label that is, -1 to 1."""


def suspected_labels(evaluation: Evaluation) -> list[Suspect]:
    """The pictures whose label is probably wrong, most probably first.

    A label whose probability is not known (NaN, as of a table of the best classes) counts as improbable.
    """
    known = ~np.isnan(evaluation.label_probability)
    of_label = np.where(known, evaluation.label_probability, 0.0).astype(np.float64)
    # How sure the network is of a class on average, over the pictures with its label; of a class without, nothing is
    # known, and no picture is taken for one of it.
    counts = np.bincount(evaluation.labels[known], minlength=len(evaluation.names))
    sums = np.bincount(evaluation.labels, of_label, minlength=len(evaluation.names))
    usual = np.full(len(counts), np.inf)
    np.divide(sums, counts, out=usual, where=counts > 0)
    sure = evaluation.probabilities >= usual[evaluation.ranked]  # (N, T); never of NaN, where there is no answer
    place = np.arange(len(sure)), sure.argmax(axis=1)  # best first: the first of them is the likeliest
    taken, margin = evaluation.ranked[place], evaluation.probabilities[place] - of_label
    (found,) = np.nonzero(sure.any(axis=1) & (taken != evaluation.labels))
    return [
        Suspect(
            index=int(index),
            label=int(evaluation.labels[index]),
            predicted=int(taken[index]),
            score=float(margin[index]),
        )
        for index in found[np.argsort(-margin[found], kind="stable")]
    ]
