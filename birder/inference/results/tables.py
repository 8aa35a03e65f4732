"""Files of results as rows again, one after the other and in little memory."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from birder.errors import DataError, need
from birder.inference.results.formats import ARRAY, TABLES, index_of
from birder.inference.results.layout import Layout, known_status, path_of
from birder.inference.rows import Floats, Row

_AT_ONCE = 1_000  # rows of a Parquet file in memory
_NUMBERS = "embedding"  # the column of a Parquet file that a CSV file does not have
_TEXT = {"string", "large_string", "string_view"}


class Table:
    """The rows of a file of results, from its beginning each time they are asked for.

    Attributes:
        path: The file.
        layout: What each row has room for.
    """

    def __init__(self, path: str | Path) -> None:
        """Look at the beginning of a file that ends in .csv, .jsonl, .parquet or .npy.

        Raises:
            DataError: There is no such file, or it is no table of results.
            MissingPackage: Parquet without pyarrow.
        """
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in _READERS:
            raise DataError(f"{self.path}: results are read from files that end in {', '.join([*TABLES, ARRAY])}")
        with _named(self.path):
            self._reader = _READERS[suffix](self.path)
            self.layout = self._reader.layout

    def __iter__(self) -> Iterator[Row]:
        """All rows, in order.

        Raises:
            DataError: A row is damaged, or the file ends in the middle of one.
        """
        with _named(self.path):
            yield from self._reader.rows()


class _Csv:
    def __init__(self, path: Path, *, more: tuple[str, ...] = ()) -> None:
        self.path = path
        self.more = len(more)
        header = next(self._lines(), [])
        if not more and header[-1:] == ["row"]:
            raise DataError("is the table beside an array of embeddings; give the array, .npy, in its place")
        if more and tuple(header[-len(more) :]) != more:
            raise DataError(f"has no column {', '.join(more)} at the end of {path.name}")
        self.layout = Layout.of(header[: len(header) - self.more])

    def rows(self) -> Iterator[Row]:
        for row, _ in self.rows_and_more():
            yield row

    def rows_and_more(self) -> Iterator[tuple[Row, list[str]]]:
        """Each row, and what stands in the columns after those of the layout."""
        lines = self._lines()
        next(lines)
        for number, cells in enumerate(lines, 1):
            end = len(cells) - self.more
            with _numbered(number):
                row = self.layout.row(cells[:end])
            yield row, cells[end:]

    def _lines(self) -> Iterator[list[str]]:
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, strict=True)


class _Json:
    def __init__(self, path: Path) -> None:
        self.path = path
        # Only a row with an answer tells how many classes there are; errors have none.
        top = next((len(row.labels) for row in self.rows() if row.labels), 0)
        with open(path, encoding="utf-8", newline="\n") as file:
            first = json.loads(file.readline() or "{}")
        self.layout = Layout(top=top, open_scores="open_scores" in first, novelty="novelty" in first)

    def rows(self) -> Iterator[Row]:
        with open(self.path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                with _numbered(number):
                    row = _from_json(line)
                yield row


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        with self._file() as file:
            schema = file.schema_arrow
        size = getattr(schema.field(_NUMBERS).type, "list_size", 0) if _NUMBERS in schema.names else 0
        texts = Layout.of([name for name in schema.names if name != _NUMBERS or not size])
        if {str(schema.field(name).type) for name in ("path", "status")} - _TEXT:
            raise DataError("is no table of results: path and status are no text")
        self.layout = replace(texts, embedding=size)

    def rows(self) -> Iterator[Row]:
        with self._file() as file:
            for batch in file.iter_batches(_AT_ONCE):
                yield from self._rows(batch)

    @contextmanager
    def _file(self) -> Iterator[Any]:
        arrow = need("pyarrow", extra="tables", purpose="reading Parquet")
        parquet = need("pyarrow.parquet", extra="tables", purpose="reading Parquet")
        try:
            with parquet.ParquetFile(self.path) as file:
                yield file
        except arrow.ArrowInvalid as error:
            raise DataError(f"is no Parquet file, or damaged ({str(error).splitlines()[0]})") from error

    def _rows(self, batch: Any) -> Iterator[Row]:
        end = 3 + 2 * self.layout.top
        texts = [column.to_pylist() for name, column in zip(batch.schema.names, batch, strict=True) if name != _NUMBERS]
        embeddings = self._embeddings(batch) if self.layout.embedding else iter([None] * batch.num_rows)
        for cells, embedding in zip(zip(*texts, strict=True), embeddings, strict=True):
            count = sum(label is not None for label in cells[3:end:2])
            yield Row(
                path=path_of(cells[0]),
                status=known_status(cells[1]),
                reason=cells[2] or "",
                labels=cells[3 : 3 + 2 * count : 2],
                scores=cells[4 : 4 + 2 * count : 2],
                open_scores=cells[end : end + count] if self.layout.open_scores else (),
                novelty=cells[-2] if self.layout.novelty else None,
                taken=cells[-1].isoformat(timespec="seconds") if cells[-1] else "",
                embedding=embedding,
            )

    def _embeddings(self, batch: Any) -> Iterator[Floats | None]:
        column = batch.column(batch.schema.names.index(_NUMBERS))
        present = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.layout.embedding)  # without nulls
        numbers = iter(present)
        return (next(numbers) if there else None for there in column.is_valid().to_pylist())


class _Array:
    """Embeddings and the table beside them; rows of the array follow each other as those of the table do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        index = index_of(path)
        with open(path, "rb") as file:
            self.count, size = self._head(file)
        if not index.is_file():
            raise DataError(f"has no table {index.name} beside it, which says whose embeddings these are")
        self.index = _Csv(index, more=("row",))
        self.layout = replace(self.index.layout, embedding=size)

    def rows(self) -> Iterator[Row]:
        seen = 0
        with open(self.path, "rb") as file:
            self._head(file)
            for row, (place,) in self.index.rows_and_more():
                if not place:
                    yield row
                    continue
                numbers = np.fromfile(file, "<f4", self.layout.embedding)
                if place != str(seen) or len(numbers) != self.layout.embedding:
                    raise DataError(f"and {self.index.path.name} do not belong together: row {place} of the array")
                seen += 1
                yield replace(row, embedding=numbers)
        if seen != self.count:
            raise DataError(f"has {self.count} rows, of which {self.index.path.name} names {seen}")

    def _head(self, file: BinaryIO) -> tuple[int, int]:
        """Number of rows and size of each; the file is then at the first."""
        try:
            if np.lib.format.read_magic(file) == (1, 0):
                shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
                if len(shape) == 2 and not fortran and kind == np.dtype("<f4"):
                    return int(shape[0]), int(shape[1])
        except ValueError:
            pass
        raise DataError("is no array (N, D) of float32")


_READERS: dict[str, type[_Csv] | type[_Json] | type[_Parquet] | type[_Array]] = {
    ".csv": _Csv,
    ".jsonl": _Json,
    ".parquet": _Parquet,
    ARRAY: _Array,
}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors that say which file cannot be read."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of results, or damaged ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Errors that say which row they are about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"row {number} {error}") from error


def _from_json(line: str) -> Row:
    try:
        values = json.loads(line)
        return Row(
            path=values["path"],
            status=known_status(values["status"]),
            reason=values["reason"],
            labels=tuple(values["labels"]),
            scores=tuple(map(float, values["scores"])),
            open_scores=tuple(map(float, values.get("open_scores", ()))),
            novelty=None if values.get("novelty") is None else float(values["novelty"]),
            taken=values["taken"],
        )
    except json.JSONDecodeError as error:
        raise DataError("is no JSON; the file may be cut off") from error
    except DataError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"is no result ({type(error).__name__}: {error})") from error
