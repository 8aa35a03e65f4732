"""What is wrong with a data set: unreadable files, pictures that are there twice, leaks, odd sizes and names."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from birder.data.duplicates import (
    DISTANCE,
    LEAST_CONTRAST,
    MOST_DISTANCE,
    Pairs,
    chosen,
    contrast,
    fingerprints,
    near_pairs,
    similarities,
)
from birder.data.processes import Progress
from birder.data.samples import Samples, read_samples
from birder.errors import ConfigError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From where on something is a finding."""

    few: int = 10
    """Classes with fewer pictures, in all sources together, are listed."""
    tiny: int = 64
    """Pictures whose shorter side has fewer pixels are listed."""
    proportions: float = 4.0
    """Pictures that are more times as long as wide, or as wide as long, are listed."""
    distance: int = DISTANCE
    """Bits of 64 in which the hashes of nearly the same pictures may differ; more finds more, and more slowly."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.few < 0 or self.tiny < 0 or self.proportions < 1:
            raise ConfigError("few and tiny must be 0 or more, proportions 1 or more")
        if not 0 <= self.distance <= MOST_DISTANCE:
            raise ConfigError(f"distance must be 0 to {MOST_DISTANCE}, not {self.distance}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a picture is."""

    source: str
    """The folder, table or set of shards, as it was given."""
    path: str
    """The name of the picture."""
    label: str
    """Its class."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file that cannot be read."""

    place: Place
    """Where it is."""
    reason: str
    """Why not, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A picture that is unlikely to help."""

    place: Place
    """Where it is."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    problem: str
    """Tiny, of extreme proportions, or without contrast."""


@dataclass(frozen=True, kw_only=True)
class Alike:
    """A picture, and the most similar of those before it."""

    place: Place
    """Where it is."""
    other: Place
    """Where the other is."""
    same_file: bool
    """Whether the two files are equal, byte by byte."""
    bits: int
    """In how many bits of 64 the hashes differ."""
    similarity: float
    """Correlation of the thumbnails, at most 1."""
    mirrored: bool
    """Whether one is the mirror image of the other."""
    numbers: tuple[int, int]
    """Their numbers, counted through all sources; see ``Findings.samples``."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many pictures a class has."""

    name: str
    """The class."""
    pictures: tuple[int, ...]
    """In each source."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What ``check`` found."""

    sources: list[str]
    """What was checked."""
    samples: list[Samples]
    """The pictures of each source."""
    classes: list[ClassCount]
    """All classes, in the order of their names."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """Files that cannot be read."""
    duplicates: list[Alike] = field(default_factory=list)
    """Files that are equal to an earlier one in the same source."""
    near_duplicates: list[Alike] = field(default_factory=list)
    """Pictures that are nearly the same as an earlier one in the same source."""
    leaks: list[Alike] = field(default_factory=list)
    """Pictures that are the same, or nearly, as one in an earlier source."""
    mixed_labels: list[Alike] = field(default_factory=list)
    """Pictures that are the same, or nearly, as an earlier one of another class."""
    odd: list[Odd] = field(default_factory=list)
    """Tiny pictures, extreme proportions, no contrast."""
    few: list[ClassCount] = field(default_factory=list)
    """Classes with few pictures."""
    similar_names: list[tuple[str, ...]] = field(default_factory=list)
    """Classes whose names differ only in case, spaces, hyphens, apostrophes, or forms of the same letters."""
    not_in_first: list[str] = field(default_factory=list)
    """Classes of later sources that the first one, from which is learned, does not have."""

    def counts(self) -> dict[str, int]:
        """The number of findings of each kind."""
        kinds = ("unreadable", "duplicates", "near_duplicates", "leaks", "mixed_labels", "odd", "few")
        return {kind: len(getattr(self, kind)) for kind in (*kinds, "similar_names", "not_in_first")}


def check(
    sources: Sequence[str | Path],
    *,
    limits: Limits | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """Look for what is wrong with labelled pictures, and for pictures that are in two sources. Nothing is changed.

    Args:
        sources: What ``read_samples`` takes; the training pictures first.
        limits: From where on something is a finding.
        workers: Processes that read; 0 is this one. The findings do not depend on it.
        progress: Called after every picture with the number of those that are done, and of all.

    Raises:
        ConfigError: No source, or a negative number of workers.
        DataError: A source cannot be used.
    """
    if not sources:
        raise ConfigError("check: give at least one source")
    samples = [read_samples(source) for source in sources]
    names = [str(source) for source in sources]
    limits = limits or Limits()
    pictures = _Pictures(names, samples)
    classes = pictures.classes()
    findings = Findings(
        sources=names,
        samples=samples,
        classes=classes,
        few=[row for row in classes if sum(row.pictures) < limits.few],
        similar_names=similar_names(row.name for row in classes),
        not_in_first=[row.name for row in classes if not row.pictures[0]],
    )
    tables = []
    for number, part in enumerate(samples):
        start = int(pictures.starts[number])
        table, reasons = fingerprints(
            part, workers=workers, progress=_counted_on(start, len(pictures.source), progress)
        )
        tables.append(table)
        findings.unreadable.extend(
            Unreadable(place=pictures.place(start + index), reason=reason) for index, reason in reasons.items()
        )
    table = np.concatenate(tables)
    findings.odd.extend(_odd(pictures, table, limits))
    _find_alike(findings, pictures, table, limits.distance)
    return findings


def _counted_on(start: int, total: int, progress: Progress | None) -> Progress | None:
    """Progress of one source as that of all."""
    return None if progress is None else lambda done, _: progress(start + done, total)


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only in case, spaces, hyphens, apostrophes, or forms of the same letters; in groups."""
    groups = defaultdict(list)
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups["".join(letter for letter in plain if letter.isalnum())].append(name)
    return [tuple(group) for letters, group in groups.items() if letters and len(group) > 1]


