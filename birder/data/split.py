"""Training, validation and test pictures from one set, as tables that name the pictures where they lie.

Pictures that belong together (a camera, a day, nearly the same photograph) stay together, or a network would be
validated on what it has learned by heart. How the groups are dealt out:

1. Each class should have ``val`` and ``test`` times its pictures in these parts, and one at least in each if that
   leaves three quarters of them to training.
2. The groups come in an order that a hash of the seed and their names gives.
3. Each group goes to the part whose shares it improves most, and to training where it improves none, or where it would
   take the last training picture of a class. Shares are measured by the squares of what each class lacks or has too
   much, in parts of that class.

So the result is a function of the names, the groups and the seed, wherever the set lies.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from birder.data.duplicates import Groups, fingerprints, near_groups
from birder.data.grouping import group_names, relative_names
from birder.data.processes import Progress
from birder.data.samples import Samples, read_samples
from birder.data.tables import check_folder, write_csv
from birder.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]

PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """What became of a set."""

    parts: dict[str, Array]
    """The numbers of the pictures of each part, in their order, int64."""
    groups: int
    """How many groups the pictures form; one that belongs to no other counts as one."""
    ungrouped: int
    """How many pictures have no date, where days are kept together; each is a group."""
    missing: dict[str, list[str]]
    """The classes without pictures in each part."""
    unreadable: list[tuple[str, str]]
    """(name, reason) of the pictures that cannot be read, where they had to be; they are dealt out like the others."""


def split(
    source: str | Path,
    output: str | Path,
    *,
    val: float = 0.1,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    near_duplicates: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Split:
    """Write ``train.csv``, ``val.csv`` and ``test.csv`` with the columns path and label; the pictures stay in place.

    Args:
        source: A folder or a table, as ``read_samples`` takes it.
        output: The folder of the tables, made when it is not there. Paths are relative to it.
        val: Share of the pictures to validate on.
        test: Share of the pictures to test on at last.
        seed: Another one, another split.
        group: What stays together: a column of the table, ``parent`` for what lies in one folder, ``day`` for what was
            taken on one day, or a regular expression on the path below the source, of which the first group counts.
        near_duplicates: Keep pictures together that are nearly the same; every picture is read.
        workers: Processes that read, where pictures must be read; 0 is this one.
        progress: Called after every picture that was read, with the number of those that are done, and of all.

    Raises:
        ConfigError: Shares or a seed out of range, tables that are there already, or no such column.
        DataError: The source cannot be used, a regular expression does not match all paths, or a part stays empty.
    """
    output = Path(output)
    _check(output, val, test, seed)
    samples = read_samples(source)
    paths = _relative_paths(samples, output)
    together, ungrouped = Groups(len(samples)), 0
    reasons: dict[int, str] = {}
    if near_duplicates:
        table, reasons = fingerprints(samples, workers=workers, progress=progress)
        together = near_groups(table)
    if group is not None:
        names = group_names(Path(source), samples, group, workers=workers, progress=progress)
        together.join(*_same_name(names))
        ungrouped = sum(name is None for name in names)
    groups = together.of(np.arange(len(samples)))
    chosen = deal(samples.labels, groups, relative_names(Path(source), samples), val=val, test=test, seed=seed)
    asked = [name for name, share in zip(PARTS, (1.0, val, test), strict=True) if share]
    parts = {name: np.flatnonzero(chosen == PARTS.index(name)) for name in asked}
    _write(output, samples, paths, parts)
    return Split(
        parts=parts,
        groups=len(np.unique(groups)),
        ungrouped=ungrouped,
        missing={name: _missing(samples, parts[name]) for name in asked},
        unreadable=[(samples.name(index), reason) for index, reason in reasons.items()],
    )


def _check(output: Path, val: float, test: float, seed: int) -> None:
    if not (val >= 0 and test >= 0 and 0 < val + test < 1):
        raise ConfigError(f"val and test must be 0 or more, and together above 0 and below 1, not {val:g} and {test:g}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}")
    check_folder(output)
    existing = [name for name in PARTS if os.path.lexists(output / f"{name}.csv")]
    if existing:
        raise ConfigError(f"{output} has a {existing[0]}.csv already: choose another folder, or take it away")


def _same_name(names: Sequence[str | None]) -> tuple[Array, Array]:
    """For each picture with a name, the first one of that name, and itself."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, index), index) for index, name in enumerate(names) if name is not None]
    one, two = np.array(pairs, np.int64).reshape(-1, 2).T
    return one, two


