r"""The columns of a table of results, and how a row becomes text and text a row.

``path, status, reason, label_1, score_1, …, label_k, score_k, taken``; with a checklist ``open_score_1, …,
open_score_k`` come between the last score and ``taken``, and then, of a model that was calibrated for it, ``novelty``:
so what stands before is the same with and without.

Bytes of a file name that are no UTF-8 are written as ``\udcXX``, and read back as those bytes. A name that has these
six letters itself is therefore taken for another one; only JSON tells the two apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

from birder.errors import DataError
from birder.inference.rows import Row, Status

_STATUSES = get_args(Status)
_FIRST, _LAST = ["path", "status", "reason"], ["taken"]
_ESCAPED = re.compile(r"\\udc([89a-f][0-9a-f])")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What each row of a table has room for."""

    top: int = 0
    """Classes."""
    open_scores: bool = False
    """Whether each class also has its probability among all classes of the model."""
    novelty: bool = False
    """Whether each row says how new the picture is to the model."""
    embedding: int = 0
    """Size of the embedding; 0 without."""

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns that are text in a CSV file; the embedding is none of them."""
        ranks = range(1, self.top + 1)
        pairs = [name for rank in ranks for name in (f"label_{rank}", f"score_{rank}")]
        return [*_FIRST, *pairs, *(f"open_score_{rank}" for rank in ranks if self.open_scores), *self._more, *_LAST]

    @property
    def _more(self) -> list[str]:
        return ["novelty"] if self.novelty else []

    @classmethod
    def of(cls, columns: Sequence[str]) -> "Layout":
        """The layout that has these columns.

        Raises:
            DataError: None has.
        """
        layout = cls(
            top=sum(name.startswith("label_") for name in columns),
            open_scores=any(name.startswith("open_score_") for name in columns),
            novelty="novelty" in columns,
        )
        if list(columns) != layout.columns:
            raise DataError(
                f"is no table of results: its columns are {', '.join(columns[:8])}{', …' if len(columns) > 8 else ''}, "
                "where path, status, reason, label_1, score_1, …, taken were expected"
            )
        return layout

    def holds(self, row: Row) -> Row:
        """The row with no more classes than there is room for."""
        if len(row.labels) <= self.top:
            return row
        kept = slice(self.top)
        return replace(row, labels=row.labels[kept], scores=row.scores[kept], open_scores=row.open_scores[kept])

    def cells(self, row: Row) -> list[str]:
        """A row as text, in the order of ``columns``; probabilities with six decimals, empty where there is nothing."""
        count = min(len(row.labels), self.top)
        cells = [row.path, row.status, row.reason]
        for label, score in zip(row.labels[:count], row.scores[:count], strict=True):
            cells += (label, f"{score:.6f}")
        cells += [""] * (2 * (self.top - count))
        if self.open_scores:
            cells += [f"{score:.6f}" for score in row.open_scores[:count]]
            cells += [""] * (self.top - min(count, len(row.open_scores)))
        if self.novelty:
            cells.append("" if row.novelty is None else f"{row.novelty:.6f}")
        cells.append(row.taken)
        return cells

    def row(self, cells: Sequence[str]) -> Row:
        """The row that such text stands for.

        Raises:
            DataError: Too few or too many cells, an unknown status, or something that should be a number.
        """
        if len(cells) != len(self.columns):
            raise DataError(f"has {len(cells)} cells, not {len(self.columns)}; the file may be cut off")
        end = 3 + 2 * self.top
        labels = tuple(label for label in cells[3:end:2] if label)
        count = len(labels)
        try:
            scores = tuple(map(float, cells[4 : 4 + 2 * count : 2]))
            open_scores = tuple(map(float, cells[end : end + count])) if self.open_scores else ()
            novelty = float(cells[-2]) if self.novelty and cells[-2] else None
        except ValueError as error:
            raise DataError(f"has a score that is no number ({error})") from error
        return Row(
            path=path_of(cells[0]),
            status=known_status(cells[1]),
            reason=cells[2],
            labels=labels,
            scores=scores,
            open_scores=open_scores,
            novelty=novelty,
            taken=cells[-1],
        )


def known_status(text: str) -> Status:
    """The status that is meant.

    Raises:
        DataError: There is none of that name.
    """
    for status in _STATUSES:
        if text == status:
            return status
    raise DataError(f"has the status {text!r}, which is none of {', '.join(_STATUSES)}")


def path_of(text: str) -> str:
    r"""The path that stands in a table as this text: ``\udcXX`` is a byte that is no UTF-8."""
    if "\\udc" not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)


def text_of(path: str) -> str:
    """A path as text that is UTF-8; see ``path_of``."""
    return path.encode("utf-8", "backslashreplace").decode()
