r"""Predictions to a file, one row for each picture, in a format chosen by the file's name.

- ``.csv``: columns ``file, species, probability, species_2, probability_2, …, error``; probabilities have six decimals.
  A row of a picture that could not be read has ``file`` and ``error`` and nothing between. It is UTF-8 without a
  byte-order mark, with commas, decimal points and line feeds, which R's ``read.csv``, pandas and LibreOffice read as it
  is. Excel opens it too, but takes letters beyond ASCII for others unless told the encoding (Data, From Text/CSV); the
  mark that would spare this becomes a part of the first column's name in R.
- ``.jsonl``: one object a line, ``{"file": …, "predictions": [{"species": …, "probability": …}, …], "error": null}``.
- ``.parquet``: the columns of the CSV with their types and nulls; needs pyarrow.

Rows are written as they come. The file appears under its name when all are written; after an error there is no file, or
still the old one. Bytes of a file name that are no UTF-8 are written as ``\udcXX``.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from birder.errors import ConfigError, need
from birder.files import atomic
from birder.inference.predictor import Failure, Prediction

Row: TypeAlias = Prediction | Failure

_ROWS_AT_ONCE = 10_000  # in one group of a Parquet file


class Results:
    """An open file of results; see ``open_results``."""

    def __init__(self, path: Path, writer: "_Writer") -> None:
        """Made by ``open_results``."""
        self._path = path
        self._writer = writer

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, as they come.

        Raises:
            ConfigError: The disk is full, or the file cannot be written for another reason.
        """
        for row in rows:
            try:
                self._writer.write(row)
            except OSError as error:
                raise _not_written(self._path, error) from error


@contextmanager
def open_results(path: str | Path, top: int) -> Iterator[Results]:
    """A file of results to write to in a ``with`` block; when that ends without error, the file gets its name.

    Args:
        path: Ends in .csv, .jsonl or .parquet. A file of that name is replaced.
        top: How many classes each row has room for.

    Raises:
        ConfigError: Another suffix, a folder that is not there or cannot be written to, a full disk.
        MissingPackage: Parquet without pyarrow.
    """
    path = Path(path)
    check_results(path)
    with atomic(path) as temporary:
        writer = _FORMATS[path.suffix.lower()](temporary, top)
        try:
            yield Results(path, writer)
        except BaseException:
            writer.abandon()
            raise
        try:
            writer.close()
        except OSError as error:
            raise _not_written(path, error) from error


def check_results(path: str | Path) -> None:
    """Say now what would keep a file of results from being written when the work is done.

    Raises:
        ConfigError: Another suffix, or a folder that is not there or cannot be written to.
        MissingPackage: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path}: results go to a file that ends in {', '.join(_FORMATS)}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; results go to a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: the folder {path.parent} cannot be written to")
    if path.suffix.lower() == ".parquet":
        need("pyarrow", extra="tables", purpose="writing Parquet")


def header(top: int) -> list[str]:
    """Names of the columns for so many classes."""
    pairs = [("species", "probability"), *((f"species_{rank}", f"probability_{rank}") for rank in range(2, top + 1))]
    return ["file", *(name for pair in pairs[:top] for name in pair), "error"]


def cells(row: Row, top: int) -> list[str]:
    """One row as text, in the order of ``header``; empty where there is nothing."""
    if isinstance(row, Failure):
        return [str(row.path), *[""] * (2 * top), row.reason]
    pairs = list(zip(row.names, row.probabilities, strict=True))[:top]
    filled = [text for name, probability in pairs for text in (name, f"{probability:.6f}")]
    return [str(row.path), *filled, *[""] * (2 * (top - len(pairs))), ""]


class _Writer(Protocol):
    """What a format must be able to do."""

    def __init__(self, path: Path, top: int) -> None: ...

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class _Text:
    """A text file, a line or more for each row."""

    def __init__(self, path: Path, top: int) -> None:
        self.top = top
        self.file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115

    def close(self) -> None:
        self.file.close()

    def abandon(self) -> None:
        self.file.close()


class _Csv(_Text):
    def __init__(self, path: Path, top: int) -> None:
        super().__init__(path, top)
        self.lines = csv.writer(self.file, lineterminator="\n")
        self.lines.writerow(header(top))

    def write(self, row: Row) -> None:
        self.lines.writerow(cells(row, self.top))


class _JsonLines(_Text):
    def write(self, row: Row) -> None:
        predictions, error = [], None
        if isinstance(row, Failure):
            error = row.reason
        else:
            predictions = [
                {"species": name, "probability": round(probability, 6)}
                for name, probability in list(zip(row.names, row.probabilities, strict=True))[: self.top]
            ]
        line = {"file": str(row.path), "predictions": predictions, "error": error}
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Parquet:
    def __init__(self, path: Path, top: int) -> None:
        self.arrow = need("pyarrow", extra="tables", purpose="writing Parquet")
        parquet = need("pyarrow.parquet", extra="tables", purpose="writing Parquet")
        self.top = top
        number, text = self.arrow.float32(), self.arrow.string()
        self.schema = self.arrow.schema(
            [(name, number if name.startswith("probability") else text) for name in header(top)]
        )
        self.file = parquet.ParquetWriter(path, self.schema)
        self.rows: list[list[Any]] = []

    def write(self, row: Row) -> None:
        values: list[Any] = [text.encode("utf-8", "backslashreplace").decode() or None for text in cells(row, self.top)]
        if isinstance(row, Prediction):
            for rank, probability in enumerate(row.probabilities[: self.top]):
                values[2 + 2 * rank] = probability  # all its decimals
        self.rows.append(values)
        if len(self.rows) == _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.file.close()

    def abandon(self) -> None:
        self.file.close()

    def _flush(self) -> None:
        columns = zip(*self.rows, strict=True) if self.rows else [[] for _ in self.schema]
        arrays = [self.arrow.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self.file.write_table(self.arrow.Table.from_arrays(arrays, schema=self.schema))
        self.rows = []


_FORMATS: dict[str, type[_Writer]] = {".csv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet}


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror or error}; nothing was changed")
