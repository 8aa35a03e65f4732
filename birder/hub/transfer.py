"""Plain downloads that go on where they stopped, in this process or in one that was killed before.

What has come so far lies beside the file as ``NAME.partial``, with the server's mark of the version in
``NAME.partial.version``. The file takes its name when it is whole and was accepted.
"""

import errno
import http.client
import io
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPHandler, Request, build_opener

import birder
from birder.catalogue import is_secure
from birder.errors import DownloadError

log = logging.getLogger("birder")

ATTEMPTS = 5
"""After so many broken attempts, with nothing new since the first of them, a download fails."""
PAUSE_S = 1.0
"""Before the second attempt; doubled before each one after it."""
TIMEOUT_S = 30.0
"""So long may the server be silent."""
MIB = 2**20

_LONGEST_PAUSE_S = 60.0
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_HINT = "without a network, give the file that someone else downloaded: by its path, or as dst="
_REFUSALS = {
    401: "the server asks for a token",
    403: "the server refuses it; a token may be needed",
    404: "there is no such file",
    410: "there is no such file any more",
}

Watch = Callable[[int, int | None], None]


class _Dropped(Exception):
    """The connection broke, or the server asks to try again later."""

    def __init__(self, reason: object, pause_s: float | None = None) -> None:
        super().__init__(str(reason))
        self.pause_s = pause_s


class _LoopbackHTTP(HTTPHandler):
    """Plain http from this computer only, also when a server sends us elsewhere."""

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        if not is_secure(request.full_url):
            raise DownloadError(f"{request.full_url} is not https: it was not downloaded")
        return super().http_open(request)


