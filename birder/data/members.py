"""Pictures in tar files in the format of WebDataset, read one by one in any order.

A set of shards is a folder with tar files of one beginning and ``classes.txt``, the class names in the order of their
labels. The files of a sample stand next to each other in a tar file and differ in their ending: a picture (``.jpg``,
``.jpeg``, ``.png`` or ``.webp``) and its label, a number in ``.cls``; other endings are passed over. A set of which
``_info.json`` says that it is incomplete, or was never finished, is refused.

Where each picture lies is found once, from the headers, and kept in ``.PREFIX.index.npz`` beside the tar files, or in
``$BIRDER_HOME/shards`` if nothing can be written there. It is made anew when size or time of a tar file changes.
"""

import contextlib
import hashlib
import json
import os
import re
import zipfile
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from birder.data.images import read_image
from birder.data.names import Names, composed
from birder.data.tar import Member, tar_members
from birder.errors import DataError, ImageError
from birder.files import atomic
from birder.home import home

PICTURES = ("jpeg", "jpg", "png", "webp")
"""Endings of pictures in shards."""
CLASSES, INFO = "classes.txt", "_info.json"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_OPEN = 64  # tar files that a process keeps open
_HEADERS = 4096  # bytes: what is read at once, a label with the headers around it
_VERSION = 1  # of the kept index
_UNREADABLE = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile)  # what numpy raises for damaged files


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A set of tar files."""

    folder: Path
    """Where they lie."""
    prefix: str
    """What their names begin with."""
    names: tuple[str, ...]
    """Their names, in order."""


class Members:
    """Pictures in tar files. Files are opened when they are needed, in each process anew."""

    def __init__(self, shards: Shards, index: dict[str, np.ndarray[Any, Any]]) -> None:
        """``index`` is what ``read_members`` found."""
        self.shards = shards
        self.names = Names.joined(index["text"].tobytes(), index["ends"].tobytes())
        self.shard, self.offset, self.size = index["shard"], index["offset"], index["size"]
        self._open: OrderedDict[int, _Handle] = OrderedDict()

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def name(self, row: int) -> str:
        """Tar file and name within it."""
        return os.path.join(self.shards.folder, self.shards.names[self.shard[row]], self.names[row])

    def relative(self, row: int) -> bytes:
        """Tar file and name within it, without the folder."""
        return os.fsencode(self.shards.names[self.shard[row]]) + b"/" + self.names.encoded(row)

    def read(self, row: int) -> Image.Image:
        """The picture; raises ``ImageError``."""
        return read_image(self.content(row))

    def content(self, row: int) -> bytes:
        """The file as it is; raises ``ImageError``."""
        size = int(self.size[row])
        try:
            content = self._handle(int(self.shard[row])).read(int(self.offset[row]), size)
        except OSError as error:
            raise ImageError(f"the tar file cannot be read: {error.strerror or error}", code="unreadable") from error
        if len(content) < size:
            raise ImageError("the tar file has become shorter since it was indexed", code="truncated")
        return content

    def _handle(self, shard: int) -> "_Handle":
        if shard not in self._open:
            self._open[shard] = _Handle(os.path.join(self.shards.folder, self.shards.names[shard]))
        self._open.move_to_end(shard)
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return self._open[shard]


class _Handle:
    """An open file that can be read by many: no reading depends on where another one stopped."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it could not be opened
            os.close(self.descriptor)

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.descriptor, size, offset)
        os.lseek(self.descriptor, offset, os.SEEK_SET)  # Windows, where no other process has this descriptor
        return os.read(self.descriptor, size)


def find_shards(source: Path) -> Shards | None:
    """The set that is meant by a folder, a tar file, or the beginning of the names of some; None if it is none.

    Raises:
        DataError: There are several sets, or not all of one, or they are compressed.
    """
    if source.name.lower().endswith(_COMPRESSED):
        raise DataError(f"{source} is compressed, so that its pictures cannot be found: unpack it to a plain .tar")
    if source.suffix.lower() == ".tar" and source.is_file():
        return Shards(folder=source.parent, prefix=source.stem, names=(source.name,))
    if source.is_dir():
        return _only_set(source)
    sets = _sets(source.parent) if source.parent.is_dir() else {}
    return _whole(source.parent, source.name, sets[source.name]) if source.name in sets else None


def read_members(shards: Shards) -> tuple[Members, np.ndarray[Any, Any], list[str]]:
    """The pictures of a set, their labels (N,), int64, and the class names in the order of the labels.

    Raises:
        DataError: A tar file is damaged, a sample has no picture or no label, or there are no class names.
    """
    classes = _read_classes(shards)
    stamp = _stamp(shards)
    index = _kept(shards, stamp)
    if index is None:
        index = _scan(shards)
        _keep(shards, stamp, index)
    labels = index["label"]
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        row = int(np.argmax((labels < 0) | (labels >= len(classes))))
        raise DataError(
            f"{Members(shards, index).name(row)} has the label {labels[row]}, but "
            f"{shards.folder / CLASSES} names {len(classes)} classes"
        )
    return Members(shards, index), labels, classes


def read_info(folder: Path) -> dict[str, Any]:
    """What ``_info.json`` says, in the layout of WebDataset: ``name`` and ``splits``; empty if there is none.

    Raises:
        DataError: It is no such file.
    """
    path = folder / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(split["filenames"], list) for split in info["splits"].values()):
            raise TypeError
        return dict(info)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no description of shards: take it away, or pack again") from error


