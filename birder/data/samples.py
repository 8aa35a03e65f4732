"""Which pictures there are, and what is in them.

A labelled data set is a folder of folders, a table, or a set of tar files (see ``birder.data.shards``):

    birds/                      birds.csv                        shards/
    ├── Eurasian Wren/          path,label                       ├── classes.txt
    │   ├── 1.jpg               photos/1.jpg,Eurasian Wren       ├── birds-000000.tar
    │   └── 2012/7.jpg          photos/7.jpg,Eurasian Wren       └── birds-000001.tar
    └── Great Tit/              photos/2.jpg,Great Tit
        └── 2.jpg

Names that begin with a dot are passed over everywhere. Folders that are links are followed, each folder once. Class
names are compared in Unicode's composed form, as some file systems decompose their letters.
"""

import csv
import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO, overload

import numpy as np
from PIL import Image

from birder.data.folders import image_names, is_folder
from birder.data.images import IMAGE_SUFFIXES, open_file, read_image
from birder.data.members import find_shards, read_members
from birder.data.names import Names, composed
from birder.data.tables import delimiter_of
from birder.errors import DataError, ImageError, suggestion

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
_SHOWN = 10  # as many names are listed in a message


class Pictures(Protocol):
    """Where pictures lie, by number: in files of their own (``Files``), or in tar files (``Members``)."""

    def __len__(self) -> int:
        """The number of pictures."""

    def name(self, row: int) -> str:
        """What is shown and logged."""

    def relative(self, row: int) -> bytes:
        """The name without the place of the source, with slashes, the same on every machine."""

    def read(self, row: int) -> Image.Image:
        """The picture; raises ``ImageError``."""

    def content(self, row: int) -> bytes:
        """The file as it is; raises ``ImageError``."""


class Files:
    """Pictures in files of their own."""

    def __init__(self, root: str | Path, names: Names) -> None:
        """``names`` are paths relative to ``root``."""
        self.root = os.fspath(root)
        self.names = names

    @classmethod
    def at(cls, paths: Iterable[str | Path]) -> "Files":
        """Pictures at these paths."""
        return cls("", Names(os.fspath(path) for path in paths))

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def name(self, row: int) -> str:
        """The path."""
        return os.fspath(self.path(row))

    def path(self, row: int) -> Path:
        """The path of a picture."""
        return Path(self.root, self.names[row])

    def relative(self, row: int) -> bytes:
        """The path below the source."""
        return self.names.encoded(row)

    def read(self, row: int) -> Image.Image:
        """The picture; raises ``ImageError``."""
        return read_image(self.path(row))

    def content(self, row: int) -> bytes:
        """The file as it is; raises ``ImageError``."""
        with open_file(self.path(row)) as file:
            try:
                return file.read()
            except OSError as error:
                raise ImageError(f"the file cannot be read: {error.strerror or error}", code="unreadable") from error


