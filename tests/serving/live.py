"""A running ``birder serve``, and ways to talk to it: as HTTP, or in bytes of one's own, which need not be HTTP.

What answers is looked at for what all answers must have in common: an error is a problem document (RFC 9457).
"""

import contextlib
import http.client
import io
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

PLAIN = {
    "--port": "0",
    "--backend": "torch",
    "--precision": "fp32",
    "--threads": "1",
    "--workers": "1",
}
"""Options with which a server is soon ready, and its answers are those of the reference."""
BOUNDARY = "a-boundary"
_OPEN = ("01", "08")  # states of a connection: established, and ended by the other side alone
_READY_S = 120  # for a server to start on a machine that has other work
_ENDED_S = 30


@dataclass(frozen=True)
class Answer:
    """What a server said to one request."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes

    def json(self) -> Any:
        """The body of an answer that is right."""
        assert self.status == 200, (self.status, self.body[:2000])
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def rows(self) -> list[dict[str, Any]]:
        """What became of the pictures."""
        return list(self.json()["rows"])

    def predictions(self) -> list[dict[str, Any]]:
        """What each picture shows, in the words of a ``Row``."""
        return [
            {
                "status": row["status"],
                "labels": [item["label"] for item in row["answers"]],
                "scores": [item["score"] for item in row["answers"]],
            }
            for row in self.rows()
        ]

    def problem(self) -> dict[str, Any]:
        """What is wrong, which must be told as everywhere."""
        assert self.status >= 400, (self.status, self.body[:2000])
        assert self.headers["content-type"].startswith("application/problem+json"), (self.status, self.headers)
        told = json.loads(self.body)
        assert told["status"] == self.status
        assert told["type"] == f"urn:birder:problem:{told['code']}"
        assert told["title"] and told["detail"], told
        assert "Traceback" not in self.body.decode() and "/birder/" not in self.body.decode()
        if self.status in (429, 503):
            assert int(self.headers["retry-after"]) >= 1
        return dict(told)

    def refused(self, status: int, code: str) -> str:
        """The words of a problem, which must be this one."""
        assert self.status == status, (self.status, self.body[:2000])
        told = self.problem()
        assert told["code"] == code, told
        return str(told["detail"])


class Wire:
    """One connection, over which any bytes may go."""

    def __init__(self, port: int, *, timeout_s: float = 20.0) -> None:
        """Connect."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> bool:
        """Send; whether the server has taken everything, who may hang up before."""
        try:
            for piece in pieces:
                self.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def end(self) -> None:
        """Say that no more comes, and go on listening."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self) -> Answer | None:
        """The next answer; None if the server has hung up."""
        try:
            line = self.file.readline(1 << 16)
            if not line:
                return None
            version, status, *_ = line.decode("ascii").split()
            assert version == "HTTP/1.1", line
            fields = http.client.parse_headers(self.file)  # type: ignore[arg-type]
            headers = {name.lower(): value for name, value in fields.items()}
            if 100 <= int(status) < 200:
                return Answer(int(status), headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Answer(int(status), headers, b"".join(iter(self._chunk, b"")))
            return Answer(int(status), headers, self.file.read(int(headers.get("content-length", -1))))
        except ConnectionResetError:
            return None

    def hung_up(self) -> bool:
        """Whether the server has nothing more to say, and has said so."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def _chunk(self) -> bytes:
        content = self.file.read(int(self.file.readline().partition(b";")[0], 16))
        self.file.readline()
        return content


