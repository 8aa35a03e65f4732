"""Which pictures belong together, by a column of a table, by folder, by a pattern in the path, or by the day."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from PIL import ExifTags, Image

from birder.data.processes import Progress, each_picture
from birder.data.samples import Samples
from birder.data.tables import delimiter_of
from birder.errors import ConfigError, DataError, ImageError, suggestion

_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)")


def group_names(
    source: Path,
    samples: Samples,
    group: str,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Sequence[str | None]:
    """The name of each picture's group, None for a picture that belongs to no other.

    Args:
        source: Where the samples come from.
        samples: The pictures.
        group: A column of the table; ``parent``; ``day``; or a regular expression, see ``birder.data.split.split``.
        workers: Processes that read the dates.
        progress: See ``Progress``.

    Raises:
        ConfigError: It is no column and no regular expression.
        DataError: The regular expression does not match all paths.
    """
    columns = _columns(source) if source.is_file() else []
    if group in columns:
        return _column(source, group, len(samples))
    if group == "day":
        return list(each_picture(_day, samples, workers=workers, progress=progress))
    paths = relative_names(source, samples)
    if group == "parent":
        return [path.rpartition("/")[0] for path in paths]
    if re.fullmatch(r"\w+", group):  # a pattern without a place that varies would put all into one group
        others = [name for name in columns if name not in ("path", "label")]
        has = f"the table has the columns {', '.join(others)}" if others else "there is no table with more columns"
        raise ConfigError(f"group: {group!r} is no column{suggestion(group, [*others, 'parent', 'day'])}; {has}")
    return _matches(group, paths)


def relative_names(source: Path, samples: Samples) -> list[str]:
    """The names of the pictures below the source, with slashes: the same wherever the source lies."""
    start = os.path.join(source if source.is_dir() else source.parent, "")
    names = (samples.name(index).removeprefix(start) for index in range(len(samples)))
    return [name.replace(os.sep, "/") for name in names]


def _matches(pattern: str, paths: list[str]) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"group: {pattern!r} is no regular expression: {error}") from error
    found = [expression.search(path) for path in paths]
    unmatched = [path for path, match in zip(paths, found, strict=True) if match is None]
    if unmatched:
        raise DataError(
            f"group: {pattern!r} does not match {len(unmatched)} of {len(paths)} paths, such as {unmatched[0]!r}"
        )
    # An optional group of the pattern that took no part is as good as an empty one.
    return [(match[1] if expression.groups else match[0]) or "" for match in found if match]


def _columns(table: Path) -> list[str]:
    with open(table, encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next(_lines(file), [])]


def _column(table: Path, group: str, count: int) -> list[str | None]:
    """The column of a table that ``read_samples`` has accepted; an empty cell belongs to no other."""
    with open(table, encoding="utf-8-sig", newline="") as file:
        lines = _lines(file)
        column = [name.strip() for name in next(lines)].index(group)
        values = [(row[column].strip() if column < len(row) else "") or None for row in lines if row]
    if len(values) != count:
        raise DataError(f"{table} has changed while it was read")
    return values


def _lines(file: TextIO) -> Iterator[list[str]]:
    delimiter = delimiter_of(file.readline())
    file.seek(0)
    return csv.reader(file, delimiter=delimiter)


def _day(samples: Samples, index: int) -> str | None:
    try:
        return date_taken(samples.content(index))
    except ImageError:
        return None


def date_taken(content: bytes) -> str | None:
    """The day on which a photograph was taken, such as ``2024-05-17``, by the notes of the camera (EXIF)."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            exif = image.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            texts = (details.get(ExifTags.Base.DateTimeOriginal), exif.get(ExifTags.Base.DateTime))
    except MemoryError:
        raise
    except Exception:  # Pillow raises nearly everything for damaged files
        return None
    for text in texts:
        match = _DATE.match(str(text))
        if match and match[1] != "0000":
            return "-".join(match.groups())
    return None