class Samples:
    """Pictures and their labels, and the names of the labels. Whether the files can be read is not known yet.

    Attributes:
        labels: The label of each picture, (N,), int64.
        class_to_idx: Label of each class name; a class may be without pictures.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: Sequence[int] | np.ndarray[Any, Any],
        class_to_idx: Mapping[str, int],
        rows: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Labelled pictures; ``rows`` are the numbers among ``pictures`` of those that count, None takes all."""
        self.labels = np.asarray(labels, np.int64)
        self.class_to_idx = dict(class_to_idx)
        self._pictures = pictures
        self._rows = np.arange(len(pictures)) if rows is None else rows
        assert len(self._rows) == len(self.labels), "every picture has one label"

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self._rows)

    def name(self, index: int) -> str:
        """What is shown and logged: the path, or ``shards/birds-000003.tar/sample000003017.jpg``."""
        return self._pictures.name(self._rows[index])

    def read(self, index: int) -> Image.Image:
        """The picture: upright, RGB, 8 bits.

        Raises:
            ImageError: It cannot be read; the message is a short reason without the name.
        """
        return self._pictures.read(self._rows[index])

    def content(self, index: int) -> bytes:
        """The file as it is.

        Raises:
            ImageError: It cannot be read; the message is a short reason without the name.
        """
        return self._pictures.content(self._rows[index])

    @property
    def paths(self) -> Sequence[Path]:
        """The names as paths, each made when it is asked for; those of pictures in tar files cannot be opened."""
        return _PathView(self)

    def select(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> "Samples":
        """Some of the samples, in the given order; the names are shared with this."""
        chosen = np.asarray(indices, np.int64)
        return Samples(self._pictures, self.labels[chosen], self.class_to_idx, self._rows[chosen])

    def fingerprint(self) -> str:
        """SHA-256 of names, labels and classes, the same on every machine and wherever the source lies.

        Two sets with the same fingerprint have the same files and labels in the same order. What is in the files does
        not count. A million names take about a second.
        """
        digest = hashlib.sha256(f"{len(self)}\0".encode())
        for row in self._rows.tolist():
            digest.update(self._pictures.relative(row) + b"\0")
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(json.dumps(sorted(self.class_to_idx.items())).encode())
        return digest.hexdigest()


class _PathView(Sequence[Path]):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        if isinstance(index, slice):
            return [Path(self.samples.name(number)) for number in range(*index.indices(len(self)))]
        return Path(self.samples.name(index))


@dataclass(frozen=True, kw_only=True)
class _Found:
    pictures: Pictures
    numbers: np.ndarray[Any, Any]
    """(N,): which of the names each picture has."""
    names: list[str]
    """Class names, composed."""
    ordered: bool = False
    """Whether the names stand in the order of their labels."""


def read_samples(source: str | Path, class_to_idx: Mapping[str, int] | None = None) -> Samples:
    """The labelled pictures of a folder, a CSV file or a set of tar files.

    Args:
        source: A folder with one folder for each class, in which all pictures count, however deep; or a text file in
            UTF-8 with the columns ``path`` (relative to the file's folder) and ``label``, any others being ignored; or
            shards: the folder of a set, one tar file, or the beginning of the names of a set, such as
            ``shards/birds-training`` for ``shards/birds-training-000000.tar`` and so on.
        class_to_idx: Label of each class name, as a model has them; None numbers the names in sorted order, those of
            shards in their own.

    Raises:
        DataError: The source is not there or has another form, has no pictures or one class only, is damaged, or, where
            ``class_to_idx`` is given, has names that are not in it.
    """
    source = Path(source)
    shards = find_shards(source)
    if shards is not None:
        members, numbers, names = read_members(shards)
        found = _Found(pictures=members, numbers=numbers, names=names, ordered=True)
    elif source.is_dir():
        found = _read_folder(source, training=class_to_idx is None)
    elif source.is_file():
        found = _read_table(source)
    else:
        raise DataError(f"{source}: no such file or folder")
    if not len(found.pictures):
        raise DataError(f"{source} holds no pictures")
    counts = np.bincount(found.numbers, minlength=len(found.names))
    used = {name: int(count) for name, count in zip(found.names, counts, strict=True) if count}
    if class_to_idx is None:
        if len(used) == 1:
            raise DataError(f"{source} has only one class, {next(iter(used))!r}: there is nothing to tell apart")
        names = found.names if found.ordered else sorted(used)
        class_to_idx = {name: label for label, name in enumerate(names)}
    else:
        _check_known(source, used, class_to_idx)
    known = {composed(name): label for name, label in class_to_idx.items()}
    labels = np.array([known.get(name, -1) for name in found.names], np.int64)
    return Samples(found.pictures, labels[found.numbers], class_to_idx)


def read_pictures(source: str | Path) -> Samples:
    """All pictures of a folder, a CSV file or a set of tar files, whatever they show: label 0, and no classes.

    Args:
        source: A folder, in which pictures may lie at any depth; a text file in UTF-8 with the column ``path``; or
            shards. What ``read_samples`` takes is taken, too, in the same order.

    Raises:
        DataError: The source is not there, has another form, or holds no pictures.
    """
    source = Path(source)
    shards = find_shards(source)
    pictures: Pictures
    if shards is not None:
        pictures, _, _ = read_members(shards)
    elif source.is_dir():
        _inside(source)  # a folder in it that cannot be looked into is told of when it is read, but not the whole
        pictures = Files(source, Names(image_names(os.fspath(source))))
    elif source.is_file():
        pictures = Files(source.parent, Names(name for name, _ in _table(source, ("path", "path"))))
    else:
        raise DataError(f"{source}: no such file or folder")
    if not len(pictures):
        raise DataError(f"{source} holds no pictures")
    return Samples(pictures, np.zeros(len(pictures), np.int64), {})


def _read_folder(folder: Path, *, training: bool) -> _Found:
    inside = _inside(folder)
    files, numbers, classes, empty = Names(), array("q"), dict[str, int](), []
    for name, inner in inside:
        if not inner:
            continue
        before = len(files)
        for path in image_names(os.fspath(folder), name):
            files.append(path)
        if len(files) == before:
            empty.append(name)
            continue
        number = classes.setdefault(composed(name), len(classes))
        numbers.extend([number] * (len(files) - before))
    loose = sum(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name, inner in inside if not inner)
    if loose:
        raise DataError(
            f"{folder}: {_counted(loose, 'picture')} {'lies' if loose == 1 else 'lie'} directly in the folder; "
            f"each must lie in a folder of its class, as in {folder.name or folder}/Great Tit/1.jpg"
        )
    if classes and {name.lower() for name in classes} <= _SPLITS:
        raise DataError(
            f"{folder} holds parts of a data set, not classes: give one of them, as in {folder / min(classes)}"
        )
    if empty and classes and training:
        raise DataError(f"{folder}: no pictures in {_listed(empty)}; fill these folders, or take them away")
    return _Found(pictures=Files(folder, files), numbers=_integers(numbers), names=list(classes))


def _inside(folder: Path) -> list[tuple[str, bool]]:
    """What lies directly in a folder, in sorted order, and whether it is a folder itself.

    Raises:
        DataError: It cannot be looked into.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _read_table(path: Path) -> _Found:
    files, numbers, classes = Names(), array("q"), dict[str, int]()
    for name, label in _table(path, ("path", "label")):
        files.append(name)
        numbers.append(classes.setdefault(label, len(classes)))
    # Two spellings of a class in decomposed and composed letters are one.
    merged = {name: number for number, name in enumerate(dict.fromkeys(map(composed, classes)))}
    same = np.array([merged[composed(name)] for name in classes], np.int64)
    return _Found(pictures=Files(path.parent, files), numbers=same[_integers(numbers)], names=list(merged))


def _table(path: Path, columns: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Two columns of a CSV file, row by row."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _rows(file, path, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: save it as 'CSV UTF-8'") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _rows(file: TextIO, path: Path, wanted: tuple[str, str]) -> Iterator[tuple[str, str]]:
    header = file.readline()
    delimiter = delimiter_of(header)
    columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if not set(wanted) <= set(columns):
        names = "column path" if len(set(wanted)) == 1 else "columns path and label"
        raise DataError(f"{path}: the first line must name the {names}; it is {header.strip()[:80]!r}")
    path_column, label_column = (columns.index(name) for name in wanted)
    reader = csv.reader(file, delimiter=delimiter)
    for row in reader:
        if not row:
            continue
        if len(row) <= max(path_column, label_column) or not row[path_column] or not row[label_column].strip():
            raise DataError(
                f"{path}, line {reader.line_num + 1}: no {_missing(row, path_column)}: {delimiter.join(row)!r}"
            )
        yield row[path_column], row[label_column].strip()


def _missing(row: list[str], path_column: int) -> str:
    return "label" if len(row) > path_column and row[path_column].strip() else "path"


def _check_known(source: Path, counts: Mapping[str, int], class_to_idx: Mapping[str, int]) -> None:
    unknown = sorted(set(counts) - set(map(composed, class_to_idx)))
    if not unknown:
        return
    lines = [
        f"  {name} ({_counted(counts[name], 'picture')}){suggestion(name, class_to_idx)}" for name in unknown[:_SHOWN]
    ]
    more = [f"  and {len(unknown) - _SHOWN} more"] if len(unknown) > _SHOWN else []
    raise DataError(
        "\n".join([f"{source}: {len(unknown)} of {len(counts)} classes are not among the model's:", *lines, *more])
    )


def _integers(numbers: "array[int]") -> np.ndarray[Any, Any]:
    return np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