class Live:
    """A server in a process of its own.

    Attributes:
        process: The process.
        address: The line that it printed.
        port: Where it listens.
        token: The token in the address; empty if it has none.
    """

    def __init__(
        self, model: str | Path, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it is ready; ``words`` of the command line are taken before those of ``PLAIN``."""
        self.process = started(model, *words, cwd=cwd, environment=environment)
        self._said: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        for stream, take in ((self.process.stdout, self._lines.put), (self.process.stderr, self._said.append)):
            threading.Thread(target=_follow, args=(stream, take), daemon=True).start()
        try:
            self.address = self._lines.get(timeout=_READY_S).strip()
        except queue.Empty:
            self.kill()
            raise AssertionError(f"no server after {_READY_S} s:\n{self.said}") from None
        assert self.address.startswith("http://"), f"it says {self.address!r}\n{self.said}"
        parts = urlsplit(self.address)
        self.port = parts.port or 0
        self.token = parts.fragment.removeprefix("token=")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def said(self) -> str:
        """What stands on the error stream by now."""
        return "".join(self._said)

    def printed(self) -> list[str]:
        """What it printed besides the address, until it ended."""
        lines = list(iter(lambda: self._lines.get(timeout=_ENDED_S), ""))
        return [line for line in lines if line]

    def wire(self, *, timeout_s: float = 20.0) -> Wire:
        """A connection to it."""
        return Wire(self.port, timeout_s=timeout_s)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer to a request; underscores in the names of headers stand for hyphens."""
        with self.wire() as wire:
            wire.send(request(method, target, body, port=self.port, **headers))
            answer = wire.answer()
            if answer is None:
                raise AssertionError(f"no answer to {method} {target}\n{self.said[-2000:]}")
            return answer

    def sent(self, *pieces: bytes, end: bool = False) -> Answer | None:
        """What is answered to bytes that need be no request, after which no more come; None is a silent end."""
        with self.wire() as wire:
            wire.send(*pieces)
            if end:
                wire.end()
            return wire.answer()

    def head(self, *lines: str, target: str = "/v1/predict", method: str = "POST") -> bytes:
        """The head of a request, complete, and no body."""
        first = [f"{method} {target} HTTP/1.1", f"host: 127.0.0.1:{self.port}"]
        return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")

    def form(self, body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> Answer:
        """The answer to a form, which may be none."""
        return self.ask("POST", "/v1/predict", body, content_type=kind)

    def get(self, target: str, **headers: str) -> Answer:
        """The answer to a request for something."""
        return self.ask("GET", target, **headers)

    def predict(self, picture: bytes, name: str = "", **query: Any) -> Answer:
        """The answer about one picture, sent by itself."""
        target = "/v1/predict?" + urlencode({"name": name, **query} if name else query, doseq=True)
        return self.ask("POST", target, picture, content_type="application/octet-stream")

    def predict_all(
        self, pictures: Iterable[tuple[str, bytes]], *fields: tuple[str, str], path: str = "/v1/predict", **query: Any
    ) -> Answer:
        """The answer about pictures with names, sent together."""
        parts = [part(f'form-data; name="pictures"; filename="{name}"', content) for name, content in pictures]
        parts += [part(f'form-data; name="{name}"', value.encode()) for name, value in fields]
        target = f"{path}?{urlencode(query, doseq=True)}"
        return self.ask("POST", target, multipart(parts), content_type=f"multipart/form-data; boundary={BOUNDARY}")

    def under_way(self) -> int:
        """Pictures that it has accepted and not answered."""
        lines = self.get("/metrics").body.decode().splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("birder_pictures_under_way "))))

    def connections(self) -> int:
        """How many it has open, as the system counts."""
        ends = [line.split()[1:4] for line in Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]]
        return sum(here.endswith(f":{self.port:04X}") and state in _OPEN for here, _, state in ends)

    def family(self) -> list[int]:
        """The processes: the server and all below it."""
        found = [self.process.pid]
        for pid in found:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # the thread has just ended
                    found += [int(word) for word in tasks.read_text().split()]
        return found

    def readers(self) -> list[int]:
        """Those that read pictures."""
        return [pid for pid in self.family() if b"birder.inference.reader" in _command(pid)]

    def memory(self) -> float:
        """Memory of all its processes, in MiB."""
        return sum(map(_resident, self.family())) / 2**20

    def kill(self) -> None:
        """End it at once, if it has not ended, and wait until it has."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(_ENDED_S)


def started(
    model: str | Path, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    """A server that has just been started; see ``Live``."""
    plain = [word for option in PLAIN.items() if option[0] not in words for word in option]
    modules = os.pathsep.join(map(os.path.abspath, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "birder", "serve", str(model), *plain, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": modules} | dict(environment or {}),
        text=True,
        start_new_session=True,
    )


def _follow(stream: io.TextIOBase, take: Callable[[str], object]) -> None:
    with contextlib.suppress(ValueError), stream:
        for line in stream:
            take(line)
    take("")


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def request(method: str, target: str, body: bytes | None = None, *, port: int, **headers: str) -> bytes:
    """The bytes of a request."""
    fields = {"host": f"127.0.0.1:{port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body is not None:
        fields = {"content-length": str(len(body))} | fields
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """A part of a multipart body."""
    lines = [f"Content-Disposition: {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + content


def multipart(parts: Sequence[bytes], boundary: str = BOUNDARY) -> bytes:
    """A body of such parts."""
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + content + b"\r\n" for content in parts) + mark + b"--\r\n"
