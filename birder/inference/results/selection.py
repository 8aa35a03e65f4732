"""Some of the rows of a file of results."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from birder.errors import ConfigError, suggestion
from birder.inference.checklist import folded
from birder.inference.rows import Row

_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows are meant: those that fit everything that is given."""

    species: Collection[str] = ()
    """The most probable class is one of these; case and kind of spaces do not matter."""
    statuses: Collection[str] = ()
    """The status is one of these."""
    codes: Collection[str] = ()
    """The code of the reason is one of these."""
    min_score: float | None = None
    """The best score is at least this."""
    max_score: float | None = None
    """The best score is at most this."""
    min_novelty: float | None = None
    """The novelty is at least this."""
    max_novelty: float | None = None
    """The novelty is at most this."""
    taken_after: str = ""
    """Taken at this time or later: ``2026``, ``2026-05``, ``2026-05-17`` or ``2026-05-17T06:12``."""
    taken_before: str = ""
    """Taken before this time."""
    _seen: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the times.

        Raises:
            ConfigError: One that is none.
        """
        for name in ("taken_after", "taken_before"):
            time = getattr(self, name).strip().replace(" ", "T")
            if time and not _TIME.fullmatch(time):
                raise ConfigError(f"{name}: {time!r} is no time such as 2026-05 or 2026-05-17T06:12")
            object.__setattr__(self, name, time)

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that are meant, in their order."""
        species = {folded(name) for name in self.species}
        for row in rows:
            name = self._folded(row.labels[0]) if row.labels else ""
            if (not species or name in species) and self._fits(row):
                yield row

    def hint(self) -> str:
        """After the rows have passed: which of the species were never the most probable, and what is like them."""
        absent = [name for name in self.species if folded(name) not in self._seen.values()]
        return ". ".join(f"no picture shows {name}{suggestion(name, self._seen)}" for name in absent)

    def _fits(self, row: Row) -> bool:
        if (self.statuses and row.status not in self.statuses) or (self.codes and row.code not in self.codes):
            return False
        score = row.scores[0] if row.scores else None
        if not (
            _within(score, self.min_score, self.max_score) and _within(row.novelty, self.min_novelty, self.max_novelty)
        ):
            return False
        # Such times are in the order of their letters, and a day comes before all times of it.
        if self.taken_after and not (row.taken and row.taken >= self.taken_after):
            return False
        return not self.taken_before or ("" < row.taken < self.taken_before)

    def _folded(self, name: str) -> str:
        """The name as it is compared; there are few species, and many rows."""
        return self._seen.get(name) or self._seen.setdefault(name, folded(name))


def _within(value: float | None, least: float | None, greatest: float | None) -> bool:
    """Whether a number keeps to the limits that there are; no number keeps to none."""
    if value is None:
        return least is None and greatest is None
    return (least is None or value >= least) and (greatest is None or value <= greatest)
