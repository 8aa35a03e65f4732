"""Two runs over the same pictures: where their answers differ.

Pictures are matched by their paths. Both files are read side by side, and only rows whose match is still to come are
kept: none where both are in one order, all of the shorter one at worst.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from birder.inference.rows import Row


@dataclass(frozen=True, kw_only=True)
class Change:
    """A picture whose most probable class is another one."""

    path: str
    """The file."""
    labels: tuple[str, str]
    """Most probable class in the first run and in the second."""
    scores: tuple[float, float]
    """Their probabilities."""
    difference: float
    """The most that the probability of one class differs; see ``difference``."""


@dataclass(kw_only=True)
class Comparison:
    """What two runs have in common."""

    listed: int = 20
    """How many changes, and how many pictures of only one run, to remember."""
    matched: int = 0
    """How many pictures are in both."""
    answered: int = 0
    """How many of them have an answer in both."""
    same: int = 0
    """How many of those have the same most probable class."""
    greatest: float = 0.0
    """The most that a probability differs, among all pictures with an answer in both."""
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many have each status in the first run and in the second."""
    only: tuple[int, int] = (0, 0)
    """How many pictures only the first run has, and only the second."""
    examples: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """The first of these."""
    _largest: list[tuple[float, int, Change]] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        """Those whose probabilities differ most, largest difference first, of equal ones the earlier first."""
        return [change for _, _, change in sorted(self._largest, key=lambda item: item[:2], reverse=True)]

    @property
    def equal(self) -> bool:
        """Whether both have the same pictures, with the same status and the same most probable class each."""
        return not any(self.only) and self.same == self.answered and all(one == two for one, two in self.statuses)

    def add(self, first: Row, second: Row) -> None:
        """Count a picture that is in both."""
        self.matched += 1
        self.statuses[first.status, second.status] += 1
        if not first.labels or not second.labels:
            return
        self.answered += 1
        differs = difference(first, second)
        self.greatest = max(self.greatest, differs)
        if first.labels[0] == second.labels[0]:
            self.same += 1
            return
        change = Change(
            path=first.path,
            labels=(first.labels[0], second.labels[0]),
            scores=(first.scores[0], second.scores[0]),
            difference=differs,
        )
        heapq.heappush(self._largest, (differs, -self.matched, change))
        if len(self._largest) > self.listed:
            heapq.heappop(self._largest)


def compare(first: Iterable[Row], second: Iterable[Row], *, listed: int = 20) -> Comparison:
    """Compare two runs. A path that a run has several times is matched as often, in order."""
    comparison = Comparison(listed=listed)
    waiting: tuple[dict[str, list[Row]], dict[str, list[Row]]] = ({}, {})
    for pair in zip_longest(first, second):
        if pair[0] and pair[1] and pair[0].path == pair[1].path and not any(pair[0].path in side for side in waiting):
            comparison.add(*pair)
            continue
        for side, row in enumerate(pair):
            if row is not None and (match := _taken(waiting[1 - side], row.path)):
                comparison.add(*((row, match) if side == 0 else (match, row)))
            elif row is not None:
                waiting[side].setdefault(row.path, []).append(row)
    left = [[row.path for rows in side.values() for row in rows] for side in waiting]
    comparison.only = (len(left[0]), len(left[1]))
    comparison.examples = (left[0][:listed], left[1][:listed])
    return comparison


def difference(first: Row, second: Row) -> float:
    """The most that the probability of a class differs, of those that are the most probable in one of the two rows.

    A class that only one of them names counts as 0 in the other. The last of a list count for nothing by themselves.
    """
    one, two = dict(zip(first.labels, first.scores, strict=True)), dict(zip(second.labels, second.scores, strict=True))
    return max(abs(one.get(name, 0.0) - two.get(name, 0.0)) for name in (first.labels[0], second.labels[0]))


def _taken(rows: dict[str, list[Row]], path: str) -> Row | None:
    """The earliest row of that path, which is then no longer there."""
    same = rows.get(path)
    if not same:
        return None
    row = same.pop(0)
    if not same:
        del rows[path]
    return row
