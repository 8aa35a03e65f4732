"""An order of the classes in which those that are taken for each other are neighbours.

Shapes: K classes, N pictures, T best classes of each.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np

from birder.errors import need
from birder.evaluation.metrics import Labels
from birder.inference.classification import Floats
from birder.report.joined import Answers

MOST_CLUSTERED = 2_000
"""Classes; the time grows with the third power, and more are too many to be told apart by eye."""
_NOTHING = 1e-3  # less likeness than this does not count


def leaning(answers: Answers, classes: Labels) -> Floats:
    """How much probability the pictures of each class give to each other one, (K, K); rows add up to 1 or less.

    It says more than counts of mistakes, as it also has the second choices of right answers.

    Args:
        answers: What a source says.
        classes: The K classes that count, sorted.
    """
    place = np.full(int(classes.max()) + 1, -1)
    place[classes] = np.arange(len(classes))
    known = np.isin(answers.ranked, classes)
    rows, ranks = np.nonzero(known)
    pairs = place[answers.labels[rows]] * len(classes) + place[answers.ranked[rows, ranks]]
    weights = answers.probabilities[rows, ranks]
    total = np.bincount(pairs, weights, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
    samples = np.bincount(place[answers.labels], minlength=len(classes))
    return np.asarray(total / np.maximum(samples, 1)[:, None], np.float32)


def similar_together(likeness: Floats) -> Labels:
    """Average-linkage clustering, with the leaves turned so that neighbours are as alike as can be: (K, K) -> (K,).

    Paper: Bar-Joseph, Gifford and Jaakkola 2001, https://doi.org/10.1093/bioinformatics/17.suppl_1.S22

    Args:
        likeness: How alike two classes are, at least 0; both directions and the diagonal may differ.

    Raises:
        MissingPackage: There is no scipy.
    """
    hierarchy = need("scipy.cluster.hierarchy", extra="train", purpose="an order of similar classes")
    both = np.minimum(likeness + likeness.T, 1.0)
    distance = -np.log(both + _NOTHING) + np.log(1.0 + _NOTHING)  # twice as alike is as much nearer anywhere
    pairs = distance[np.triu_indices(len(distance), k=1)]
    return np.asarray(hierarchy.leaves_list(hierarchy.linkage(pairs, "average", optimal_ordering=True)))


def orders(answers: Answers, classes: Labels, family: Sequence[str] | None) -> dict[str, list[int]]:
    """The orders in which classes can be shown: their numbers, by the name of the order; the best for the eye first.

    Args:
        answers: What a source says.
        classes: The classes that count, sorted; their numbers are in the order of their names.
        family: The family of every class there is, by its number; None where families are not known.
    """
    found = {}
    if 3 <= len(classes) <= MOST_CLUSTERED and importlib.util.find_spec("scipy") is not None:
        found["similar"] = classes[similar_together(leaning(answers, classes))].tolist()
    if family is not None:
        found["family"] = sorted(classes.tolist(), key=lambda label: (family[label] == "", family[label], label))
    return found | {"name": classes.tolist()}
