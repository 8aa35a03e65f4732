"""Tables of pictures as CSV files, and the folders that they go to."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from birder.errors import ConfigError, DataError
from birder.files import atomic

SPECIES_COLUMNS = ("label", "species", "name")
"""The first of these columns that is there names the species."""


def check_folder(folder: str | Path) -> None:
    """Say now what would keep files from being written into a folder when the work is done.

    Raises:
        ConfigError: There is a file of that name, or a folder above cannot be written to.
    """
    folder = Path(folder)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ConfigError(f"{folder}: a folder is needed, and {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: the folder {existing} cannot be written to")


def delimiter_of(header: str) -> str:
    """What parts the cells of a table: the comma, semicolon or tab that its first line has most of."""
    return max(",;\t", key=header.count)


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table in UTF-8 whose cells are parted by commas, semicolons or tabs: number and cells of each.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            delimiter = delimiter_of(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: save it as 'CSV UTF-8'") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table as UTF-8 with commas and line feeds, atomically."""
    with (
        atomic(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows(rows)
