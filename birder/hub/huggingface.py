"""Files at huggingface.co, through its own library: its cache, tokens, mirrors (``HF_ENDPOINT``) and offline mode."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import birder
from birder.errors import DownloadError
from birder.hub.transfer import check_space, no_space

_ADDRESS = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/([^/]+)")
_HINT = "without a network, give the file that someone else downloaded: by its path, or as dst="
_TOKEN = "log in with `hf auth login`, or set HF_TOKEN, with an account that may read it"


class HubFile(NamedTuple):
    """A file at huggingface.co."""

    repo_id: str
    """Owner and name of the repository."""
    revision: str
    """Branch, tag or commit."""
    filename: str
    """Name of the file in the repository."""


def hub_file(url: str) -> HubFile | None:
    """The file of an address at huggingface.co; None for other addresses."""
    match = _ADDRESS.fullmatch(url)
    return HubFile(*match.groups()) if match else None


def cached(file: HubFile) -> Path | None:
    """Where the library keeps the file, without asking the network; None when it does not."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{file.repo_id.replace('/', '--')}"
    reference = folder / "refs" / file.revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else file.revision
    path = folder / "snapshots" / commit / file.filename
    return path if path.is_file() else None


def cache() -> Path:
    """The folder that the library keeps files in."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def download(file: HubFile, *, progress_bar: bool = True) -> Path:
    """Download a file into the library's cache, if it is not there; where it is.

    Raises:
        DownloadError: No network, no such file, no permission, no space.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import tqdm

    silent: Any = partial(tqdm, disable=True)
    with _explained(file):
        size = None
        try:  # the library itself asks for half a minute whether there is a network
            size = get_hf_file_metadata(address(file)[0]).size
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise  # of a busy server the library knows how to ask again
        check_space(cache(), size or 0, file.filename)
        path = hf_hub_download(
            file.repo_id,
            file.filename,
            revision=file.revision,
            library_name="birder",
            library_version=birder.__version__,
            tqdm_class=None if progress_bar else silent,
        )
    return Path(path)


def address(file: HubFile) -> tuple[str, dict[str, str]]:
    """The address of a file, at the mirror if there is one, and the header with the user's token if there is one."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers(library_name="birder", library_version=birder.__version__)
    token = {name: value for name, value in headers.items() if name.lower() == "authorization"}
    return hf_hub_url(file.repo_id, file.filename, revision=file.revision), token


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids to ask huggingface.co."""
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def is_intact(path: Path, digest: str) -> bool:
    """Whether a file in the cache is what its server had, by its checksum; large files are named for theirs."""
    return path.resolve().name == digest


def discard(path: Path) -> None:
    """Remove a file from the cache."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextmanager
def _explained(file: HubFile) -> Iterator[None]:
    """Say what the library's errors mean, and what to do."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    what = f"{file.filename} of {file.repo_id} could not be downloaded"
    try:
        yield
    except DownloadError:
        raise
    except LocalEntryNotFoundError as error:  # it is not in the cache either
        cause = error.__cause__ or error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        raise DownloadError(f"{what}: {_refusal(status) or _first_line(cause) + '; ' + _HINT}") from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise DownloadError(f"{what}: {_refusal(status) or _first_line(error)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(cache(), file.filename, "the disk is full (HF_HUB_CACHE is another place, too)") from error
        raise DownloadError(f"{what}: {_first_line(error)}; {_HINT}") from error
    except Exception as error:  # of the library's HTTP client, whose errors have no common base with the system's
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise DownloadError(f"{what}: {_first_line(error)}; {_HINT}") from error


def _refusal(status: int | None) -> str:
    """What an HTTP status means for the user."""
    if status in (401, 403):
        return f"the hub refuses it (HTTP {status}): it is private, or there is no such repository; {_TOKEN}"
    return "there is no such file (HTTP 404)" if status == 404 else ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
