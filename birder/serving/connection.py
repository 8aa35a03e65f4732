"""Requests to ``birder serve``: made again where that may help, and refused as errors of birder."""

import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

import birder
from birder.data.images import open_file
from birder.errors import ConfigError, DataError, ImageError, ServerError, UnknownName, need
from birder.inference.results.layout import text_of
from birder.serving.settings import is_loopback

log = logging.getLogger("birder")

Picture: TypeAlias = str | os.PathLike[str] | bytes
"""A path, or the bytes of a file."""

_AGAIN = {408, 429, 502, 503, 504}  # too slow, too busy, or, from a proxy, not there at the moment
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 120.0
_LONGEST_NAME = 255


class Sent:
    """A picture on its way.

    Attributes:
        path: As it was given; empty of bytes.
        stamp: Size of the file in bytes and time of its last change in nanoseconds, when it was last opened.
    """

    def __init__(self, picture: Picture, species: Sequence[str] = ()) -> None:
        """A picture, and the only species that may be named, if any are given. No file is opened yet.

        Raises:
            ConfigError: One name in place of a list.
        """
        if isinstance(species, str):
            raise ConfigError(f"species is a list of names, such as [{species!r}]")
        self._picture, self._species = picture, species
        self.path = "" if isinstance(picture, bytes) else os.fspath(picture)
        self.stamp = (0, 0)

    @contextmanager
    def body(self) -> Iterator[dict[str, Any]]:
        """The body of a request, from its beginning, as ``request`` of httpx2 takes it.

        Raises:
            ImageError: The file cannot be opened, or is empty.
        """
        name, kind = text_of(os.path.basename(self.path))[-_LONGEST_NAME:], "application/octet-stream"
        with self._file() as file:
            if not file.size:
                raise ImageError("the file is empty", code="empty")
            if self._species:  # a list may be longer than an address
                checklist = {"checklist": "\n".join(self._species)}
                yield {"files": {"picture": (name or "picture", file, kind)}, "data": checklist}
            else:
                yield {"content": file, "headers": {"Content-Type": kind}, "params": {"name": name} if name else {}}

    @contextmanager
    def _file(self) -> Iterator["_AsOpened"]:
        if isinstance(self._picture, bytes):
            yield _AsOpened(io.BytesIO(self._picture), len(self._picture))
            return
        with open_file(Path(self.path)) as file:
            status = os.fstat(file.fileno())
            self.stamp = (status.st_size, status.st_mtime_ns)
            yield _AsOpened(file, status.st_size)


