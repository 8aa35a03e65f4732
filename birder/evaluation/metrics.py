"""How good predictions are: functions on arrays of labels.

Shapes: N pictures, K classes, T how many of the best classes are kept for each picture.

A class without pictures takes no part in an average: nothing is known about it. A class that has pictures but was never
predicted takes part with an F1 of 0. Numbers that nothing is known about are NaN.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

import numpy as np

from birder.errors import DataError

Labels: TypeAlias = np.ndarray[Any, Any]
"""Whole numbers, 0 to K - 1."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A part of the pictures, and what it says of all the pictures that there might be."""

    value: float
    """The part that is right, 0-1."""
    interval: tuple[float, float]
    """Where the true part lies with a confidence of 95 %, by Wilson's method."""

    @classmethod
    def of(cls, right: float, total: int) -> Self:
        """``right`` of ``total`` pictures; a mean over repetitions need not be a whole number."""
        return cls(value=right / total if total else math.nan, interval=wilson_interval(right, total))


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fared."""

    name: str
    """The class."""
    precision: float
    """Of the pictures that were given this name, the part that is right; NaN when none was."""
    recall: float
    """Of the pictures of this class, the part that was given its name; NaN without pictures."""
    f1: float
    """Harmonic mean of the two; 0 when there is no right answer."""
    samples: int
    """Pictures of this class."""
    predicted: int
    """Pictures that were given this name."""
    recall_low: float
    """Where the interval of 95 % of the recall begins, by Wilson's method; NaN without pictures."""
    recall_high: float
    """Where it ends."""


@dataclass(frozen=True, kw_only=True)
class FamilyScore(ClassScore):
    """How one family fared: the numbers of a class count pictures whose species has this family."""

    species: int
    """Species of the family, with and without pictures."""
    species_right: float
    """Of the pictures of this family, the part that was given the right species; NaN without pictures."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Two classes of which one was taken for the other."""

    name: str
    """What the pictures show."""
    predicted: str
    """What they were taken for."""
    count: int
    """How many pictures."""
    share: float
    """Part of all pictures of the class, 0-1."""
    cost: float
    """The part that this mistake alone makes of all that balanced accuracy lacks, 0-1; all mistakes together make 1.

    It is the share of the class among the shares of all mistakes: a tenth of the pictures of a rare class costs as much
    as a tenth of those of a common one."""


def top_k_accuracy(labels: Labels, ranked: Labels, k: int) -> float:
    """The part of the pictures whose class is among the first k.

    With k classes or fewer there is nothing to miss, and the result is 1.

    Args:
        labels: (N,), the truth.
        ranked: (N, T), the predicted labels, best first; T is at least k, or K.
        k: How many count.
    """
    if len(labels) == 0:
        return math.nan
    return float((ranked[:, :k] == labels[:, None]).any(axis=1).mean())


