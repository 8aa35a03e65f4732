"""Checksums of files, computed once: a model of a gigabyte is not read through at each load."""

import hashlib
import json
import logging
import os
from pathlib import Path

from birder.files import write_text
from birder.home import home

log = logging.getLogger("birder")

_PATIENCE_S = 10.0
_unwritten: dict[str, list[int | str]] = {}  # what there was no place for: remembered as long as this process runs


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits.

    It is remembered in ``$BIRDER_HOME`` and computed again only when the file's size or time of change is another.
    """
    stamp = _stamp(path)
    place = os.path.realpath(path)
    known = _unwritten.get(place) or _remembered().get(place)
    if known is not None and known[:2] == stamp:
        return str(known[2])
    digest = compute(path)
    _remember(path, [*stamp, digest])
    return digest


def compute(path: Path) -> str:
    """The checksum of a file, from its content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(path: Path, digest: str) -> None:
    """Take the word of whoever has just computed the checksum of a file."""
    _remember(path, [*_stamp(path), digest])


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _memory() -> Path:
    return home() / "checksums.json"


def _remembered() -> dict[str, list[int | str]]:
    try:
        return dict(json.loads(_memory().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or nothing that could be trusted
        return {}


def _remember(path: Path, row: list[int | str]) -> None:
    """Add to what is remembered, and forget files that are gone; a folder that cannot be written to costs only time."""
    from filelock import FileLock

    memory = _memory()
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(memory.with_suffix(".lock"), timeout=_PATIENCE_S):
            rows = {place: known for place, known in _remembered().items() if os.path.exists(place)}
            write_text(memory, json.dumps({**rows, os.path.realpath(path): row}, indent=0) + "\n")
    except OSError as error:
        _unwritten[os.path.realpath(path)] = row
        log.info("checksums are not remembered: %s", error)
