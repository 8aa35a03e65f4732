"""What is where in a tar file: names, places and sizes of its members, from the headers alone.

Only headers are read, the pictures between them are skipped: some hundred thousand members are listed in a second. The
formats are those of POSIX (ustar and pax) and GNU tar, uncompressed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from birder.errors import DataError

_BLOCK = 512
_END = bytes(_BLOCK)
_FILES, _PAX, _LONG_NAME = b"0\x007", b"x", b"L"


class Member(NamedTuple):
    """A file within a tar file."""

    name: str
    """The whole name, folders included."""
    offset: int
    """Where its content begins, in bytes."""
    size: int
    """How long its content is, in bytes."""


def tar_members(file: BinaryIO, path: Path) -> Iterator[Member]:
    """The files in an open tar file, in order; ``path`` is what errors call it.

    The file may be read elsewhere between two members.

    Raises:
        DataError: The tar file is cut off or damaged.
    """
    length = os.fstat(file.fileno()).st_size
    position, name, size = 0, "", -1  # name and size: what an extended header says of the next member
    while True:
        file.seek(position)
        header = file.read(_BLOCK)
        if header == _END:
            return
        if len(header) < _BLOCK:
            raise DataError(f"{path} ends early, at byte {length} within the tar file: pack it again")
        written, kind = _checked(header, position, path), header[156:157]
        size = written if size < 0 else size
        if position + _BLOCK + size > length:
            raise DataError(f"{path} ends early, at byte {length} within {name or _name(header)}: pack it again")
        if kind == _PAX:
            name, size = _extended(file.read(written), name)
        elif kind == _LONG_NAME:
            name, size = os.fsdecode(file.read(written).rstrip(b"\0")), -1
        else:
            if kind in _FILES:
                yield Member(name or _name(header), position + _BLOCK, size)
            written, name, size = size, "", -1
        position += _BLOCK + -(-written // _BLOCK) * _BLOCK


def _checked(header: bytes, position: int, path: Path) -> int:
    """The size of a member, of a header whose sum is right."""
    try:
        total = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        if total == sum(header) - sum(header[148:156]) + 8 * 32:
            field = header[124:136]
            if field[0] & 0x80:  # sizes that octal digits are too short for, in GNU's way
                return int.from_bytes(field[1:], "big")
            return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    what = "no tar file" if position == 0 else f"damaged at byte {position}"
    raise DataError(f"{path} is {what}: pack it again, or copy it anew if it came from elsewhere")


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    folder = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return os.fsdecode(folder + b"/" + name if folder else name)


def _extended(records: bytes, name: str) -> tuple[str, int]:
    """Name and size of the next member, as a pax header has them: lines of ``length key=value``; -1 is unknown."""
    size = -1
    while records[:1].isdigit():
        length = int(records.partition(b" ")[0])
        key, _, value = records[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        if key == b"path":
            name = os.fsdecode(value)
        elif key == b"size":
            size = int(value)
        records = records[length:]
    return name, size
