"""What is in files of results: how many pictures of each species, how sure, and what could not be read."""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, TypeAlias

from birder.inference.rows import Row

By: TypeAlias = Literal["folder", "month"]


@dataclass(kw_only=True, slots=True)
class Species:
    """What was seen of a species."""

    group: str
    """Folder or month; empty if not asked for."""
    name: str
    """The class that is most probable for these pictures."""
    sure: int = 0
    """How many of them have the status ``ok``."""
    unsure: int = 0
    """How many have ``unsure``."""
    total_score: float = 0.0
    """Sum of their best scores."""
    first: str = ""
    """When the earliest was taken; empty where no picture tells."""
    last: str = ""
    """When the latest was taken."""

    @property
    def mean_score(self) -> float:
        """Mean of their best scores, 0-1."""
        return self.total_score / (self.sure + self.unsure)


@dataclass(kw_only=True)
class Summary:
    """Counts over rows, which are added as they come."""

    by: By | None = None
    """Count apart what lies in each folder, or was taken in each month."""
    listed: int = 10
    """How many of the least sure pictures to remember, and of those that are the least like the list."""
    statuses: Counter[str] = field(default_factory=Counter)
    """How many rows have each status."""
    codes: Counter[str] = field(default_factory=Counter)
    """How many rows have each reason."""
    _species: dict[tuple[str, str], Species] = field(default_factory=dict)
    _least: list[tuple[float, int, Row]] = field(default_factory=list)
    _newest: list[tuple[float, int, Row]] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows."""
        for row in rows:
            self.statuses[row.status] += 1
            if row.reason:
                self.codes[row.code] += 1
            if row.status == "not_in_list":
                self._remember(self._newest, row, row.novelty or 0.0)
            elif row.labels:
                self._count(row)

    @property
    def species(self) -> list[Species]:
        """Each group's species, commonest first."""
        return sorted(self._species.values(), key=lambda one: (one.group, -one.sure - one.unsure, one.name))

    @property
    def least_sure(self) -> list[Row]:
        """Rows with the lowest best score, lowest first."""
        return _in_order(self._least)

    @property
    def newest(self) -> list[Row]:
        """Rows of the status ``not_in_list`` with the highest novelty, highest first; they count for no species."""
        return _in_order(self._newest)

    def _count(self, row: Row) -> None:
        key = (self._group(row), row.labels[0])
        one = self._species.get(key) or self._species.setdefault(key, Species(group=key[0], name=key[1]))
        if row.status == "unsure":
            one.unsure += 1
        else:
            one.sure += 1
        one.total_score += row.scores[0]
        if row.taken:
            one.first = min(one.first or row.taken, row.taken)
            one.last = max(one.last, row.taken)
        self._remember(self._least, row, -row.scores[0])

    def _remember(self, rows: list[tuple[float, int, Row]], row: Row, value: float) -> None:
        """Keep the rows of the highest values."""
        # The lowest of those remembered stands first and makes room; of equal ones that which came last.
        item = (value, -sum(self.statuses.values()), row)
        if len(rows) < self.listed:
            heapq.heappush(rows, item)
        elif rows and item > rows[0]:
            heapq.heapreplace(rows, item)

    def _group(self, row: Row) -> str:
        if self.by == "folder":
            return str(PurePath(row.path).parent)
        return row.taken[:7] if self.by == "month" else ""


def _in_order(rows: list[tuple[float, int, Row]]) -> list[Row]:
    """Highest value first."""
    return [row for _, _, row in sorted(rows, key=lambda item: item[:2], reverse=True)]
