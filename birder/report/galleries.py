"""Which pictures are worth a look: mistakes, the surest, the least sure, labels that may be wrong, confused pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from birder.evaluation.classification import Evaluation
from birder.evaluation.metrics import Labels
from birder.evaluation.suspects import suspected_labels
from birder.report.album import Album
from birder.report.joined import Answers

SHOWN = 24
"""Pictures of each gallery."""
_PAIRS, _ILLUSTRATED, _EXAMPLES = 60, 8, 3  # pairs that are listed, those with pictures, and how many of each side


def galleries(evaluation: Evaluation, answers: Answers, album: Album) -> dict[str, list[int]]:
    """Places in the album, by the name of the gallery; the most telling first."""
    surest = np.argsort(-answers.confidence, kind="stable")
    wrong = surest[~answers.right[surest]]
    suspects = [suspect.index for suspect in suspected_labels(evaluation)]
    chosen: dict[str, Sequence[int] | Labels] = {
        "mistakes": wrong,
        "certain": surest,
        "uncertain": surest[::-1],
        "suspects": suspects,
    }
    return {name: album.add(answers.pictures[np.asarray(rows[:SHOWN], int)]) for name, rows in chosen.items()}


def confused_pairs(answers: Answers, album: Album) -> list[dict[str, Any]]:
    """The commonest mistakes; the first of them with pictures, beside pictures of what they were taken for.

    Both directions of a pair are one row, as to the eye they are one difficulty.
    """
    wrong = np.flatnonzero(~answers.right)
    sides = np.sort(np.stack([answers.labels[wrong], answers.predicted[wrong]], axis=1), axis=1)
    pairs, counts = np.unique(sides, axis=0, return_counts=True)
    commonest = np.lexsort((pairs[:, 1], pairs[:, 0], -counts))[:_PAIRS]
    return [
        _pair(answers, album, pairs[place].tolist(), illustrated=rank < _ILLUSTRATED)
        for rank, place in enumerate(commonest.tolist())
    ]


def _pair(answers: Answers, album: Album, classes: list[int], *, illustrated: bool) -> dict[str, Any]:
    """Of each of the two classes: how many pictures it has, how many were taken for the other, some of these first."""
    sides: list[dict[str, Any]] = []
    for label, other in (classes, classes[::-1]):
        own = np.flatnonzero(answers.labels == label)
        mistaken = own[answers.predicted[own] == other]
        shown: Labels = np.array([], int)
        if illustrated:
            best = own[answers.right[own]]
            first = mistaken[np.argsort(-answers.confidence[mistaken], kind="stable")]
            shown = np.concatenate([first, best[np.argsort(-answers.confidence[best], kind="stable")]])[:_EXAMPLES]
        places = album.add(answers.pictures[shown])
        sides.append({"label": label, "pictures": len(own), "mistaken": len(mistaken), "shown": places})
    sides.sort(key=lambda side: -side["mistaken"])
    return {"sides": sides}
