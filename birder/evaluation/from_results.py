"""An evaluation of results that were written long ago, on another machine, in another folder.

Shapes: N pictures, T best classes of each picture.
"""

import os
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from birder.data.names import composed
from birder.data.samples import Samples
from birder.errors import DataError
from birder.evaluation.classification import KEPT, Evaluation, Halves, halves
from birder.inference.results.layout import Layout
from birder.inference.results.tables import Table
from birder.inference.rows import Row

_SEPARATOR = re.compile(r"[/\\]+")  # a table may have been written on Windows


def evaluation_of_results(path: str | Path, samples: Samples) -> Evaluation:
    """Compare a table that ``birder predict`` wrote with labels.

    A picture and its row are found by their paths: the same file, or else the same ending, such as ``Great Tit/7.jpg``,
    if no other picture and no other row has it. Classes that only the table names are put after those of the labels.

    Args:
        path: A file that ends in .csv, .jsonl, .parquet or .npy.
        samples: Labelled pictures; they need not be there any more.

    Returns:
        The evaluation: with the best five classes, or as many as the table has; the probability of a label that is not
        among the classes of its row is NaN; embeddings, where every row with an answer has one.

    Raises:
        DataError: The table cannot be read, names no classes, or has none of the pictures.
        MissingPackage: Parquet without pyarrow.
    """
    table = Table(path)
    if not table.layout.top:
        raise DataError(f"{path} names no classes: it was written without, or no picture could be read")
    theirs = [row.path for row in table]
    sample_of = partners([os.fspath(name) for name in samples.paths], theirs)
    if not sample_of:
        raise DataError(
            f"{path} has none of the {len(samples)} labelled pictures: {samples.name(0)} is one of these, and "
            f"{theirs[0] if theirs else 'nothing'} is in the table"
        )
    answers, failures = _Answers(samples, table.layout), list[Row]()
    for number, row in enumerate(table):
        if number in sample_of:
            if row.labels:
                answers.note(sample_of[number], row)
            else:
                failures.append(row)
    (kept,) = np.nonzero(answers.ranked[:, 0] >= 0)
    if not len(kept):
        raise DataError(f"{path} has no answer to a labelled picture; {failures[0].path}: {failures[0].reason}")
    classified = samples.select(kept)
    return Evaluation(
        names=list(answers.known),
        paths=classified.paths,
        labels=classified.labels,
        ranked=answers.ranked[kept],
        probabilities=answers.probabilities[kept],
        label_probability=answers.label_probability[kept],
        failures=failures,
        embeddings=answers.embeddings(kept),
        missing=len(samples) - len(sample_of),
        superfluous=len(theirs) - len(sample_of),
    )


def partners(ours: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """Which of our paths means the same picture, for each of theirs that has such a one; both by their numbers.

    It is the path of the same file, or else the one with the same ending, where only one of either side has it.
    """
    found: dict[int, int] = {}
    for place in (os.path.abspath, os.path.realpath):  # links are followed, which takes long, only if it is needed
        if len(found) < min(len(ours), len(theirs)):
            number_of = {place(path): number for number, path in enumerate(ours)}
            for number, path in enumerate(theirs):
                if number not in found and place(path) in number_of:
                    found[number] = number_of.pop(place(path))
    taken = set(found.values())
    for our, their in _same_endings(ours, theirs):
        if their not in found and our not in taken:
            found[their] = our
    return found


def _same_endings(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of paths that have an ending in common which no other path has."""
    parts = [[_SEPARATOR.split(path)[::-1] for path in paths] for paths in (ours, theirs)]
    groups, depth = [(list(range(len(ours))), list(range(len(theirs))))], 0  # paths that end alike so far
    while groups:
        alike: dict[tuple[int, str | None], tuple[list[int], list[int]]] = {}
        for number, group in enumerate(groups):
            for side, members in enumerate(group):
                for path in members:
                    names = parts[side][path]
                    key = number, names[depth] if depth < len(names) else None
                    alike.setdefault(key, ([], []))[side].append(path)
        for our, their in alike.values():
            if len(our) == len(their) == 1:
                yield our[0], their[0]
        groups = [
            (our, their)
            for (_, name), (our, their) in alike.items()
            if name is not None and our and their and len(our) + len(their) > 2
        ]
        depth += 1


class _Answers:
    """The answers to labelled pictures, each at the place of its picture."""

    def __init__(self, samples: Samples, layout: Layout) -> None:
        self.labels = samples.labels
        self.known = {composed(name): label for name, label in sorted(samples.class_to_idx.items(), key=itemgetter(1))}
        """The label of each class name, in their order."""
        size = len(samples), min(layout.top, KEPT)
        self.ranked = np.full(size, -1, np.int32)
        self.probabilities = np.full(size, np.nan, np.float32)
        self.label_probability = np.full(len(samples), np.nan, np.float32)
        self._embeddings: dict[int, Halves] = {}

    def note(self, sample: int, row: Row) -> None:
        labels = [self.known.setdefault(composed(name), len(self.known)) for name in row.labels]
        kept = min(len(labels), self.ranked.shape[1])
        self.ranked[sample, :kept] = labels[:kept]
        self.probabilities[sample, :kept] = row.scores[:kept]
        if self.labels[sample] in labels:
            self.label_probability[sample] = row.scores[labels.index(self.labels[sample])]
        if row.embedding is not None:
            self._embeddings[sample] = halves(row.embedding)

    def embeddings(self, samples: np.ndarray[Any, Any]) -> Halves | None:
        """Those of these pictures, (N, D), if all have one."""
        if not all(sample in self._embeddings for sample in samples.tolist()):
            return None
        return np.stack([self._embeddings[sample] for sample in samples.tolist()])
