"""Checkpoints of a run: written whole, the last few kept, a damaged one passed over.

checkpoints/
├── 00001200.pt     the state before step 1200
└── 00001500.pt
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from birder.errors import DataError
from birder.model_file.formats import write_torch


class Checkpoints:
    """The checkpoints in a folder."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Keep the newest ``keep`` in ``folder``, which need not exist yet."""
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """The files, newest first, damaged or not."""
        own = [path for path in self.folder.glob("[0-9]" * 8 + "*.pt") if path.stem.isdigit()]
        return sorted(own, key=lambda path: int(path.stem), reverse=True)

    def write(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state before a step, atomically; then remove what is too old, or newer than it.

        A newer one can only be a damaged one that was passed over when the run went on.
        """
        self.folder.mkdir(exist_ok=True)
        for abandoned in self.folder.glob(".*.tmp.pt"):  # by a process that was killed while it wrote
            abandoned.unlink(missing_ok=True)
        path = self.folder / f"{step:08}.pt"
        write_torch(path, state)
        newer = [other for other in self.paths() if int(other.stem) > step]
        older = [other for other in self.paths() if int(other.stem) < step]
        for other in newer + older[self.keep - 1 :]:
            other.unlink(missing_ok=True)
        return path

    def newest(self, report: Callable[[str], None]) -> Path | None:
        """The newest that is whole; None when there is none at all.

        Args:
            report: Takes one line for each file that is damaged.

        Raises:
            DataError: There are some, and all are damaged.
            PermissionError: One may not be read.
        """
        paths = self.paths()
        for path in paths:
            try:
                read_checkpoint(path)
                return path
            except (PermissionError, MemoryError):  # it may well be whole
                raise
            except Exception as error:  # damaged bytes lead the unpickler to errors of any kind
                report(f"{path} is damaged and passed over ({str(error).splitlines()[0] if str(error) else error!r})")
        if paths:
            raise DataError(
                f"all checkpoints in {self.folder} are damaged: remove {self.folder.parent} to begin again, "
                "or name another folder"
            )
        return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; its checksums are compared, and no code is run.

    Raises:
        Exception: It is damaged; errors of any kind.
    """
    with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)
