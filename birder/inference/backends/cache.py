"""What earlier runs found out about a model on this machine, and the networks that backends converted.

    $BIRDER_HOME/backends/<model>/<question>.json      what was chosen, and why
    $BIRDER_HOME/backends/<model>/<question>.npz       what torch fp32 answers to the golden pictures
    $BIRDER_HOME/backends/<model>/converted/…          networks in the form of a backend

Everything here can be made again: the folder may be deleted at any time, what is damaged is made anew, and where
nothing can be written nothing is kept. When a model is added and all together are larger than 8 GiB, those that were
not used for longest are deleted; what was used within the last day stays.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from birder.files import atomic, write_text
from birder.home import home
from birder.inference.backends.base import Outputs

logger = logging.getLogger("birder")

LIMIT = 8 * 1024**3
"""Bytes of all models together."""
REST = 24 * 60 * 60
"""Seconds since its last use for which a model is kept in any case: another process may be at work with it."""

_complained: set[Path] = set()  # folders of which it was said that nothing can be kept there


def model_folder(model: Mapping[str, Any]) -> Path | None:
    """The folder of a model, which counts as used now; None if there is none and none can be made.

    Args:
        model: What makes the model what it is; equal values, equal folder.
    """
    folder = home() / "backends" / digest(model)
    try:
        if not (folder / "model.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "model.json", json.dumps(model, indent=1, default=str) + "\n")
        with contextlib.suppress(PermissionError):  # a cache that others fill
            os.utime(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # one that may not even be looked into
            if folder.is_dir():
                return folder
        if folder.parent not in _complained:
            _complained.add(folder.parent)
            logger.warning("%s: which backend is fastest cannot be kept, and is found out each time", error)
        return None
    return folder


def digest(value: Mapping[str, Any]) -> str:
    """Equal for equal values, fit for a file name."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:24]


def read_choice(folder: Path, question: Mapping[str, Any]) -> tuple[dict[str, Any], Outputs] | None:
    """The answer that was kept, with the reference's answers; None if there is none, or it is damaged."""
    path = folder / f"{digest(question)}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["question"] != json.loads(json.dumps(question, default=str)):
            return None
        with open(path.with_suffix(".npz"), "rb") as file, np.load(file, allow_pickle=False) as arrays:
            wanted = Outputs(arrays["embeddings"], arrays.get("logits"))
        return dict(kept["answer"]), wanted
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.info("%s: damaged, and made anew: %s", path, error)
        return None


def write_choice(folder: Path, question: Mapping[str, Any], answer: Mapping[str, Any], wanted: Outputs) -> None:
    """Keep an answer; where that fails, it is logged and found out again next time."""
    path = folder / f"{digest(question)}.json"
    arrays = {name: array for name, array in wanted._asdict().items() if array is not None}
    try:
        with atomic(path.with_suffix(".npz")) as temporary:
            np.savez(temporary, **arrays)
        text = json.dumps({"question": question, "answer": answer}, indent=1, default=str)
        write_text(path, text + "\n")
    except OSError as error:
        logger.info("%s: cannot be kept: %s", path, error)


def trim(keep: Path, limit: int = LIMIT) -> None:
    """Delete the models that were not used for longest until all together are within the limit.

    Args:
        keep: The folder of the model in use.
        limit: Bytes.
    """
    folders = [folder for folder in keep.parent.iterdir() if folder.is_dir()]
    used = {folder: _last_use(folder) for folder in folders}
    sizes = {folder: _bytes(folder) for folder in folders}
    total = sum(sizes.values())
    for folder in sorted(folders, key=used.__getitem__):
        if total <= limit:
            return
        if folder != keep and time.time() - used[folder] > REST:
            _delete(folder)
            total -= sizes[folder]
            logger.info("%s: deleted, to make room (%.1f GB)", folder, sizes[folder] / 1e9)


def _delete(folder: Path) -> None:
    gone = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        folder.rename(gone)  # so that nobody finds half of it
    except OSError:  # another user's, or deleted by another process just now
        return
    shutil.rmtree(gone, ignore_errors=True)


def _last_use(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
