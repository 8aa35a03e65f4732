"""The bytes of both formats, ``.pt`` and ``.safetensors``: to and from a dictionary of entries."""

import errno
import json
import mmap
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.serialization import set_default_mmap_options

from birder.errors import ModelFileError
from birder.files import atomic

FORMATS = (".pt", ".safetensors")

# Windows does not replace a file that is mapped: it could not be saved again while the network is in use.
_NOT_WHILE_MAPPED = os.name == "nt"
_TEXTS = ("task", "birder_version", "network")
_TABLES = ("signature", "class_to_idx", "rgb_stats", "rgb_values", "config", "calibration")


def check_format(path: Path) -> None:
    """Accept the suffixes of model files.

    Raises:
        ModelFileError: Another suffix.
    """
    if path.suffix not in FORMATS:
        raise ModelFileError(f"{path}: a model file ends in {' or '.join(FORMATS)}")


def read_entries(path: Path) -> dict[str, Any]:
    """The entries of a model file as they stand there, with tensors that are mapped from it.

    Of a ``.pt`` file, the directory, the head of each record and the checksum of the entries are checked; the
    checksums of the weights are not, as that would take longer than loading does. A ``.safetensors`` file has no
    checksums; its table of weights must agree with its length. So a flipped bit in a weight is not seen here.

    Raises:
        ModelFileError: Not there, no file, damaged, of another kind, or with code in it.
    """
    check_format(path)
    beginning = _beginning(path)
    try:
        return _read_pt(path, beginning) if path.suffix == ".pt" else _read_safetensors(path)
    except ModelFileError:
        raise
    except Exception as error:  # damaged bytes lead the libraries to errors of any kind
        reason = first_sentence(error.__context__ or error if isinstance(error, pickle.UnpicklingError) else error)
        damaged = f"is damaged or no {path.suffix} file ({reason}); get the file again"
        raise ModelFileError(f"{path} {_something_else(beginning, path.suffix) or damaged}") from error


def write_entries(path: Path, state: dict[str, Tensor], entries: Mapping[str, Any]) -> None:
    """Write weights and the other entries, atomically.

    Raises:
        ModelFileError: Another suffix.
    """
    check_format(path)
    if path.suffix == ".pt":
        write_torch(path, {"state": state, **entries})
        return
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}
    with atomic(path) as temporary:
        _save_safetensors(state, temporary, texts)


def write_torch(path: Path, content: Any) -> None:
    """Write what ``torch.load`` reads, atomically.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    with atomic(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # given a name, torch would hide what the system says
                torch.save(content, file)
        except RuntimeError as error:  # given a file, it hides it sometimes
            hidden: BaseException | None = error
            while hidden is not None and not isinstance(hidden, OSError):
                hidden = hidden.__context__
            raise hidden or error from error


def first_sentence(error: BaseException) -> str:
    """The first sentence of what an error of another package says; its kind, if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0][:200]


def _beginning(path: Path) -> bytes:
    """The first bytes of what must be a file and readable."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{path}: a folder, not a model file; give the path of a file in it")
        if not stat.S_ISREG(mode):  # reading a pipe or a device might never end
            raise ModelFileError(f"{path}: a pipe or a device, not a model file; save what it gives to a file first")
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; give the path of a model file") from None
    except (OSError, ValueError) as error:  # a loop of links, no permission, a name that is too long or has a null
        if isinstance(error, ModelFileError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path} cannot be read ({reason}); give the path of a model file") from error


def _something_else(beginning: bytes, suffix: str) -> str | None:
    """What a file is by its first bytes, when it could not be read as its suffix says; None for what it says."""
    if not beginning:
        return "is empty; get the file again"
    if beginning.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the model itself; run git lfs pull"
    if beginning.startswith(b"PK") and suffix != ".pt":
        return "is a torch archive with the wrong suffix; name it .pt"
    if beginning[8:9] == b"{" and suffix != ".safetensors":
        return "is a safetensors file with the wrong suffix; name it .safetensors"
    if beginning.lstrip()[:1] == b"<":
        return "is a web page; the download went wrong, get the file again"
    if beginning.lstrip()[:1] in (b"{", b"["):
        return "is JSON text, not weights; give it to load_model_with_cfg if it describes a network"
    return None


def _read_pt(path: Path, beginning: bytes) -> dict[str, Any]:
    # What mapping does is a setting that others can change; written numbers must never reach the file.
    private = nullcontext() if _NOT_WHILE_MAPPED else set_default_mmap_options(mmap.MAP_PRIVATE)
    try:
        with private, warnings.catch_warnings(action="ignore"):  # of another pickle protocol, and the like
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path, beginning))
    except pickle.UnpicklingError as error:
        if "unsupported global" not in str(error).lower():
            raise
        reason = "holds Python objects that only running its code could read, so it was not read"
        raise ModelFileError(f"{path} {reason}; ask for the weights alone, or a .safetensors file") from error
    if not isinstance(entries, dict):
        kind = type(entries).__name__
        raise ModelFileError(f"{path} holds a {kind}, not the dictionary of a model file; save one with save_model")
    return entries


def _can_be_mapped(path: Path, beginning: bytes) -> bool:
    """Whether a file is an archive whose records stand in it as they are; checks the archive on the way."""
    if not zipfile.is_zipfile(path):
        if beginning.startswith(b"PK"):
            raise zipfile.BadZipFile("the end of the archive is missing")
        return False  # of torch before 1.6
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            with archive.open(record) as content:  # compares the record's head with the directory
                if record.filename.endswith("/data.pkl") and record.CRC:  # 0: written without checksums
                    content.read()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())
    return stored and not _NOT_WHILE_MAPPED


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    # Others may stand beside ours, such as "format", or the names of shared tensors.
    entries = {name: metadata[name] for name in _TEXTS if name in metadata}
    for name in _TABLES:
        try:
            entries |= {name: json.loads(metadata[name])} if metadata.get(name) else {}
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{path}: {name} is no JSON ({first_sentence(error)}); get the file again") from error
    if _NOT_WHILE_MAPPED:
        state = {name: tensor.clone() for name, tensor in state.items()}
    return {"state": state, **entries}


def _save_safetensors(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:  # it wraps a full disk and the like
        raise OSError(errno.EIO, first_sentence(error), str(path)) from error
