"""Which pictures there are, and what is in them.

A labelled data set is a folder of folders, or a table:

    birds/                      birds.csv
    ├── Eurasian Wren/          path,label
    │   ├── 1.jpg               photos/1.jpg,Eurasian Wren
    │   └── 2012/7.jpg          photos/7.jpg,Eurasian Wren
    └── Great Tit/              photos/2.jpg,Great Tit
        └── 2.jpg

Names that begin with a dot are passed over everywhere. Folders that are links are followed, each folder once. Class
names are compared in Unicode's composed form, as some file systems decompose their letters.
"""

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from birder.data.images import IMAGE_SUFFIXES
from birder.errors import DataError, suggestion

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
_SHOWN = 10  # as many names are listed in a message


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pictures and their labels, and the names of the labels. Whether the files can be read is not known yet."""

    paths: list[Path]
    """The pictures."""
    labels: list[int]
    """The label of each picture."""
    class_to_idx: dict[str, int]
    """Label of each class name; a class may be without pictures."""

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.paths)


def read_samples(source: str | Path, class_to_idx: Mapping[str, int] | None = None) -> Samples:
    """The labelled pictures of a folder or a CSV file.

    Args:
        source: A folder with one folder for each class, in which all pictures count, however deep; or a text file in
            UTF-8 with the columns ``path`` (relative to the file's folder) and ``label``, any others being ignored.
        class_to_idx: Label of each class name, as a model has them; None numbers the names in sorted order.

    Raises:
        DataError: The source is not there or has another form, has no pictures or one class only, or, where
            ``class_to_idx`` is given, has names that are not in it.
    """
    source = Path(source)
    if source.is_dir():
        named = _read_folder(source, training=class_to_idx is None)
    elif source.is_file():
        named = _read_table(source)
    else:
        raise DataError(f"{source}: no such file or folder")
    if not named:
        raise DataError(f"{source} holds no pictures")
    counts = Counter(name for _, name in named)
    if class_to_idx is None:
        if len(counts) == 1:
            raise DataError(f"{source} has only one class, {next(iter(counts))!r}: there is nothing to tell apart")
        class_to_idx = {name: label for label, name in enumerate(sorted(counts))}
    else:
        _check_known(source, counts, class_to_idx)
    composed = {_composed(name): label for name, label in class_to_idx.items()}
    return Samples(
        paths=[path for path, _ in named],
        labels=[composed[name] for _, name in named],
        class_to_idx=dict(class_to_idx),
    )


def find_images(paths: Iterable[str | Path], *, passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """The pictures that are meant by some paths, one after the other.

    Args:
        paths: Files, which are yielded whatever their name, and so is what does not exist: whoever reads it can say
            why not. Folders, which are searched to the bottom, in sorted order, for the suffixes of pictures.
        passed_over: Counts the other files in folders, by suffix.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from _walk(path, passed_over if passed_over is not None else Counter(), set())
        else:
            yield path


def _walk(folder: Path, passed_over: Counter[str], seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            names = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError:
        yield folder  # whoever reads it says why
        return
    for name, is_folder in names:
        suffix = os.path.splitext(name)[1].lower()
        if is_folder:
            yield from _walk(folder / name, passed_over, seen)
        elif suffix in IMAGE_SUFFIXES:
            yield folder / name
        else:
            passed_over[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: a file, whose reader says why not
        return False


def _read_folder(folder: Path, *, training: bool) -> list[tuple[Path, str]]:
    named: list[tuple[Path, str]] = []
    empty, loose = [], 0
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir():
            before = len(named)
            named += [(path, _composed(entry.name)) for path in find_images([entry])]
            empty += [entry.name] if len(named) == before else []
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            loose += 1
    names = {name for _, name in named}
    if loose:
        raise DataError(
            f"{folder}: {_counted(loose, 'picture')} {'lies' if loose == 1 else 'lie'} directly in the folder; "
            f"each must lie in a folder of its class, as in {folder.name or folder}/Great Tit/1.jpg"
        )
    if names and {name.lower() for name in names} <= _SPLITS:
        raise DataError(
            f"{folder} holds parts of a data set, not classes: give one of them, as in {folder / min(names)}"
        )
    if empty and named and training:
        raise DataError(f"{folder}: no pictures in {_listed(empty)}; fill these folders, or take them away")
    return named


def _read_table(path: Path) -> list[tuple[Path, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return list(_rows(file, path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: save it as 'CSV UTF-8'") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _rows(file: TextIO, path: Path) -> Iterator[tuple[Path, str]]:
    header = file.readline()
    delimiter = max(",;\t", key=header.count)
    columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if "path" not in columns or "label" not in columns:
        raise DataError(f"{path}: the first line must name the columns path and label; it is {header.strip()[:80]!r}")
    path_column, label_column = columns.index("path"), columns.index("label")
    reader = csv.reader(file, delimiter=delimiter)
    for row in reader:
        if not row:
            continue
        if len(row) <= max(path_column, label_column) or not row[path_column] or not row[label_column].strip():
            raise DataError(
                f"{path}, line {reader.line_num + 1}: no {_missing(row, path_column)}: {delimiter.join(row)!r}"
            )
        yield path.parent / row[path_column], _composed(row[label_column].strip())


def _missing(row: list[str], path_column: int) -> str:
    return "label" if len(row) > path_column and row[path_column] else "path"


def _check_known(source: Path, counts: Counter[str], class_to_idx: Mapping[str, int]) -> None:
    unknown = sorted(set(counts) - set(map(_composed, class_to_idx)))
    if not unknown:
        return
    lines = [
        f"  {name} ({_counted(counts[name], 'picture')}){suggestion(name, class_to_idx)}" for name in unknown[:_SHOWN]
    ]
    more = [f"  and {len(unknown) - _SHOWN} more"] if len(unknown) > _SHOWN else []
    raise DataError(
        "\n".join([f"{source}: {len(unknown)} of {len(counts)} classes are not among the model's:", *lines, *more])
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
