"""The pictures in folders, however deep. Names that begin with a dot are passed over; links to folders are followed."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from birder.data.images import IMAGE_SUFFIXES


def find_images(paths: Iterable[str | Path], *, passed_over: Counter[str] | None = None) -> Iterator[Path]:
    """The pictures that are meant by some paths, one after the other.

    Args:
        paths: Files, which are yielded whatever their name, and so is what does not exist: whoever reads it can say
            why not. Folders, which are searched to the bottom, in sorted order, for the suffixes of pictures.
        passed_over: Counts the other files in folders, by suffix.
    """
    for path in map(Path, paths):
        if path.is_dir():
            counter = passed_over if passed_over is not None else Counter()
            yield from (path / inner for inner in image_names(os.fspath(path), passed_over=counter))
        else:
            yield path


def image_names(root: str, folder: str = "", *, passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Pictures below ``folder``, in sorted order, as paths relative to ``root``, as ``folder`` is.

    Args:
        root: Where to begin.
        folder: A folder in it; empty is all of it. One that cannot be looked into is yielded itself: whoever reads it
            can say why not.
        passed_over: Counts the other files, by suffix.
    """
    return _walk(root, folder, Counter() if passed_over is None else passed_over, set())


def _walk(root: str, folder: str, passed_over: Counter[str], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Pictures below ``folder``, as paths relative to ``root``, as ``folder`` is."""
    place = os.path.join(root, folder)
    try:
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(place) as entries:
            names = sorted((entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError:
        yield folder  # whoever reads it says why
        return
    for name, inner in names:
        path = f"{folder}/{name}" if folder else name
        if inner:
            yield from _walk(root, path, passed_over, seen)
        elif (suffix := os.path.splitext(name)[1].lower()) in IMAGE_SUFFIXES:
            yield path
        else:
            passed_over[suffix] += 1


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether something in a folder is a folder itself, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: a file, whose reader says why not
        return False