def split_of(info: dict[str, Any], prefix: str) -> str | None:
    """The split that ``_info.json`` has for shards with that beginning."""
    for split, entry in info.get("splits", {}).items():
        if prefix in (split, f"{info.get('name')}-{split}") or prefix in map(_prefix, entry["filenames"][:1]):
            return str(split)
    return None


def _prefix(name: str) -> str:
    return re.sub(r"[-_.]?\d+$", "", Path(name).stem)


def _sets(folder: Path) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        for name in sorted(entry.name for entry in entries if not entry.name.startswith(".")):
            if name.lower().endswith(".tar"):
                sets.setdefault(_prefix(name), []).append(name)
    return sets


def _only_set(folder: Path) -> Shards | None:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        if any(entry.is_dir() for entry in shown):  # of classes, beside which an archive may lie
            return None
    except OSError:
        return None  # whoever looks for pictures says why
    sets = _sets(folder)
    if len(sets) > 1:
        found = ", ".join(str(folder / prefix) for prefix in sets)
        raise DataError(f"{folder} holds several sets of shards: give one of {found}")
    for prefix, names in sets.items():
        return _whole(folder, prefix, names)
    packed = sum(entry.name.lower().endswith(_COMPRESSED) for entry in shown)
    if packed:
        raise DataError(
            f"{folder}: {packed} compressed tar files, in which pictures cannot be found: unpack them to plain .tar"
        )
    return None


def _whole(folder: Path, prefix: str, names: list[str]) -> Shards:
    """The set, if nothing of it is missing."""
    info = read_info(folder)
    split = split_of(info, prefix)
    if split is not None:
        listed = [str(name) for name in info["splits"][split]["filenames"]]
        if not listed:
            raise DataError(f"{folder}: packing {prefix} was not finished; pack it again")
        missing = [name for name in listed if name not in names]
        if missing:
            count = f"{len(missing)} of the {len(listed)} tar files"
            raise DataError(f"{folder}: {count} of {prefix} are missing, {missing[0]} the first")
        names = listed
    return Shards(folder=folder, prefix=prefix, names=tuple(names))


def _read_classes(shards: Shards) -> list[str]:
    path = shards.folder / CLASSES
    try:
        names = [composed(line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: shards need this file, in UTF-8, with one class name per line: {error}") from error
    if len(set(names)) < len(names):
        raise DataError(f"{path} names {Counter(names).most_common(1)[0][0]} twice")
    return names


def _scan(shards: Shards) -> dict[str, np.ndarray[Any, Any]]:
    names, columns = Names(), {name: array("q") for name in ("shard", "offset", "size", "label")}
    for number, name in enumerate(shards.names):
        for member, label in _samples(shards.folder / name):
            names.append(member.name)
            for column, value in zip(columns.values(), (number, member.offset, member.size, label), strict=True):
                column.append(value)
    text, ends = names.parts()
    found = {name: np.array(column, np.int64) for name, column in columns.items()}
    found["shard"] = found["shard"].astype(np.int32)
    return found | {"text": np.frombuffer(text, np.uint8), "ends": np.frombuffer(ends, np.int64)}


def _samples(path: Path) -> Iterator[tuple[Member, int]]:
    """Picture and label of each sample of a tar file."""
    try:
        with open(path, "rb", buffering=_HEADERS) as file:
            key, picture, label = "", None, None
            for member in tar_members(file, path):
                folder, slash, base = member.name.rpartition("/")
                stem, dot, ending = base.partition(".")
                if not stem or not dot:
                    continue
                if folder + slash + stem != key:
                    if key:
                        yield _sample(path, key, picture, label)
                    key, picture, label = folder + slash + stem, None, None
                if ending.lower() in PICTURES:
                    picture = member
                elif ending.lower() == "cls":
                    file.seek(member.offset)
                    label = file.read(min(member.size, 32))
            if key:
                yield _sample(path, key, picture, label)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _sample(path: Path, key: str, picture: Member | None, label: bytes | None) -> tuple[Member, int]:
    if picture is None:
        raise DataError(f"{path}: {key} has no picture; its ending would be one of {', '.join(PICTURES)}")
    if label is None or not label.strip().isdigit():
        raise DataError(
            f"{path}: {key} has {'no label' if label is None else f'the label {label!r}'}; "
            f"{key}.cls must be the number of its class"
        )
    return picture, int(label)


def _stamp(shards: Shards) -> str:
    """What changes when a tar file does."""
    found = [(shards.folder / name).stat() for name in shards.names]
    state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(shards.names, found, strict=True)]
    return json.dumps([_VERSION, state])


def _places(shards: Shards) -> list[Path]:
    """Where the index may be kept."""
    whole = hashlib.sha256(os.fsencode(shards.folder.resolve() / shards.prefix)).hexdigest()[:24]
    return [shards.folder / f".{shards.prefix}.index.npz", home() / "shards" / f"{whole}.npz"]


def _kept(shards: Shards, stamp: str) -> dict[str, np.ndarray[Any, Any]] | None:
    for path in _places(shards):
        with contextlib.suppress(*_UNREADABLE), open(path, "rb") as file:
            kept = np.load(file)
            if str(kept["stamp"]) == stamp:
                return {name: kept[name] for name in ("text", "ends", "shard", "offset", "size", "label")}
    return None


def _keep(shards: Shards, stamp: str, index: dict[str, np.ndarray[Any, Any]]) -> None:
    beside, aside = _places(shards)
    for path in (beside, aside):
        with contextlib.suppress(OSError):  # it is only found again the next time
            if path is aside:
                path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, stamp=np.array(stamp), **index)
            return
