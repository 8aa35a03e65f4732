"""Writing files so that a reader sees the old content or the new, never a half."""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; on leaving, it is flushed to the disk and takes the name of ``path``.

    After an error the temporary file is gone and what stood at ``path`` is untouched. The folder must exist. A link
    stays a link, and a file that is replaced passes on its permissions.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(6)}.tmp{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
        temporary.chmod(mode)
        yield temporary
        temporary.chmod(mode)  # whoever wrote may have put a file of its own in the place
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically; bytes of a file name that are no UTF-8 become visible escapes."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def remove_leftovers(path: Path) -> None:
    """Remove what ``atomic`` left beside ``path`` when its process was killed; nobody else may be writing there."""
    path = Path(os.path.realpath(path))
    name = re.compile(rf"\.{re.escape(path.stem[:80])}\.[0-9a-f]{{12}}\.tmp{re.escape(path.suffix)}")
    for found in os.listdir(path.parent):
        if name.fullmatch(found):
            (path.parent / found).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and renaming is durable
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
