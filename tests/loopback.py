"""A server on this computer that speaks the addresses of the hub, and misbehaves when asked to."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 16 * 1024


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request for a file, or with all."""

    status: int | None = None
    """Answer with this instead of the file."""
    drop_after: int | None = None
    """Break the connection after so many bytes."""
    ignore_range: bool = False
    """Send the whole file, whatever part was asked for."""
    ignore_version: bool = False
    """Send the part that was asked for, though it is of another version."""
    no_version: bool = False
    """Send no ETag."""
    body: bytes | None = None
    """Send this instead of the content, with the headers of the content."""
    pause_s: float = 0.0
    """Before each 16 KiB."""
    location: str | None = None
    """Redirect there."""
    all: bool = False
    """Not one request but all of them."""


class Loopback(ThreadingHTTPServer):
    """Files by path, what is to go wrong with each, and what was asked for.

    Attributes:
        faults: For each path, what the next requests meet, one after the other.
        asked: (method, path, range or "") of every request.
        served: Bytes of content that were sent, by path.
        token: When set, only requests with this token are answered.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._files: dict[str, tuple[Path, str]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.served: dict[str, int] = {}
        self.token: str | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, path: str, content: Path) -> str:
        """Serve a file at a path; its sha256."""
        with open(content, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._files[path] = (content, digest)
        return digest

    def file(self, path: str) -> tuple[Path, str] | None:
        return self._files.get(path)

    def fault(self, path: str, *, body: bool) -> Fault:
        """What this request meets; one without content only what is no matter of content."""
        faults = self.faults.get(path, [])
        if not faults or not (body or faults[0].status or faults[0].location):
            return Fault()
        return faults[0] if faults[0].all else faults.pop(0)

    def gets(self, path: str) -> list[str]:
        """The ranges of all requests for the content of a path."""
        return [span for method, asked, span in self.asked if method == "GET" and asked == path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what we are here for."""


class _Handler(BaseHTTPRequestHandler):
    server: Loopback
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        with hub.lock:
            hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
            fault = hub.fault(self.path, body=body)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._refuse(401)
        if fault.location is not None:
            return self._refuse(302, fault.location)
        found = hub.file(self.path)
        if fault.status is not None or found is None:
            return self._refuse(fault.status or 404)
        path, digest = found
        size = path.stat().st_size
        start = self._start(size, digest, fault)
        if start is None:
            return self._refuse(416, size=size)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if not fault.no_version:
            self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if body:
            self._send(path, start, fault)

    def _start(self, size: int, digest: str, fault: Fault) -> int | None:
        """First byte to send; None for one beyond the end."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        other = self.headers.get("If-Range", f'"{digest}"') != f'"{digest}"' and not fault.ignore_version
        if match is None or fault.ignore_range or other:
            return 0
        return int(match[1]) if int(match[1]) < size else None

    def _send(self, path: Path, start: int, fault: Fault) -> None:
        sent = 0
        with open(path, "rb") as file:
            file.seek(start)
            while data := file.read(CHUNK):
                if fault.body is not None:
                    data = fault.body[start + sent : start + sent + len(data)]
                if fault.drop_after is not None:
                    data = data[: fault.drop_after - sent]
                time.sleep(fault.pause_s)
                with self.server.lock:  # before it is sent: whoever has it all may count at once
                    self.server.served[self.path] = self.server.served.get(self.path, 0) + len(data)
                self.wfile.write(data)
                sent += len(data)
                if fault.drop_after is not None and sent >= fault.drop_after:
                    self.close_connection = True
                    return

    def _refuse(self, status: int, location: str | None = None, size: int | None = None) -> None:
        self.send_response(status)
        if location is not None:
            self.send_header("Location", location)
        if size is not None:
            self.send_header("Content-Range", f"bytes */{size}")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def loopback() -> Iterator[Loopback]:
    """A server for as long as the block runs."""
    with Loopback() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server on this computer."""
    with loopback() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback) -> Path:
    """BIRDER_HOME, and a hub that is the server on this computer, with a cache and no token."""
    from huggingface_hub import constants

    for variable in ("BIRDER_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    return tmp_path / "home"


def add_to_catalogue(home: Path, name: str, *, sha256: str, mib: float, **row: object) -> None:
    """Add a model to the catalogue of ``$BIRDER_HOME``; a convnext_v2_atto for 32 x 32 pixels unless told otherwise."""
    home.mkdir(exist_ok=True)
    row = {"network": "convnext_v2_atto", "resolution": [32, 32], **row}
    file_format = row.pop("file_format", "pt")
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
    with open(home / "catalogue.toml", "a", encoding="utf-8") as file:
        file.write(f'[models."{name}"]\n' + "\n".join(lines))
        file.write(f'\nformats.{file_format} = {{ file_size = {mib}, sha256 = "{sha256}" }}\n')
