"""The journal of a run: each batch of rows is on the disk before the next counts, and no end of a process undoes that.

    line                   birder journal 1
    records                mark, length, kind, checksum (BLAKE2b of length, kind and content), content
      HEADER               once: JSON of what must be the same for rows to belong together
      NAMES                JSON of {"start": number of the first, "names": class names}, before the rows that use them
      ROWS                 the rows of one batch, see ``packing``
      FINISHED             JSON of what was written from the rows above

It is only ever appended to. A record counts if its checksum is right. Of a record that was cut off or damaged nothing
is believed: at the end of the file it is removed; before that, the records behind it still count. A process that is
killed loses nothing that ``append`` has returned from. Appending waits for the disk (fsync) unless it did so less than
0.2 s ago, so that a power cut may cost the batches of 0.2 s besides; whatever is lost is predicted again.
"""

import errno
import json
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from birder.errors import ConfigError
from birder.files import atomic
from birder.inference.bulk.inputs import Numbers
from birder.inference.bulk.known import Known
from birder.inference.bulk.packing import Names, Packed, pack
from birder.inference.rows import Row

SYNC_S = 0.2
"""Batches that come quicker than this share one wait for the disk."""

_MAGIC = b"birder journal 1\n"
_MARK = b"\xb1rec"
_HEAD = struct.Struct("<4sIB8s")  # mark, length of the content, kind, checksum
_HEADER, _NAMES, _ROWS, _FINISHED = range(4)
_PLACE_BITS = 8  # of a number of a row, its place in the record; the others say where in the file that begins
_PIECE = 1 << 20