def wilson_interval(right: float, total: int) -> tuple[float, float]:
    """Where the true rate lies, with a confidence of 95 %, when ``right`` of ``total`` were right.

    Paper: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    if total == 0:
        return (0.0, 1.0)
    z = 1.959963984540054  # 97.5 % of a normal distribution lie below
    rate = right / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return (max(0.0, middle - half), min(1.0, middle + half))


def macro_f1(labels: Labels, predicted: Labels, num_classes: int) -> float:
    """The mean F1 of the classes that have pictures; (N,) each."""
    right, samples, given = _counts(labels, predicted, num_classes)
    present = samples > 0
    return float((2 * right[present] / (samples + given)[present]).mean()) if present.any() else math.nan


def balanced_accuracy(labels: Labels, predicted: Labels, num_classes: int) -> float:
    """The mean recall of the classes that have pictures; (N,) each."""
    right, samples, _ = _counts(labels, predicted, num_classes)
    present = samples > 0
    return float((right[present] / samples[present]).mean()) if present.any() else math.nan


def per_class(labels: Labels, predicted: Labels, names: Sequence[str]) -> list[ClassScore]:
    """One row for each class that has pictures or was predicted, in the order of the labels; (N,) each."""
    right, samples, given = _counts(labels, predicted, len(names))
    return [
        ClassScore(
            name=names[label],
            precision=_ratio(right[label], given[label]),
            recall=_ratio(right[label], samples[label]),
            f1=_ratio(2 * right[label], samples[label] + given[label]),
            samples=int(samples[label]),
            predicted=int(given[label]),
            recall_low=low if samples[label] else math.nan,
            recall_high=high if samples[label] else math.nan,
        )
        for label in np.flatnonzero(samples + given).tolist()
        for low, high in [wilson_interval(right[label], samples[label])]
    ]


def most_confused(labels: Labels, predicted: Labels, names: Sequence[str], *, most: int = 100) -> list[Confusion]:
    """The commonest mistakes, commonest first; of equally common ones the larger share first. (N,) each."""
    rows = _confusions(labels, predicted, names)
    return sorted(rows, key=lambda row: (-row.count, -row.share, row.name, row.predicted))[:most]


def costliest(labels: Labels, predicted: Labels, names: Sequence[str], *, most: int = 100) -> list[Confusion]:
    """The mistakes that cost most when every class counts the same, costliest first; (N,) each.

    Of equally costly ones the commoner comes first.
    """
    rows = _confusions(labels, predicted, names)
    return sorted(rows, key=lambda row: (-row.share, -row.count, row.name, row.predicted))[:most]


def per_family(
    labels: Labels, predicted: Labels, names: Sequence[str], family_of: Mapping[str, str]
) -> list[FamilyScore]:
    """One row for each family that has pictures or was predicted, in the order of their names; (N,) each.

    Args:
        labels: The truth.
        predicted: What was predicted.
        names: Class names, K.
        family_of: The family of every class name; see ``birder.data.taxonomy.read_taxonomy``.

    Raises:
        DataError: A class name has no family.
    """
    families, family = _families(names, family_of)
    right, samples, _ = _counts(labels, predicted, len(names))
    right, samples, species = (
        np.bincount(family, weights, minlength=len(families)) for weights in (right, samples, None)
    )
    return [
        FamilyScore(
            **asdict(row),
            species=int(species[place]),
            species_right=_ratio(right[place], samples[place]),
        )
        for row in per_class(family[labels], family[predicted], families)
        for place in [families.index(row.name)]
    ]


def cross_family_errors(labels: Labels, predicted: Labels, names: Sequence[str], family_of: Mapping[str, str]) -> float:
    """Of the mistakes, the part that names a species of another family, 0-1; NaN without mistakes. (N,) each.

    A hawk taken for another hawk is often past telling in a photograph; a hawk taken for a tern is not.

    Raises:
        DataError: A class name has no family.
    """
    _, family = _families(names, family_of)
    wrong = labels != predicted
    return _ratio(int((family[labels] != family[predicted]).sum()), int(wrong.sum()))


def _confusions(labels: Labels, predicted: Labels, names: Sequence[str]) -> list[Confusion]:
    samples = np.bincount(labels, minlength=len(names))
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    shares = counts / samples[pairs[:, 0]]
    whole = shares.sum()
    return [
        Confusion(
            name=names[label], predicted=names[taken], count=int(count), share=float(share), cost=float(share / whole)
        )
        for (label, taken), count, share in zip(pairs, counts, shares, strict=True)
    ]


def _families(names: Sequence[str], family_of: Mapping[str, str]) -> tuple[list[str], Labels]:
    """The names of the families, sorted, and which of them each class belongs to, (K,)."""
    missing = [name for name in names if name not in family_of]
    if missing:
        raise DataError(f"no family is known of {len(missing)} of {len(names)} species, such as {missing[0]}")
    families = sorted({family_of[name] for name in names})
    return families, np.array([families.index(family_of[name]) for name in names], np.int64)


def _counts(labels: Labels, predicted: Labels, num_classes: int) -> tuple[Labels, Labels, Labels]:
    """Of each class: right answers, pictures, times predicted; (K,) each."""
    right = np.bincount(labels[labels == predicted], minlength=num_classes)
    return right, np.bincount(labels, minlength=num_classes), np.bincount(predicted, minlength=num_classes)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
