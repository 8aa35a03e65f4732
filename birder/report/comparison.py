"""Several sources side by side on the pictures that all of them have an answer to.

Shapes: C pictures that all have.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from birder.errors import DataError
from birder.evaluation.metrics import Labels
from birder.evaluation.paired import paired
from birder.report.album import Album
from birder.report.joined import Answers

SHOWN = 12
"""Pictures that one names right and the other wrong, of each direction."""
_SPECIES = 12  # that gain most, and that lose most


def comparison(sources: Sequence[Answers], album: Album) -> dict[str, Any]:
    """Each two sources: whether the difference is more than chance, which species differ, and which pictures.

    Raises:
        DataError: There is not one picture that all have an answer to.
    """
    pictures = reduce(np.intersect1d, [answers.pictures for answers in sources])
    if not len(pictures):
        raise DataError("there is no picture that all sources have an answer to; evaluate all on the same data")
    shared = [_part(answers, pictures) for answers in sources]
    pairs = itertools.combinations(range(len(sources)), 2)
    return {
        "pictures": len(pictures),
        "accuracy": [float(answers.right.mean()) for answers in shared],
        "pairs": [{"first": a, "second": b, **_pair(shared[a], shared[b], album)} for a, b in pairs],
    }


def _part(answers: Answers, pictures: Labels) -> Answers:
    """What a source says of these pictures, in their order."""
    order = np.argsort(answers.pictures, kind="stable")
    rows = order[np.searchsorted(answers.pictures[order], pictures)]
    return Answers(
        pictures=pictures,
        labels=answers.labels[rows],
        ranked=answers.ranked[rows],
        probabilities=answers.probabilities[rows],
    )


def _pair(first: Answers, second: Answers, album: Album) -> dict[str, Any]:
    right, also = first.right, second.right
    return {
        **dataclasses.asdict(paired(right, also)),
        "both": int((right & also).sum()),
        "neither": int((~right & ~also).sum()),
        "species": _species(first, right.astype(int) - also.astype(int)),
        "shown_first": _shown(first, right & ~also, album),
        "shown_second": _shown(second, ~right & also, album),
    }


def _species(answers: Answers, difference: Labels) -> list[dict[str, int]]:
    """Where the first has most more pictures right than the second, then where it has most fewer."""
    gained = np.bincount(answers.labels, difference)
    samples = np.bincount(answers.labels)
    share = gained / np.maximum(samples, 1)
    order = np.lexsort((np.arange(len(gained)), -share, -gained))
    best = [label for label in order[:_SPECIES] if gained[label] > 0]
    worst = [label for label in order[::-1][:_SPECIES] if gained[label] < 0]
    return [
        {"label": int(label), "difference": int(gained[label]), "samples": int(samples[label])}
        for label in (*best, *worst[::-1])
    ]


def _shown(surer: Answers, which: Labels, album: Album) -> list[int]:
    rows = np.flatnonzero(which)
    return album.add(surer.pictures[rows[np.argsort(-surer.confidence[rows], kind="stable")][:SHOWN]])