def download(
    url: str,
    path: Path,
    *,
    accept: Callable[[Path], None],
    headers: Mapping[str, str] | None = None,
    progress_bar: bool = True,
) -> None:
    """Download a file, unless another process does so meanwhile.

    Args:
        url: An https address, or one on this computer.
        path: What the file is to be called; its folder is made.
        accept: Called with the whole file before it takes its name; may raise, and the file is removed.
        headers: Sent with the first request, and not to where the server redirects.
        progress_bar: Show a bar on a terminal.

    Raises:
        DownloadError: No network, no such file, no permission, no space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        if path.is_file():
            return
        partial = _Partial(path)
        with _bar(path.name, shown=progress_bar) as watch:
            _fetch(url, partial, headers or {}, watch)
        try:
            accept(partial.path)
        except Exception:
            partial.discard()
            raise
        partial.finish(path)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let no other process download the same file; waits for one that does."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that downloads %s", path)
        lock.acquire()
    try:
        yield
    finally:
        # Whoever waits for the lock sees that its file is gone, and makes a new one.
        with suppress(PermissionError):  # of systems that do not remove open files
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_space(folder: Path, num_bytes: float, name: str) -> None:
    """See that a file of so many bytes fits into a folder, or into that where the folder will be.

    Raises:
        DownloadError: It does not.
    """
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if num_bytes > free:
        raise no_space(folder, name, f"{num_bytes / MIB:.1f} MiB are needed and {free / MIB:.1f} are free")


def no_space(folder: Path, name: str, reason: str) -> DownloadError:
    """The error that says what to do about a full disk."""
    return DownloadError(
        f"no space for {name} in {folder}: {reason}; make room, or choose another place with dst= or BIRDER_HOME"
    )


class _Partial:
    """What has arrived of a file."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.path = path.with_name(f"{path.name}.partial")
        self._version = path.with_name(f"{path.name}.partial.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> str:
        """The server's mark of what arrived, empty when it gave none: then nothing can be added to it."""
        return self._version.read_text(encoding="utf-8") if self._version.is_file() else ""

    def begin(self, version: str) -> None:
        """Forget what arrived before."""
        self.discard()
        self._version.write_text(version, encoding="utf-8")

    @contextmanager
    def adding(self) -> Iterator[io.FileIO]:
        """The file, to write more to it."""
        try:
            with open(self.path, "ab", buffering=0) as file:
                yield file
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise no_space(self.path.parent, self.name, "the disk is full") from error
            raise

    def finish(self, path: Path) -> None:
        self.path.replace(path)
        self.discard()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _fetch(url: str, partial: _Partial, headers: Mapping[str, str], watch: Watch) -> None:
    """Ask until all is there, as long as something more arrives now and then."""
    failures, furthest, connected = 0, partial.size, False
    while True:
        try:
            return _fetch_rest(url, partial, headers, watch)
        except URLError as error:  # no answer at all
            dropped = _Dropped(error.reason)
        except _Dropped as error:
            dropped, connected = error, True
        failures = 0 if partial.size > furthest else failures
        furthest = max(furthest, partial.size)
        failures += 1
        if failures == ATTEMPTS or not connected:
            kept = f"; {partial.size / MIB:.1f} MiB have arrived, and the next download goes on there" * (
                partial.size > 0
            )
            raise DownloadError(f"{url} could not be downloaded: {dropped}{kept}; {_HINT}")
        pause = dropped.pause_s if dropped.pause_s is not None else PAUSE_S * 2 ** (failures - 1)
        log.info("%s: %s; trying again", url, dropped)
        time.sleep(min(pause, _LONGEST_PAUSE_S))


def _fetch_rest(url: str, partial: _Partial, headers: Mapping[str, str], watch: Watch) -> None:
    """Ask once for what is missing."""
    request = Request(url, headers={"User-Agent": f"birder/{birder.__version__}", "Accept-Encoding": "identity"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if partial.size and partial.version:
        request.add_header("Range", f"bytes={partial.size}-")
        request.add_header("If-Range", partial.version)
    if not is_secure(url):
        raise DownloadError(f"{url} is not https: it was not downloaded")
    try:
        response = build_opener(_LoopbackHTTP).open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        with error:
            return _refused(url, error, partial)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Dropped(error or type(error).__name__) from error
    with response:
        total = _begin(response, partial)
        if total is not None:
            check_space(partial.path.parent, total - partial.size, partial.name)
        _receive(response, partial, total, watch)


def _begin(response: Any, partial: _Partial) -> int | None:
    """Start over or go on, as the server's answer has it; the size of the whole file, None when it does not tell."""
    version = _version(response.headers)
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if version not in ("", partial.version) or not span.startswith(f"{partial.size}-"):
            partial.discard()
            raise _Dropped("the file has changed on the server", pause_s=0.0)
        return int(total) if total.isdigit() else None
    partial.begin(version)
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _receive(response: Any, partial: _Partial, total: int | None, watch: Watch) -> None:
    size = partial.size
    with partial.adding() as file:
        while data := _read(response):
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            size += len(data)
            watch(size, total)
    if total is not None and size < total:
        raise _Dropped(f"the connection broke after {size / MIB:.1f} of {total / MIB:.1f} MiB")


def _read(response: Any) -> bytes:
    """What has arrived since; nothing at the end."""
    try:
        return response.read1(MIB)
    except (http.client.HTTPException, OSError) as error:
        raise _Dropped(error or type(error).__name__) from error


def _refused(url: str, error: HTTPError, partial: _Partial) -> None:
    """What an answer other than the file means; nothing when it means that all is there already."""
    if error.code == 416:
        if error.headers.get("Content-Range", "").endswith(f"/{partial.size}"):
            return
        partial.discard()
        raise _Dropped("the file has changed on the server", pause_s=0.0)
    if error.code in _TEMPORARY:
        wait = error.headers.get("Retry-After", "")
        raise _Dropped(f"the server says {error.code} {error.reason}", float(wait) if wait.isdigit() else None)
    reason = _REFUSALS.get(error.code, str(error.reason))
    raise DownloadError(f"{url} could not be downloaded: {reason} (HTTP {error.code})")


def _version(headers: Message) -> str:
    """What tells this content of the address from a later one: a strong ETag, or the time of change."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


@contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Watch]:
    """A bar on a terminal; whoever downloads tells it how many bytes have arrived, of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not (shown and console.is_terminal)
    )
    with bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