def deal(labels: Array, groups: Array, names: Sequence[str], *, val: float, test: float, seed: int) -> Array:
    """The part of every picture: 0 training, 1 validation, 2 test; see the module.

    Args:
        labels: The class of each picture, int64 (N,).
        groups: The group of each picture, int64 (N,).
        names: The name of each picture, which with the seed decides the order of the groups.
        val: Share of the pictures for validation.
        test: Share for the test.
        seed: Another one, another order of the groups.
    """
    _, labels = np.unique(labels, return_inverse=True)
    totals = np.bincount(labels)
    shares = np.array([val, test])
    smallest = 4 * np.count_nonzero(shares)  # so many pictures leave three quarters when each part has one
    targets = shares[:, None] * totals
    targets = np.where((targets > 0) & (targets < 1) & (totals >= smallest), 1.0, targets)  # (2, classes)
    missing, training = targets.copy(), totals.copy()
    part = np.zeros(len(groups), np.int64)
    for members in _in_order(groups, names, seed):
        classes, counts = np.unique(labels[members], return_counts=True)
        before, after = missing[:, classes], missing[:, classes] - counts
        gains = ((before**2 - after**2) / totals[classes] ** 2).sum(axis=1)
        best = int(np.argmax(gains))
        if gains[best] > 1e-9 and (training[classes] > counts).all():
            part[members] = best + 1
            missing[best, classes] -= counts
            training[classes] -= counts
    return part


def _in_order(groups: Array, names: Sequence[str], seed: int) -> list[Array]:
    """The members of each group; the groups in an order that depends on the names and the seed."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], groups[order][1:] != groups[order][:-1]]))
    members = np.split(order, starts[1:])
    salt = f"{seed}\0".encode()
    ranks = [hashlib.blake2b(salt + os.fsencode(name), digest_size=8).digest() for name in names]
    return sorted(members, key=lambda indices: min(ranks[index] for index in indices.tolist()))


def _missing(samples: Samples, indices: Array) -> list[str]:
    """The classes of the set that these pictures do not have."""
    labels = set(samples.labels.tolist()) - set(samples.labels[indices].tolist())
    return sorted(name for name, label in samples.class_to_idx.items() if label in labels)


def _relative_paths(samples: Samples, output: Path) -> list[str]:
    """The paths of the pictures as seen from the output folder."""
    start = os.path.realpath(output)

    @cache
    def folder(path: str) -> str:
        # Links on the way are followed here, as ".." would leave them at another place than it came.
        return _below(os.path.realpath(path), start)

    paths = []
    for index in range(len(samples)):
        name = samples.name(index)
        head, tail = os.path.split(name)
        if not (index or os.path.isfile(name) or os.path.isdir(head or ".")):
            raise DataError(f"{name}: shards cannot be split into tables: split the pictures before they are packed")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{name!a}: a table is UTF-8, and this name is not: rename the file") from error
        paths.append(os.path.join(folder(head), tail))
    return paths


def _below(path: str, start: str) -> str:
    try:
        return os.path.relpath(path, start)
    except ValueError:  # on another drive
        return path


def _write(output: Path, samples: Samples, paths: list[str], parts: dict[str, Array]) -> None:
    empty = [name for name, indices in parts.items() if not len(indices)]
    if empty:
        raise DataError(
            f"{empty[0]} would have no pictures, as the classes are too small or the groups too large: ask for larger "
            "shares, or for smaller groups"
        )
    names = {label: name for name, label in samples.class_to_idx.items()}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for part, indices in parts.items():
            rows = ([paths[index], names[int(samples.labels[index])]] for index in indices.tolist())
            write_csv(output / f"{part}.csv", ["path", "label"], rows)
    except OSError as error:
        raise ConfigError(f"{output}: the tables cannot be written: {error.strerror or error}") from error