class _Pictures:
    """The pictures of all sources, numbered through."""

    def __init__(self, sources: Sequence[str], samples: Sequence[Samples]) -> None:
        self.sources, self.samples = sources, samples
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in samples])])
        self.source = np.repeat(np.arange(len(samples)), np.diff(self.starts))
        self.names = sorted({name for part in samples for name in part.class_to_idx})
        number = {name: position for position, name in enumerate(self.names)}
        labels = []
        for part in samples:
            of_label = {label: number[name] for name, label in part.class_to_idx.items()}
            labels.append(np.array([of_label[label] for label in part.labels.tolist()], np.int64))
        self.label = np.concatenate(labels)

    def classes(self) -> list[ClassCount]:
        """How many pictures each class has in each source."""
        shape = (len(self.names), len(self.samples))
        counts = np.bincount(self.label * shape[1] + self.source, minlength=shape[0] * shape[1]).reshape(shape)
        rows = zip(self.names, counts.tolist(), strict=True)
        return [ClassCount(name=name, pictures=tuple(row)) for name, row in rows]

    def place(self, number: int) -> Place:
        """Where a picture is."""
        source = int(self.source[number])
        name = self.samples[source].name(int(number - self.starts[source]))
        return Place(source=self.sources[source], path=name, label=self.names[self.label[number]])


def _odd(pictures: _Pictures, table: Array, limits: Limits) -> Iterable[Odd]:
    heights, widths = table["height"].astype(np.int64), table["width"].astype(np.int64)
    shorter, longer = np.minimum(heights, widths), np.maximum(heights, widths)
    readable = heights > 0
    problems = {
        "tiny": shorter < limits.tiny,
        "extreme proportions": longer > limits.proportions * shorter,
        "no contrast": contrast(table["thumbnail"]) < LEAST_CONTRAST,
    }
    for number in np.flatnonzero(readable & np.any(list(problems.values()), axis=0)).tolist():
        words = ", ".join(problem for problem, found in problems.items() if found[number])
        place = pictures.place(number)
        yield Odd(place=place, height=int(heights[number]), width=int(widths[number]), problem=words)


