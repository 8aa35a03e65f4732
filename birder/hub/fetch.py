"""The file of a published model: found on this computer or downloaded, and known to be whole."""

import logging
import shutil
from pathlib import Path

from birder.catalogue import FORMATS, Pretrained, catalogue
from birder.errors import ConfigError, DownloadError, ModelFileError, UnknownName, suggestion
from birder.files import atomic
from birder.home import home, offline
from birder.hub import checksum, huggingface, transfer

log = logging.getLogger("birder")

_SUFFIXES = {f".{name}" for name in FORMATS}
_ROUNDING = 0.06
"""MiB by which the size in the catalogue may differ from that of the file."""


def locate(
    weights: str | Path, *, dst: str | Path | None = None, file_format: str | None = None, progress_bar: bool = True
) -> tuple[Path, str | None]:
    """The file of a published model or of a path, and the network that the catalogue names; None for a path.

    Args:
        weights: A name of the catalogue, or a path: what ends in ``.pt`` or ``.safetensors``, or has a folder in it.
        dst: The file to read, and to download to when it is not there; None is the cache.
        file_format: Form of the file, ``pt`` or ``safetensors``; None is the one that was published, ``pt`` of both.
        progress_bar: Show a bar while downloading, on a terminal.

    Raises:
        UnknownName: No such name, or a model that this version of birder cannot load.
        ConfigError: The model is not published in that form.
        DownloadError: The file could not be downloaded.
        ModelFileError: There is no such file, or another than the published one.
    """
    entries = catalogue()
    path = Path(weights)
    if isinstance(weights, Path) or (weights not in entries and _is_path(weights)):
        if dst is not None:
            raise ConfigError(f"dst: is for the name of a published model; {weights} is a path")
        if not path.exists():
            raise ModelFileError(f"{path}: no such file{_near(path, entries)}")
        return path, None
    if weights not in entries:
        raise UnknownName(f"no published model is called {weights!r}, and no file{_near(path, entries)}")
    entry = entries[weights]
    if entry.obstacle:
        raise UnknownName(f"{weights} is a published model, but its {entry.obstacle} by this version of birder")
    file_format = file_format or entry.default_format
    if file_format in entry.formats and file_format not in FORMATS:
        raise ConfigError(f"file_format: {file_format} cannot be loaded; choose one of {', '.join(FORMATS)}")
    return fetch(entry, file_format, dst=dst, progress_bar=progress_bar), entry.network


def fetch(
    entry: Pretrained, file_format: str = "pt", *, dst: str | Path | None = None, progress_bar: bool = True
) -> Path:
    """The whole file of a published model, downloaded if it is nowhere on this computer.

    Raises:
        ConfigError: The model is not published in that form, or ``dst`` has another suffix.
        DownloadError: The file could not be downloaded.
        ModelFileError: The file that is there is not the published one, or one that comes with birder is missing.
    """
    entry.file(file_format)
    if dst is not None and Path(dst).suffix != f".{file_format}":
        raise ConfigError(f"dst: {dst} must end in .{file_format}, as the file that it is for")
    own = Path(dst) if dst is not None else _own_place(entry, file_format)
    if entry.folder is not None and not own.is_file():
        _copy(entry, file_format, own)
    if own.is_file():
        check(entry, file_format, own)
        return own
    hub = huggingface.hub_file(entry.address(file_format))
    found = huggingface.cached(hub) if hub and dst is None else None
    if hub and found:
        _check_from_hub(entry, file_format, found)
        return found
    _check_online(entry, file_format, from_hub=hub is not None)
    if hub and dst is None:
        found = huggingface.download(hub, progress_bar=progress_bar)
        _check_from_hub(entry, file_format, found)
        return found
    _download(entry, file_format, own, progress_bar=progress_bar)
    return own


def local_file(entry: Pretrained, file_format: str) -> Path | None:
    """Where the file of a published model lies on this computer; None when it does not. It is not checked."""
    own = _own_place(entry, file_format)
    if own.is_file():
        return own
    if entry.folder is not None:
        return None
    hub = huggingface.hub_file(entry.address(file_format))
    return huggingface.cached(hub) if hub else None


