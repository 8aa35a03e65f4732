"""How each format of ``birder.inference.results.output`` is written, row by row and in little memory."""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from birder.errors import need
from birder.inference.results.layout import Layout, text_of
from birder.inference.rows import Row

ARRAY = ".npy"
"""Suffix of embeddings as an array, with a table beside it; see ``index_of``."""

_ROWS_AT_ONCE = 10_000  # in one group of a Parquet file, or as many as have
_NUMBERS_AT_ONCE = 1_000_000  # scores and parts of embeddings


def index_of(array: Path) -> Path:
    """The table beside an array, which says which picture each of its rows is."""
    return array.with_name(f"{array.name}.csv")


class Writer(Protocol):
    """What a format must be able to do."""

    def write(self, row: Row) -> None:
        """Append a row, which has no more classes than the layout."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...

    def abandon(self) -> None:
        """Let go of the file, which will not be used."""
        ...


class _Text:
    """A text file, a line or more for each row."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.layout = layout
        self.file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115

    def close(self) -> None:
        self.file.close()

    def abandon(self) -> None:
        self.file.close()


class CsvWriter(_Text):
    """A line of text cells for each row, under a line with their names."""

    def __init__(self, path: Path, layout: Layout, *, more: Sequence[str] = ()) -> None:
        """``more`` are the names of columns after those of the layout."""
        super().__init__(path, layout)
        # Before Python 3.13 a carriage return within a name is only quoted if it is a part of the end of the line.
        self.lines = csv.writer(self, lineterminator="\r\n")
        self.lines.writerow([*layout.columns, *more])

    def write(self, row: Row | str) -> None:
        """Append a row, or, for the use of ``csv``, a line."""
        if isinstance(row, str):
            self.file.write(row.removesuffix("\r\n") + "\n")
        else:
            self.write_with(row)

    def write_with(self, row: Row, *more: str) -> None:
        """Append a row and what stands in the columns after those of the layout."""
        self.lines.writerow([*self.layout.cells(row), *more])


class JsonWriter(_Text):
    """An object in each line."""

    def write(self, row: Row) -> None:
        """Append a row."""
        line: dict[str, Any] = {
            "path": row.path,
            "status": row.status,
            "reason": row.reason,
            "labels": row.labels,
            "scores": [round(score, 6) for score in row.scores],
        }
        if self.layout.open_scores:
            line["open_scores"] = [round(score, 6) for score in row.open_scores]
        if self.layout.novelty:
            line["novelty"] = None if row.novelty is None else round(row.novelty, 6)
        line["taken"] = row.taken
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")


class ParquetWriter:
    """Columns with types and nulls, some thousand rows at a time."""

    def __init__(self, path: Path, layout: Layout) -> None:
        """Begin a file."""
        self.arrow = need("pyarrow", extra="tables", purpose="writing Parquet")
        parquet = need("pyarrow.parquet", extra="tables", purpose="writing Parquet")
        self.layout = layout
        self.at_once = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // max(1, 2 * layout.top + layout.embedding)))
        kinds = [(name, self._kind(name)) for name in layout.columns]
        if layout.embedding:
            kinds.append(("embedding", self.arrow.list_(self.arrow.float32(), layout.embedding)))
        self.schema = self.arrow.schema(kinds)
        self.file = parquet.ParquetWriter(path, self.schema)
        self.rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)
        if len(self.rows) == self.at_once:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        if self.rows:
            self._flush()
        self.file.close()

    def abandon(self) -> None:
        """Let go of the file."""
        self.file.close()

    def _kind(self, column: str) -> Any:
        if column.startswith(("score_", "open_score_")) or column == "novelty":
            return self.arrow.float32()
        return self.arrow.timestamp("ms") if column == "taken" else self.arrow.string()

    def _flush(self) -> None:
        values = zip(*map(self._values, self.rows), strict=True)
        arrays = [self.arrow.array(column, kind) for column, kind in zip(values, self.schema.types, strict=False)]
        if self.layout.embedding:
            arrays.append(self._embeddings())
        self.file.write_table(self.arrow.Table.from_arrays(arrays, schema=self.schema))
        self.rows = []

    def _values(self, row: Row) -> list[Any]:
        """A row in the order of the columns, None where there is nothing."""
        missing = [None] * (self.layout.top - len(row.labels))
        values: list[Any] = [text_of(row.path), row.status, text_of(row.reason) or None]
        for label, score in zip(row.labels, row.scores, strict=True):
            values += (label, score)
        values += 2 * missing
        if self.layout.open_scores:
            values += [*row.open_scores, *missing]
        if self.layout.novelty:
            values.append(row.novelty)
        values.append(_time(row.taken))
        return values

    def _embeddings(self) -> Any:
        numbers = np.zeros((len(self.rows), self.layout.embedding), np.float32)
        for place, row in zip(numbers, self.rows, strict=True):
            if row.embedding is not None:
                place[:] = row.embedding
        return self.arrow.FixedSizeListArray.from_arrays(
            self.arrow.array(numbers.reshape(-1)),
            self.layout.embedding,
            mask=self.arrow.array([row.embedding is None for row in self.rows], self.arrow.bool_()),
        )


class ArrayWriter:
    """The embeddings one after the other, and a table that says whose they are."""

    def __init__(self, path: Path, layout: Layout, index: Path) -> None:
        """Begin both files."""
        self.layout = layout
        self.count = 0
        self.index = CsvWriter(index, layout, more=["row"])
        self.file = open(path, "wb")  # noqa: SIM115
        self._head()

    def write(self, row: Row) -> None:
        """Append a row, and its embedding if it has one."""
        if row.embedding is None:
            self.index.write_with(row, "")
            return
        self.file.write(np.ascontiguousarray(row.embedding, "<f4").reshape(self.layout.embedding).tobytes())
        self.index.write_with(row, str(self.count))
        self.count += 1

    def close(self) -> None:
        """Note how many there are."""
        self.index.close()
        self.file.seek(0)
        self._head()
        self.file.close()

    def abandon(self) -> None:
        """Let go of both files."""
        with suppress(OSError):
            self.index.abandon()
        self.file.close()

    def _head(self) -> None:
        # numpy leaves room for the first number to grow, so that this is as long for any count.
        head = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.layout.embedding)}
        np.lib.format.write_array_header_1_0(self.file, head)


TABLES: dict[str, type[CsvWriter] | type[JsonWriter] | type[ParquetWriter]] = {
    ".csv": CsvWriter,
    ".jsonl": JsonWriter,
    ".parquet": ParquetWriter,
}
"""What writes a table, by the suffix of the file."""


def _time(taken: str) -> datetime | None:
    """A time as one; None if there is none such, as cameras note 0000-00-00."""
    try:
        return datetime.fromisoformat(taken) if taken else None
    except ValueError:
        return None
