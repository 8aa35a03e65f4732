"""What one source is worth, as plain data: summary, species, families, calibration, sets of names.

Shapes: N pictures, K classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from birder.evaluation.classification import Evaluation
from birder.evaluation.conformal import class_scores, resplits
from birder.evaluation.metrics import ClassScore, Labels, cross_family_errors, most_confused, per_family
from birder.evaluation.reliability import accuracy_by_coverage, threshold_for
from birder.report.joined import NOBODY, Answers

MAX_ERROR = 0.05
"""The promise of which the page tells what it would cost."""
COVERAGES = (0.8, 0.9, 0.95)
"""What sets of names are made to hold."""
_SPLITS = 200  # of the pictures into halves, to see what sets hold
_FEWEST = 50  # pictures that sets are made from
_COSTLY = 10  # mistakes that are listed


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The tiles at the head of the page, and one sentence for those who read no tiles."""
    return {
        "pictures": evaluation.pictures,
        "unreadable": len(evaluation.failures),
        "missing": evaluation.missing,
        "superfluous": evaluation.superfluous,
        "estimates": {name: dataclasses.astuple(value) for name, value in evaluation.estimates.items()},
        "sentence": sentence(evaluation.top1, evaluation.top5),
    }


def sentence(top1: float, top5: float) -> str:
    """Such as ``Of 100 pictures it names 73 right; for 91 the right species is in its first five.`` (rounded)."""
    first = f"Of 100 pictures it names {round(100 * top1)} right"
    return (
        f"{first}." if np.isnan(top5) else f"{first}; for {round(100 * top5)} the right species is in its first five."
    )


def species(evaluation: Evaluation, answers: Answers, names: Sequence[str]) -> dict[str, list[Any]]:
    """One column for each thing that is known of the classes which have pictures or were predicted."""
    number_of = {name: number for number, name in enumerate(names)}
    rows = evaluation.classes
    mistakes = most_confused(answers.labels, answers.predicted, names, most=len(answers.labels))
    taken = {row.name: row for row in reversed(mistakes)}  # of each class the commonest stays
    wrong = np.bincount(answers.labels[~answers.right], minlength=len(names))
    numbers = [number_of[row.name] for row in rows]
    return {
        "label": numbers,
        **_columns(rows),
        "wrong": wrong[numbers].tolist(),
        "taken": [number_of[taken[row.name].predicted] if row.name in taken else NOBODY for row in rows],
        "taken_count": [taken[row.name].count if row.name in taken else 0 for row in rows],
    }


def families(answers: Answers, names: Sequence[str], family_of: Mapping[str, str]) -> dict[str, list[Any]]:
    """The same of families: a bird is right when it was taken for one of its family."""
    rows = per_family(answers.labels, answers.predicted, names, family_of)
    return {
        "name": [row.name for row in rows],
        **_columns(rows),
        "species": [row.species for row in rows],
        "species_right": [row.species_right for row in rows],
    }


def costly(
    evaluation: Evaluation, answers: Answers, names: Sequence[str], family_of: Mapping[str, str] | None
) -> dict[str, Any]:
    """Which mistakes cost most when every species counts the same, and how many of all lead out of the family."""
    rows = evaluation.costliest[:_COSTLY]
    far = None if family_of is None else cross_family_errors(answers.labels, answers.predicted, names, family_of)
    return {"rows": [dataclasses.asdict(row) for row in rows], "other_family": far}


def calibration(evaluation: Evaluation, answers: Answers) -> dict[str, Any]:
    """How far its probabilities can be taken by their word, and what silence buys."""
    confidence, right = answers.confidence, answers.right
    coverage = accuracy_by_coverage(confidence, right)
    promise = threshold_for(confidence, right, max_error=MAX_ERROR)
    return {
        "bins": [dataclasses.astuple(item) for item in evaluation.reliability],
        "coverage": {
            "threshold": coverage.threshold.tolist(),
            "coverage": coverage.coverage.tolist(),
            "accuracy": coverage.accuracy.tolist(),
        },
        "promise": None if promise is None else {"max_error": MAX_ERROR, **dataclasses.asdict(promise)},
        "sets": sets(evaluation, answers),
    }


def sets(evaluation: Evaluation, answers: Answers) -> list[dict[str, Any]]:
    """For each coverage that can be had, what sets of names by split conformal prediction would be.

    Only the best few classes of each picture are known, and sets are counted up to so many.
    """
    truth = evaluation.label_probability
    if len(truth) < _FEWEST:
        return []
    strange = np.where(answers.ranked == NOBODY, np.inf, class_scores(answers.probabilities))
    return [
        {"wanted": wanted, **dataclasses.asdict(resplits(class_scores(truth), strange, wanted, draws=_SPLITS))}
        for wanted in COVERAGES
        if np.isfinite(truth).mean() >= wanted  # a table that has the label more seldom can promise nothing
    ]


def _columns(rows: Sequence[ClassScore]) -> dict[str, list[Any]]:
    names = ("samples", "predicted", "precision", "recall", "f1")
    return {name: [getattr(row, name) for row in rows] for name in names}


def confusion(answers: Answers) -> dict[str, list[int]]:
    """How often each class was taken for each, itself too: three columns, without what never happened."""
    pairs, counts = np.unique(np.stack([answers.labels, answers.predicted], axis=1), axis=0, return_counts=True)
    return {"label": pairs[:, 0].tolist(), "predicted": pairs[:, 1].tolist(), "count": counts.tolist()}


def classes_in_use(answers: Answers) -> Labels:
    """The classes that have pictures or were predicted, sorted."""
    return np.union1d(answers.labels, answers.predicted)