class Journal:
    """An open journal; see ``open_journal``.

    Attributes:
        path: The file.
        known: The keys of all rows in it, with their numbers.
        finished: What ``finish`` noted last; empty if nothing was.
        notes: What was found damaged, in words; empty if nothing.
    """

    def __init__(self, path: Path) -> None:
        """Made by ``open_journal``."""
        self.path = path
        self.known = Known()
        self.finished: dict[str, Any] = {}
        self.notes: list[str] = []
        self._names = Names()
        self._file: BinaryIO = open(path, "rb+", buffering=0)  # noqa: SIM115
        self._end = 0
        self._unsynced = False
        self._synced_at = 0.0
        self._record = lru_cache(maxsize=8)(self._read_record)

    @property
    def next_number(self) -> int:
        """Rows that are appended from now on have numbers that are not below this."""
        return self._end << _PLACE_BITS

    def append(self, rows: Sequence[Row]) -> Numbers:
        """Note the rows of a batch, at most 64, with their stamps; (N,) their numbers, to have them back by.

        Raises:
            ConfigError: The disk is full, or the file cannot be written for another reason; what was noted stays.
        """
        if new := self._names.new(rows):
            start = self._names.free
            self._write(_framed(_NAMES, _json({"start": start, "names": new})))
            self._names.learn(start, new)
        content, numbers = pack(rows, self._names), _numbers(self._end, len(rows))
        self._write(_framed(_ROWS, content))
        if time.monotonic() - self._synced_at >= SYNC_S:
            self.sync()
        record = Packed(content)
        self.known.add(record.paths, record.files, numbers)
        return numbers

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Note what was written from the rows; errors as in ``append``."""
        self._write(_framed(_FINISHED, _json(facts)))
        self.sync()
        self.finished = json.loads(_json(facts))

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """Rows by their numbers, in that order; fast when neighbours were noted together.

        Raises:
            ConfigError: While running: the file is damaged since it was opened.
        """
        for number in numbers:
            yield self._record(number >> _PLACE_BITS).row(number & (1 << _PLACE_BITS) - 1, self._names)

    def sync(self) -> None:
        """Wait until all is on the disk; errors as in ``append``."""
        if self._unsynced:
            with self._stopping():
                os.fsync(self._file.fileno())
            self._unsynced, self._synced_at = False, time.monotonic()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def header(self) -> dict[str, Any]:
        """What the rows of this journal have in common.

        Raises:
            ConfigError: The file is no journal, or its beginning is damaged.
        """
        size = os.fstat(self._file.fileno()).st_size
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise ConfigError(
                f"{self.path} is no journal of this version of birder: name another --output; --restart replaces it"
            )
        found = _read(self._file, len(_MAGIC), size)
        if found is None or found[0] != _HEADER:
            raise ConfigError(
                f"the beginning of {self.path} is damaged, so what its rows mean is not known: --restart forgets them"
            )
        self._end = len(_MAGIC) + _HEAD.size + len(found[1])
        return json.loads(found[1])

    def scan(self) -> None:
        """Take in all records after the header; cut off the end of the file if it is not whole."""
        size = os.fstat(self._file.fileno()).st_size
        at = self._end
        while at < size:
            found = _read(self._file, at, size)
            if found is None:
                following = _next_record(self._file, at + 1, size)
                if following == size:
                    break
                self.notes.append(
                    f"{self.path} is damaged from byte {at} to {following}: what was there is predicted again"
                )
                at = following
                continue
            kind, content = found
            if kind == _ROWS:
                self._take_in(at, Packed(content))
            elif kind == _NAMES:
                names = json.loads(content)
                self._names.learn(names["start"], names["names"])
            elif kind == _FINISHED:
                self.finished = json.loads(content)
            at += _HEAD.size + len(content)
            self._end = at
        if self._end < size:
            self.notes.append(f"the last {size - self._end} bytes of {self.path} were not whole and are cut off")
            with self._stopping():
                self._file.truncate(self._end)

    def _take_in(self, at: int, rows: Packed) -> None:
        if self._names.knows(rows.labels):
            self.known.add(rows.paths, rows.files, _numbers(at, len(rows)))
        else:
            self.notes.append(f"{self.path} is damaged: the names of {len(rows)} rows are lost; predicted again")

    def _read_record(self, at: int) -> Packed:
        found = _read(self._file, at, self._end)
        if found is None or found[0] != _ROWS:
            raise ConfigError(f"{self.path} was changed or damaged at byte {at}: run the same command again")
        return Packed(found[1])

    def _write(self, data: bytes) -> None:
        with self._stopping():
            try:
                self._file.seek(self._end)
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) :]
            except BaseException:
                self._file.truncate(self._end)  # a half record would be found and cut off, but need not stay till then
                raise
        self._end += len(data)
        self._unsynced = True

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "free some space and" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that and"
            raise ConfigError(
                f"{self.path} could not be written: {error.strerror or error}. What is in it is kept: {remedy} run the "
                f"same command, which goes on from there"
            ) from error


@contextmanager
def open_journal(path: Path, identity: Mapping[str, Any], *, restart: bool = False) -> Iterator[Journal]:
    """A journal, taken up where it ends, or a new one; no other process may have it open.

    Args:
        path: The file; its folder is there.
        identity: What must be the same for rows to belong together, such as the model's digest and the options: a flat
            dict of what JSON can hold.
        restart: Forget a journal that is there.

    Raises:
        ConfigError: The journal has another identity, is none, or cannot be written.
    """
    wanted = json.loads(_json(identity))
    try:
        if restart or not path.exists():
            with atomic(path) as temporary:
                temporary.write_bytes(_MAGIC + _framed(_HEADER, _json(wanted)))
        journal = Journal(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        if different := _differences(journal.header(), wanted):
            raise ConfigError(
                f"{path} belongs to a run with other options:\n{different}\nRun with those again, name another "
                f"--output, or forget what was done with --restart"
            )
        journal.scan()
        yield journal
        journal.sync()
    finally:
        journal.close()


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "\n".join(f"  {name}: {_short(old.get(name))} → {_short(new.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _numbers(start: int, count: int) -> Numbers:
    assert count <= 1 << _PLACE_BITS
    return (np.uint64(start) << np.uint64(_PLACE_BITS)) + np.arange(count, dtype=np.uint64)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


def _framed(kind: int, content: bytes) -> bytes:
    return _HEAD.pack(_MARK, len(content), kind, _checksum(kind, content)) + content


def _checksum(kind: int, content: bytes) -> bytes:
    hashed = blake2b(struct.pack("<IB", len(content), kind), digest_size=8)
    hashed.update(content)
    return hashed.digest()


def _read(file: BinaryIO, at: int, size: int) -> tuple[int, bytes] | None:
    """Kind and content of the record that begins there, if it is whole."""
    if at + _HEAD.size > size:
        return None
    file.seek(at)
    mark, length, kind, checksum = _HEAD.unpack(file.read(_HEAD.size))
    if mark != _MARK or length > size - at - _HEAD.size:
        return None
    content = file.read(length)
    return (kind, content) if len(content) == length and _checksum(kind, content) == checksum else None


def _next_record(file: BinaryIO, at: int, size: int) -> int:
    """Where the next whole record begins; ``size`` if there is none."""
    while at < size:
        file.seek(at)
        piece = file.read(_PIECE + len(_MARK) - 1)
        found = piece.find(_MARK)
        if found < 0:
            at += _PIECE
        elif _read(file, at + found, size) is None:
            at += found + 1
        else:
            return at + found
    return size
