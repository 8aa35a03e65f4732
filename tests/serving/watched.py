"""Folders of which it is noted that a file in them was opened, made, changed or taken away. For Linux."""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_OPENED, _CHANGED, _MOVED, _MADE, _GONE = 0x20, 0x2, 0xC0, 0x100, 0x200
_IS_FOLDER = 0x40000000
_EVENT = struct.Struct("iIII")


class Watched:
    """What happens to the files of some folders, from now on; who only lists them does no harm."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Watch these folders, and none below them."""
        library = ctypes.CDLL(None, use_errno=True)
        self._file = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._file >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}
        for folder in folders:
            number = library.inotify_add_watch(
                self._file, os.fsencode(folder), _OPENED | _CHANGED | _MOVED | _MADE | _GONE
            )
            assert number >= 0, os.strerror(ctypes.get_errno())
            self._folders[number] = folder

    def touched(self) -> list[Path]:
        """The files that something happened to since this was last asked."""
        try:
            data = os.read(self._file, 1 << 16)
        except BlockingIOError:
            return []
        found, place = [], 0
        while place < len(data):
            number, kind, _, length = _EVENT.unpack_from(data, place)
            name = data[place + _EVENT.size : place + _EVENT.size + length].rstrip(b"\0")
            place += _EVENT.size + length
            if not (kind & _IS_FOLDER and kind & _OPENED):
                found.append(self._folders[number] / os.fsdecode(name))
        return found

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._file)