class _AsOpened(io.RawIOBase):
    """A file of the length that it had when it was opened, which a request has announced."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self._at = file, size, 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = self._file.seek(offset + (0, self._at, self.size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self.size - self._at
        chunk = self._file.read(left if size < 0 else min(size, left))
        if left and size and not chunk:
            raise ImageError("the file has become shorter while it was read", code="unreadable")
        self._at += len(chunk)
        return chunk


class Connection:
    """Where a server is, and what opens it.

    Attributes:
        url: The server's address, without a token.
    """

    def __init__(self, url: str, *, token: str | None, timeout_s: float, retries: int) -> None:
        """See ``birder.serving.client.Client``."""
        self._httpx = need("httpx2", extra="serve", purpose="asking a server")
        self.url, host, found = _address(url)
        token = found if token is None else token.strip()
        if not token.isascii() or not token.isprintable():
            raise ConfigError("a token has printable ASCII characters only; give the text in the file, not its name")
        if not timeout_s > 0 or retries < 0:
            raise ConfigError(f"timeout_s must be more than 0, retries 0 or more; not {timeout_s} and {retries}")
        self._retries = retries
        self._http = self._httpx.Client(
            base_url=self.url,
            headers={
                "Accept": "application/json",
                "User-Agent": f"birder/{birder.__version__}",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            timeout=timeout_s,
            limits=self._httpx.Limits(max_connections=None),
            trust_env=not is_loopback(host),  # no proxy leads to this computer
        )

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def ask(
        self,
        target: str,
        question: Mapping[str, Any] | None = None,
        sent: Sent | None = None,
        *,
        stopped: threading.Event | None = None,
    ) -> Any:
        """The values of an answer, after as many tries as it takes.

        Args:
            target: Such as ``v1/models``.
            question: Parameters; those that are None are left out.
            sent: A picture to be sent.
            stopped: Once it is set, no other try is made.

        Raises:
            ImageError: The picture cannot be read, here or there.
            UnknownName: There is no such model.
            ConfigError: The request is refused.
            ServerError: The server does not answer, or cannot.
        """
        question = {name: value for name, value in (question or {}).items() if value is not None}
        stopped, pause_s = stopped or threading.Event(), _FIRST_PAUSE_S
        for tried in count(1):
            status, asked_s = 0, None
            try:
                response = self._request(target, question, sent)
                if response.status_code not in _AGAIN:
                    return self._values(response)
                status, words, asked_s = response.status_code, _words(response), _retry_after(response)
            except self._httpx.TransportError as error:
                words = f"no answer ({str(error) or type(error).__name__})"
            wait_s = pause_s if asked_s is None else asked_s
            log.info("%s: %s; %g s until the next try", self.url, words, wait_s)
            if tried > self._retries or wait_s > _LONGEST_PAUSE_S or stopped.wait(wait_s):
                raise ServerError(f"{self.url} was asked {tried} times, the last time: {words}", status=status)
            pause_s *= 2
        raise AssertionError("never reached")

    def read(self, values: Any, reading: Callable[[Any], Any]) -> Any:
        """What is made of the values of an answer.

        Raises:
            ServerError: It cannot be made, as they are those of another program.
        """
        try:
            return reading(values)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, DataError) as error:
            words = f"is no birder serve, or one of another version ({type(error).__name__}: {error})"
            raise ServerError(f"{self.url} {words}") from error

    def _request(self, target: str, question: dict[str, Any], sent: Sent | None) -> Any:
        if sent is None:
            return self._http.get(target, params=question)
        try:
            with sent.body() as body:
                return self._http.post(target, **{**body, "params": {**question, **body.get("params", {})}})
        except ImageError:
            raise
        except OSError as error:  # of the file: those of the network are errors of httpx2
            raise ImageError(f"the file cannot be read: {error.strerror or error}", code="unreadable") from error

    def _values(self, response: Any) -> Any:
        """What an answer says, unless it says no."""
        status, words, problem = response.status_code, f"{self.url}: {_words(response)}", _problem(response)
        if response.is_success:
            return self.read(response, lambda response: response.json())
        if problem.get("code") == "picture":
            code, _, reason = str(problem.get("reason") or problem.get("detail")).partition(": ")
            raise ImageError(reason or code, code=code)
        if status == 413:
            raise ImageError(f"the server does not take it: {_words(response)}", code="too_large")
        if problem.get("code") == "unknown-model":
            raise UnknownName(words)
        if 400 <= status < 500:
            raise ConfigError(words)
        raise ServerError(words, status=status)


def _address(url: str) -> tuple[str, str, str]:
    """Address without token, host, and token."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{url!r} is no address; give what birder serve has printed, such as http://127.0.0.1:8000/")
    key, _, token = parts.fragment.partition("=")
    address = parts._replace(fragment="", query="", path=parts.path.rstrip("/") + "/").geturl()
    return address, host, unquote(token) if key == "token" else ""


def _problem(response: Any) -> dict[str, Any]:
    """The document of a problem (RFC 9457); empty if the answer is none, such as that of a proxy."""
    try:
        problem = {} if response.is_success else response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _words(response: Any) -> str:
    words = f"{response.status_code} {response.reason_phrase}"
    if response.has_redirect_location:
        return f"{words}, which leads to {response.headers['location']}: give that address"
    detail = _problem(response).get("detail")
    return f"{detail} ({words})" if detail else words


def _retry_after(response: Any) -> float | None:
    """Seconds; None if the server does not say."""
    text = response.headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() else None