def check(entry: Pretrained, file_format: str, path: Path) -> None:
    """See that a file has the published content; an older publication will do, with a line in the log.

    Raises:
        ModelFileError: It has another content.
    """
    digest = checksum.sha256(path)
    if not _is_publication(entry, file_format, path, digest):
        raise ModelFileError(
            f"{path} is not the published file of {entry.name}: {_difference(entry, file_format, path, digest)}. "
            "Remove it, and it is downloaded again; or, if it is a model of your own, load it by its path"
        )


def _is_publication(entry: Pretrained, file_format: str, path: Path, digest: str) -> bool:
    if digest in entry.superseded:
        log.warning("%s is an older publication of %s; remove it to get the current one", path, entry.name)
    return digest in (entry.file(file_format).sha256, *entry.superseded)


def _check_from_hub(entry: Pretrained, file_format: str, path: Path) -> None:
    """The same for a file in the cache of huggingface_hub, which nobody has placed by hand."""
    digest = checksum.sha256(path)
    if _is_publication(entry, file_format, path, digest):
        return
    difference = _difference(entry, file_format, path, digest)
    if huggingface.is_intact(path, digest):
        raise DownloadError(
            f"{entry.address(file_format)} is another file than this version of birder knows: {difference}. "
            f"It was published anew: a newer birder knows it; if you trust it, load it by its path, {path}"
        )
    huggingface.discard(path)
    raise DownloadError(f"{path} was damaged and has been removed: {difference}. Try again to download it anew")


def _check_online(entry: Pretrained, file_format: str, *, from_hub: bool) -> None:
    variable = "BIRDER_OFFLINE" if offline() else "HF_HUB_OFFLINE" if from_hub and huggingface.offline() else None
    if variable is not None:
        raise DownloadError(
            f"{entry.name} is not on this computer, and {variable} is set. Place {entry.address(file_format)} at "
            f"{_own_place(entry, file_format)}, or give the file by its path or as dst="
        )


def _download(entry: Pretrained, file_format: str, path: Path, *, progress_bar: bool) -> None:
    """Download to a place of the user's choice, or to our own cache."""
    published, url = entry.file(file_format), entry.address(file_format)
    hub = huggingface.hub_file(url)
    asked, headers = huggingface.address(hub) if hub else (url, {})

    accepted: list[str] = []

    def accept(partial: Path) -> None:
        digest = checksum.compute(partial)
        if digest != published.sha256:
            older = "an older publication" if digest in entry.superseded else "not the published file"
            raise DownloadError(
                f"what {asked} gave is {older} of {entry.name}: {_difference(entry, file_format, partial, digest)}. "
                "It was removed; try again, or, if it was published anew, with a newer birder"
            )
        accepted.append(digest)

    transfer.download(asked, path, accept=accept, headers=headers, progress_bar=progress_bar)
    if accepted:
        checksum.remember(path, accepted[0])
    else:  # by another process, meanwhile
        check(entry, file_format, path)


def _difference(entry: Pretrained, file_format: str, path: Path, digest: str) -> str:
    published, mib = entry.file(file_format), path.stat().st_size / transfer.MIB
    if mib < published.file_size - _ROUNDING:
        return f"it has {mib:.1f} of {published.file_size:.1f} MiB"
    return f"its sha256 is {digest[:16]}…, not {published.sha256[:16]}…"


def _copy(entry: Pretrained, file_format: str, path: Path) -> None:
    """Put a file that is installed with birder where it was asked for."""
    installed = _own_place(entry, file_format)
    if not installed.is_file():
        raise ModelFileError(f"{installed} is missing: it comes with birder, so install birder again")
    try:
        with atomic(path) as temporary:
            shutil.copyfile(installed, temporary)
    except OSError as error:
        raise ConfigError(f"dst: {path} cannot be written: {error.strerror or error}") from error


def _own_place(entry: Pretrained, file_format: str) -> Path:
    return (entry.folder or home() / "models") / entry.file_name(file_format)


def _is_path(weights: str) -> bool:
    path = Path(weights)
    return path.suffix in _SUFFIXES or path.name != weights or path.exists()


def _near(path: Path, entries: dict[str, Pretrained]) -> str:
    """Near misses among the published models and the model files of the folder."""
    try:
        files = {str(file) for file in path.parent.iterdir() if file.suffix in _SUFFIXES}
    except OSError:
        files = set()
    return suggestion(str(path), [*sorted(files), *entries])