def _find_alike(findings: Findings, pictures: _Pictures, table: Array, distance: int) -> None:
    """Fill in the duplicates, leaks and mixed labels."""
    readable = np.flatnonzero(table["height"] > 0)
    file = np.full(len(table), -1)
    file[readable] = np.unique(table["digest"][readable], return_inverse=True)[1]
    first = _first_equal(np.stack([file, pictures.source], axis=1)[readable])
    copies = first != np.arange(len(readable))
    duplicates = _pairs(readable[first[copies]], readable[copies])
    findings.duplicates.extend(_rows(pictures, table, duplicates, file))

    # Of equal files, one for each source and class is compared with the others, and stands for the rest.
    stands = np.arange(len(table))
    stands[readable] = readable[_first_equal(np.stack([file, pictures.source, pictures.label], axis=1)[readable])]
    kept = readable[stands[readable] == readable]
    near, leaks, mixed = (_Closest(len(table)) for _ in range(3))

    def relations(pairs: Pairs) -> tuple[tuple[_Closest, Array], ...]:
        one, two = pairs.first, pairs.second
        return (
            (near, (file[one] != file[two]) & (pictures.source[one] == pictures.source[two])),
            (leaks, pictures.source[one] != pictures.source[two]),
            (mixed, pictures.label[one] != pictures.label[two]),
        )

    def wanted(pairs: Pairs) -> Array:
        return np.any([holds & closest.improves(pairs) for closest, holds in relations(pairs)], axis=0)

    def add(pairs: Pairs) -> None:
        for closest, holds in relations(pairs):
            closest.add(chosen(pairs, holds & closest.improves(pairs)))

    for pairs in _equal_files(file, kept):
        add(pairs)
    for local in near_pairs(table[kept], distance=distance, wanted=lambda pairs: wanted(_numbered(pairs, kept))):
        add(_numbered(local, kept))
    leaks.spread(stands)
    mixed.spread(stands)
    for rows, closest in ((findings.near_duplicates, near), (findings.leaks, leaks), (findings.mixed_labels, mixed)):
        rows.extend(_rows(pictures, table, closest.pairs(), file))


class _Closest:
    """For every picture the most similar of those before it, as far as was found."""

    def __init__(self, count: int) -> None:
        self.bits = np.full(count, 255)
        self.other = np.full(count, -1)
        self.mirrored = np.zeros(count, bool)

    def improves(self, pairs: Pairs) -> Array:
        """Which of the pairs are closer than what was found for their second picture."""
        return pairs.bits < self.bits[pairs.second]

    def add(self, pairs: Pairs) -> None:
        """Take over pairs that improve."""
        order = np.lexsort((pairs.first, pairs.bits))[::-1]  # the last one stays
        second = pairs.second[order]
        self.bits[second] = pairs.bits[order]
        self.other[second] = pairs.first[order]
        self.mirrored[second] = pairs.mirrored[order]

    def spread(self, stands: Array) -> None:
        """Take what was found for the pictures that stand for others as found for these."""
        self.bits, self.other, self.mirrored = self.bits[stands], self.other[stands], self.mirrored[stands]

    def pairs(self) -> Pairs:
        """What was found, in the order of the second pictures."""
        second = np.flatnonzero(self.other >= 0)
        return Pairs(first=self.other[second], second=second, bits=self.bits[second], mirrored=self.mirrored[second])


def _first_equal(rows: Array) -> Array:
    """For each row of a matrix, (N, K) -> (N,), the number of the first that is equal."""
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[which]


def _equal_files(file: Array, kept: Array) -> Iterable[Pairs]:
    """Pairs of equal files in different sources or classes."""
    order = kept[np.argsort(file[kept], kind="stable")]
    for shift in range(1, len(order)):
        same = file[order[:-shift]] == file[order[shift:]]
        if not same.any():
            return
        yield _pairs(order[:-shift][same], order[shift:][same])


def _pairs(first: Array, second: Array) -> Pairs:
    return Pairs(first=first, second=second, bits=np.zeros(len(first), np.int64), mirrored=np.zeros(len(first), bool))


def _numbered(pairs: Pairs, numbers: Array) -> Pairs:
    """Pairs of positions in ``numbers`` as pairs of those numbers."""
    return Pairs(first=numbers[pairs.first], second=numbers[pairs.second], bits=pairs.bits, mirrored=pairs.mirrored)


def _rows(pictures: _Pictures, table: Array, pairs: Pairs, file: Array) -> Iterable[Alike]:
    # Some at a time: a pair takes two thumbnails.
    for start in range(0, len(pairs.first), 4096):
        part = chosen(pairs, np.arange(start, min(start + 4096, len(pairs.first))))
        alike = similarities(table, part)
        columns = (part.first, part.second, part.bits, part.mirrored, alike)
        for one, two, bits, mirrored, similar in zip(*(column.tolist() for column in columns), strict=True):
            yield Alike(
                place=pictures.place(two),
                other=pictures.place(one),
                same_file=bool(file[one] == file[two]),
                bits=bits,
                similarity=1.0 if file[one] == file[two] else similar,
                mirrored=mirrored,
                numbers=(two, one),
            )
