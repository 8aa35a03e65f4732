r"""Rows to a file, as they come, in a format chosen by the file's name.

- ``.csv``: the columns of ``Layout``. UTF-8 without a byte-order mark, commas, decimal points, line feeds;
  probabilities have six decimals. R's ``read.csv``, pandas and LibreOffice read it as it is. Excel opens it too, but
  takes letters beyond ASCII for others unless told the encoding (Data, From Text/CSV); the mark that would spare this
  becomes a part of the first column's name in R. Names stand there as they are, also one that looks like a formula.
- ``.jsonl``: one object a line, with the names of ``Row``: ``{"path": …, "status": …, "reason": …, "labels": […],
  "scores": […], "taken": …}``, with a checklist also ``open_scores``, and ``novelty`` where the model tells it; numbers
  as in CSV.
- ``.parquet``: the columns of the CSV with their types and nulls, all decimals, and ``embedding``; needs pyarrow.
- ``.npy``: the embeddings of the pictures that have one, (N, D) float32. Beside it ``NAME.npy.csv`` has the columns of
  the CSV and ``row``, the number of the picture's row in the array, from 0; empty for a picture without embedding.

A file appears under its name when all rows are written; after an error there is none, or still the old one.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from birder.errors import ConfigError, need
from birder.files import atomic
from birder.inference.results.formats import ARRAY, TABLES, ArrayWriter, Writer, index_of
from birder.inference.results.layout import Layout
from birder.inference.rows import Row


class Output:
    """An open file of results; see ``open_output``.

    Attributes:
        layout: What each row has room for.
        statuses: How many rows of each status were written.
        codes: How many of each reason.
    """

    def __init__(self, path: Path, layout: Layout, writer: Writer) -> None:
        """Made by ``open_output``."""
        self.layout = layout
        self.statuses: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self._path = path
        self._writer = writer

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, as they come.

        Raises:
            ConfigError: The disk is full, or the file cannot be written for another reason.
        """
        for row in rows:
            try:
                self._writer.write(self.layout.holds(row))
            except OSError as error:
                raise _not_written(self._path, error) from error
            self.statuses[row.status] += 1
            if row.reason:
                self.codes[row.code] += 1


@contextmanager
def open_output(path: str | Path, layout: Layout) -> Iterator[Output]:
    """A file of results to write to in a ``with`` block; when that ends without error, the file gets its name.

    Args:
        path: Ends in .csv, .jsonl, .parquet or, for embeddings, .npy. A file of that name is replaced.
        layout: What each row has room for; classes beyond are left out.

    Raises:
        ConfigError: Another suffix, a folder that is not there or cannot be written to, a full disk.
        MissingPackage: Parquet without pyarrow.
    """
    path = Path(path)
    check_output(path, embeddings=layout.embedding > 0)
    suffix = path.suffix.lower()
    with ExitStack() as files:
        # The first is the last to get its name: whoever finds an index finds the array it speaks of.
        index = files.enter_context(atomic(index_of(path))) if suffix == ARRAY else None
        temporary = files.enter_context(atomic(path))
        writer = TABLES[suffix](temporary, layout) if index is None else ArrayWriter(temporary, layout, index)
        try:
            yield Output(path, layout, writer)
        except BaseException:
            with suppress(OSError):  # the disk may still be full, and the first error says so
                writer.abandon()
            raise
        try:
            writer.close()
        except OSError as error:
            raise _not_written(path, error) from error


def check_output(path: str | Path, *, embeddings: bool = False) -> None:
    """Say now what would keep a file of results from being written when the work is done.

    Raises:
        ConfigError: Another suffix, or a folder that is not there or cannot be written to.
        MissingPackage: Parquet without pyarrow.
    """
    path = Path(path)
    fitting = [".parquet", ARRAY] if embeddings else list(TABLES)
    if path.suffix.lower() not in fitting:
        what = "embeddings" if embeddings else "results"
        raise ConfigError(f"{path}: {what} go to a file that ends in {', '.join(fitting)}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; results go to a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: the folder {path.parent} cannot be written to")
    if path.suffix.lower() == ".parquet":
        need("pyarrow", extra="tables", purpose="writing Parquet")


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror or error}; nothing was changed")
