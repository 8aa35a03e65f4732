"""The client waits and tries again as it should, and its rows are those of the server."""

import base64
import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch

from birder.data.drawn import DrawnBirds
from birder.data.folders import find_images
from birder.data.images import read_photo
from birder.errors import BirderError, ConfigError, ImageError, UnknownName
from birder.inference.job import Job
from birder.inference.options import Options
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.results.tables import Table
from birder.inference.rows import Row
from birder.model_file import save_model
from birder.networks import create_network
from birder.serving import connection
from birder.serving.client import Client, ServerError, SimilarPicture
from birder.signature import rgb_stats
from tests.serving.live import Live

pytest.importorskip("httpx2")

TOKEN = "abcdefghijklmnop"
REFERENCE: dict[str, Any] = {"backend": "torch", "precision": "fp32", "threads": 1, "workers": 0}
ROW = {"status": "ok", "reason": "", "answers": [], "novelty": None, "taken": ""}


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is answered; ``cut`` bytes of the end are not sent before the connection breaks."""

    status: int = 200
    values: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


def problem(status: int, code: str, detail: str = "words", **more: Any) -> Reply:
    headers = {name: more.pop(name) for name in ("Retry-After",) if name in more}
    return Reply(status, {"status": status, "code": code, "detail": detail, **more}, headers)


def row(**values: Any) -> Reply:
    return Reply(200, {"model": {}, "notice": "", "rows": [{**ROW, **values}]})


class Stand(ThreadingHTTPServer):
    """A server that answers as a test wants it to."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[Asked], Reply | None] = lambda asked: row()
        self.before: Callable[[], object] = lambda: None
        """Called before a body is read."""
        self.reads = True
        """Whether bodies are read."""
        self.asked: list[Asked] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *about: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Stand

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        parts = urlsplit(self.path)
        server.before()
        body = self.rfile.read(int(self.headers.get("content-length", 0))) if server.reads else b""
        asked = Asked(self.command, parts.path, parse_qs(parts.query), dict(self.headers.items()), body)
        with server.lock:
            server.asked.append(asked)
        reply = server.answer(asked)
        with server.lock:
            server.under_way -= 1
        if reply is None:
            self.close_connection = True
            return
        content = reply.values if isinstance(reply.values, bytes) else json.dumps(reply.values).encode()
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) - reply.cut])
        self.close_connection = reply.cut > 0

    do_POST = do_GET  # noqa: N815

    def log_message(self, *words: Any) -> None:
        """Nothing."""


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(connection, "_FIRST_PAUSE_S", 0.01)
    with Stand() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def client(stand: Stand) -> Iterator[Client]:
    with Client(stand.url, timeout_s=10) as client:
        yield client


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twenty files, each with its number as its content."""
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(str(number).encode())
    return [tmp_path / f"{number}.jpg" for number in range(20)]


def by_content(asked: Asked) -> Reply:
    """An answer that tells which picture it is about."""
    return row(answers=[{"label": asked.body.decode(), "score": 0.5, "open_score": None}])


def one_after_the_other(*replies: Reply | None) -> Callable[[Asked], Reply | None]:
    rest = iter(replies)
    return lambda asked: next(rest)


# What is sent, and what comes back


def test_a_row_has_all_that_the_server_says(stand: Stand, client: Client, files: list[Path]) -> None:
    answers = [{"label": "Wren", "score": 0.75, "open_score": 0.25}, {"label": "Emu", "score": 0.2, "open_score": 0.1}]
    stand.answer = lambda asked: row(
        status="unsure", reason="truncated: cut", answers=answers, novelty=0.5, taken="2026-05-17T06:12:44", width=3
    )
    status = files[3].stat()
    assert client.predict(files[3]) == Row(
        path=str(files[3]),
        status="unsure",
        reason="truncated: cut",
        labels=("Wren", "Emu"),
        scores=(0.75, 0.2),
        open_scores=(0.25, 0.1),
        novelty=0.5,
        taken="2026-05-17T06:12:44",
        stamp=(status.st_size, status.st_mtime_ns),
    )


def test_what_is_sent(stand: Stand, files: list[Path]) -> None:
    with Client(stand.url, token=TOKEN) as client:
        client.predict(files[3], model="m & m", top="all", min_score=0.25)
    (asked,) = stand.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/v1/predict", b"3")
    assert asked.query == {"model": ["m & m"], "top": ["all"], "min_score": ["0.25"], "name": ["3.jpg"]}
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["User-Agent"].startswith("birder/")
    assert "Transfer-Encoding" not in asked.headers


def test_bytes_have_no_path(stand: Stand, client: Client) -> None:
    stand.answer = by_content
    assert client.predict(b"a picture") == Row(path="", labels=("a picture",), scores=(0.5,))
    assert stand.asked[0].query == {"top": ["5"]}


def test_a_list_of_species_goes_as_a_form(stand: Stand, client: Client, files: list[Path]) -> None:
    """It may be longer than an address."""
    species = ["Eurasian Wren", "Rüppell's Parrot", *(f"Bird {number}" for number in range(3000))]
    for picture, name in ((files[3], "3.jpg"), (b"3", "picture")):
        client.predict(picture, species=species)
        asked = stand.asked.pop()
        form = message_from_bytes(f"Content-Type: {asked.headers['Content-Type']}\r\n\r\n".encode() + asked.body)
        parts = {part.get_param("name", header="Content-Disposition"): part for part in form.get_payload()}
        assert parts["checklist"].get_payload(decode=True).decode().splitlines() == species
        assert parts["picture"].get_filename() == name
        assert parts["picture"].get_payload(decode=True) == b"3"
    with pytest.raises(ConfigError, match=r"a list of names, such as \['Wren'\]"):
        client.predict(files[3], species="Wren")


@pytest.mark.parametrize("name", ["ü, &#?.jpg", "wr\udce4n.jpg", "\udce4" * 200, 'a"b\r\n.jpg'])
@pytest.mark.parametrize("species", [(), ("Wren",)])
def test_names_of_any_kind(stand: Stand, client: Client, tmp_path: Path, name: str, species: tuple[str, ...]) -> None:
    path = tmp_path / name
    path.write_bytes(b"3")
    assert client.predict(path, species=species) == Row(path=str(path), stamp=(1, path.stat().st_mtime_ns))
    if not species:
        assert len(stand.asked[0].query["name"][0]) <= 300  # longer ones are refused


def test_an_embedding(stand: Stand, client: Client, files: list[Path]) -> None:
    values = {**ROW, "embedding": [0.1, -2.5]}
    del values["answers"], values["novelty"]
    stand.answer = lambda asked: Reply(200, {"model": {}, "rows": [values]})
    embedding = client.embed(files[0], model="m").embedding
    assert embedding is not None
    assert embedding.dtype == np.float32
    assert embedding.tolist() == np.float32([0.1, -2.5]).tolist()
    assert (stand.asked[0].path, stand.asked[0].query["model"]) == ("/v1/embed", ["m"])


def test_an_explanation(stand: Stand, client: Client, files: list[Path]) -> None:
    levels = np.arange(6, dtype=np.uint8) * 51
    heat = {"height": 2, "width": 3, "values": base64.b64encode(levels.tobytes()).decode()}
    stand.answer = lambda asked: Reply(200, {"label": "Wren", "score": 0.5, "method": "rollout", "heat": heat})
    found = client.explain(files[0], "Wren", method="rollout")
    assert found.heat.dtype == np.float32
    assert np.allclose(found.heat, [[0, 0.2, 0.4], [0.6, 0.8, 1]])
    assert (found.label, found.score, found.method) == ("Wren", 0.5, "rollout")
    assert stand.asked[0].query == {"label": ["Wren"], "method": ["rollout"], "name": ["0.jpg"]}


def test_similar_pictures(stand: Stand, client: Client, files: list[Path]) -> None:
    near = {"picture": 7, "name": "7.jpg", "label": "Wren", "similarity": 0.9}
    stand.answer = lambda asked: row(similar=[near])
    assert client.similar(files[0], 3) == [SimilarPicture(**near)]
    assert stand.asked[0].query["similar"] == ["3"]
    assert client.similar(files[0].with_name("no.jpg")) == []


def test_models(stand: Stand, client: Client) -> None:
    stand.answer = lambda asked: Reply(200, {"models": [{"name": "wren"}]})
    assert client.models() == [{"name": "wren"}]
    assert (stand.asked[0].method, stand.asked[0].path) == ("GET", "/v1/models")


def test_a_notice_is_told_once(stand: Stand, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    stand.answer = lambda asked: Reply(200, {"notice": "the checklist: Emu is no class", "rows": [ROW]})
    with caplog.at_level(logging.WARNING, "birder"):
        client.predict(b"1")
        client.predict(b"2")
    assert caplog.messages == ["the checklist: Emu is no class"]


def test_the_client_needs_no_torch_and_nothing_of_the_server() -> None:
    code = (
        "import sys, birder.serving.client; birder.serving.client.Client('http://localhost:1');"
        "print(*{'torch', 'fastapi', 'starlette', 'pydantic'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


# Addresses and tokens


@pytest.mark.parametrize("prefix", ["", "/birds", "/birds/"])
def test_the_address_that_was_printed_has_the_token(stand: Stand, prefix: str) -> None:
    stand.answer = lambda asked: Reply(200, {"models": []})
    with Client(f"{stand.url.rstrip('/')}{prefix}#token={TOKEN}") as client:
        client.models()
    (asked,) = stand.asked
    assert asked.path == f"{prefix.rstrip('/')}/v1/models"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "is no address; give what birder serve has printed"),
        ("ftp://localhost", "is no address"),
        ("http://", "is no address"),
        ("http://localhost:eight", "is no address"),
        ("http://[::1", "is no address"),
    ],
)
def test_what_is_no_address(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Client(url)


@pytest.mark.parametrize("options", [{"token": "a\nb"}, {"token": "Zaunkönig"}, {"timeout_s": 0}, {"retries": -1}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Client("http://localhost:1", **options)


def test_the_token_of_a_file_may_end_in_a_line_feed(stand: Stand) -> None:
    with Client(stand.url, token=f"{TOKEN}\n") as client:
        client.predict(b"1")
    assert stand.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_no_proxy_leads_to_this_computer(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(stand.url, retries=0) as client:
        client.predict(b"1")


# Waiting, and trying again


def test_a_busy_server_is_waited_for_as_it_says(stand: Stand, client: Client) -> None:
    stand.answer = one_after_the_other(
        problem(429, "too-many", **{"Retry-After": "1"}), problem(503, "busy", **{"Retry-After": "0"}), row()
    )
    begin = time.monotonic()
    assert client.predict(b"1").status == "ok"
    assert 1 <= time.monotonic() - begin < 3
    assert [asked.body for asked in stand.asked] == [b"1"] * 3


@pytest.mark.parametrize(
    "trouble",
    [
        problem(408, "slow"),
        problem(429, "too-many"),
        Reply(502, b"<html>Bad Gateway"),
        problem(503, "stopping", **{"Retry-After": "soon"}),
        Reply(504, b""),
        None,
        Reply(200, {"rows": [ROW]}, cut=5),
    ],
    ids=lambda trouble: str(trouble and (trouble.status, trouble.cut)),
)
def test_it_is_tried_again(stand: Stand, client: Client, files: list[Path], trouble: Reply | None) -> None:
    stand.answer = one_after_the_other(trouble, trouble, by_content(Asked("", "", {}, {}, b"3")))
    assert client.predict(files[3]).labels == ("3",)
    assert [asked.body for asked in stand.asked] == [b"3"] * 3


def test_pauses_double_where_the_server_names_none(
    stand: Stand, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda event, seconds=None: bool(paused.append(seconds or 0)))
    with pytest.raises(ServerError):
        Client("http://127.0.0.1:9", retries=3).models()
    assert paused == [0.01, 0.02, 0.04]


@pytest.mark.parametrize("retries", [0, 2])
def test_there_is_an_end_to_it(stand: Stand, retries: int) -> None:
    stand.answer = lambda asked: problem(503, "busy", "there was no answer within 60 s")
    with Client(stand.url, retries=retries) as client, pytest.raises(ServerError) as caught:
        client.predict(b"1")
    assert len(stand.asked) == retries + 1
    assert caught.value.status == 503
    assert str(caught.value) == (
        f"{stand.url} was asked {retries + 1} times, the last time: "
        "there was no answer within 60 s (503 Service Unavailable)"
    )


def test_too_long_a_pause_is_an_error_at_once(stand: Stand, client: Client) -> None:
    stand.answer = lambda asked: problem(429, "too-many", **{"Retry-After": "3600"})
    with pytest.raises(ServerError, match="asked 1 times"):
        client.predict(b"1")


def test_a_silent_server(stand: Stand) -> None:
    woken = threading.Event()
    stand.answer = lambda asked: (woken.wait(20), None)[1]
    begin = time.monotonic()
    with Client(stand.url, timeout_s=0.2, retries=1) as client, pytest.raises(ServerError, match="timed out") as caught:
        client.predict(b"1")
    woken.set()
    assert caught.value.status == 0
    assert 0.4 <= time.monotonic() - begin < 5


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}", retries=0) as client,
        pytest.raises(ServerError, match="no answer") as caught,
    ):
        client.models()
    assert isinstance(caught.value, ConnectionError)


# What is refused


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (problem(400, "bad-request", "no body"), ConfigError, r"/: no body \(400 Bad Request\)$"),
        (problem(401, "unauthorized", "a token is needed"), ConfigError, "a token is needed"),
        (problem(403, "forbidden"), ConfigError, "words"),
        (problem(404, "not-found"), ConfigError, "words"),
        (problem(404, "unknown-model", "no model is called 'x'"), UnknownName, "no model is called 'x'"),
        (problem(422, "invalid", "top: must be"), ConfigError, "top: must be"),
        (problem(500, "internal"), ServerError, "500"),
        (Reply(404, b"<html>nothing here"), ConfigError, "404 Not Found"),
        (Reply(401, ["a list"]), ConfigError, "401 Unauthorized"),
        (Reply(301, b"", {"Location": "https://a.b/"}), ServerError, "leads to https://a.b/: give that address"),
        (Reply(200, b"<html>hello"), ServerError, "is no birder serve, or one of another version"),
        (Reply(200, []), ServerError, "is no birder serve"),
        (Reply(200, {"rows": []}), ServerError, "is no birder serve"),
        (Reply(200, {"rows": [{**ROW, "status": "fine"}]}), ServerError, "is no birder serve"),
        (Reply(200, {"rows": [{**ROW, "answers": [{"label": "Wren"}]}]}), ServerError, "is no birder serve"),
        (Reply(200, {"rows": [{"status": "ok"}]}), ServerError, "is no birder serve"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
def test_what_the_server_refuses(
    stand: Stand, client: Client, reply: Reply, error: type[BirderError], words: str
) -> None:
    stand.answer = lambda asked: reply
    with pytest.raises(error, match=words) as caught:
        client.predict(b"1")
    assert type(caught.value) is error
    assert stand.url in str(caught.value)
    assert len(stand.asked) == 1


def test_no_error_tells_the_token(stand: Stand) -> None:
    stand.answer = lambda asked: problem(401, "unauthorized")
    with Client(f"{stand.url}#token={TOKEN}") as client, pytest.raises(ConfigError) as caught:
        client.models()
    assert TOKEN not in str(caught.value)


def test_a_picture_that_cannot_be_explained(stand: Stand, client: Client, tmp_path: Path) -> None:
    stand.answer = lambda asked: problem(422, "picture", "it cannot be read", reason="truncated: the file ends")
    with pytest.raises(ImageError) as caught:
        client.explain(b"1")
    assert (caught.value.code, caught.value.reason) == ("truncated", "truncated: the file ends")
    with pytest.raises(ImageError, match="no such file"):
        client.explain(tmp_path / "no.jpg")


def test_a_picture_that_is_too_large_costs_its_row(stand: Stand, client: Client, files: list[Path]) -> None:
    stand.answer = lambda asked: (
        problem(413, "too-large", "a request may have 64 MiB") if asked.body == b"1" else by_content(asked)
    )
    rows = list(client.stream(files[:3]))
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert rows[1].code == "too_large"
    assert "a request may have 64 MiB" in rows[1].reason


def test_a_server_may_refuse_before_all_is_sent(stand: Stand, client: Client, tmp_path: Path) -> None:
    stand.reads = False
    stand.answer = lambda asked: dataclasses.replace(problem(413, "too-large"), headers={"Connection": "close"})
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(50 << 20)
    assert client.predict(path).code == "too_large"


# Files that cannot be read


def test_files_that_cannot_be_read_have_the_reasons_of_predict(stand: Stand, client: Client, tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "closed.jpg").write_bytes(b"1")
    (tmp_path / "closed.jpg").chmod(0)
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["folder.jpg", "empty.jpg", "loop.jpg", "pipe.jpg", "no.jpg", "null\0.jpg"]
    names += ["closed.jpg"] if os.geteuid() else []
    paths = [str(tmp_path / name) for name in names]
    reasons = []
    for path in paths:
        with pytest.raises(ImageError) as caught:
            read_photo(path)
        reasons.append(caught.value.reason)
    rows = list(client.stream(paths))
    assert [(row.path, row.status, row.reason) for row in rows] == [
        (path, "error", reason) for path, reason in zip(paths, reasons, strict=True)
    ]
    assert client.predict(b"").reason == "empty: the file is empty"
    assert not stand.asked


@pytest.mark.parametrize("species", [(), ("Wren",)])
@pytest.mark.parametrize(("change", "reason"), [(-1, "unreadable: the file has become shorter"), (1, ""), (0, "")])
def test_a_file_that_changes_while_it_is_sent(
    stand: Stand, client: Client, tmp_path: Path, change: int, reason: str, species: tuple[str, ...]
) -> None:
    """What has been announced is sent, or the row says why not; the stream goes on."""
    path, size = tmp_path / "1.jpg", 20_000_000  # more than waits between two programs
    path.write_bytes(bytes(size))
    stand.before = lambda: os.truncate(path, size + change)
    row = client.predict(path, species=species)
    assert row.reason.startswith(reason) and bool(row.reason) == bool(reason)
    if not reason:
        assert stand.asked[0].body.count(0) == size
    stand.before = lambda: None
    assert client.predict(b"1").status == "ok"


# Streams


def test_rows_are_in_the_order_of_the_paths(stand: Stand, client: Client, files: list[Path]) -> None:
    def sometime(asked: Asked) -> Reply:
        time.sleep(0.02 * (int(asked.body) % 3))
        return by_content(asked)

    stand.answer = sometime
    paths = [files[0].with_name("no.jpg"), *map(str, files)]
    rows = list(client.stream(paths, at_once=5, top=2))
    assert [row.path for row in rows] == list(map(str, paths))
    assert [row.labels for row in rows] == [(), *((str(number),) for number in range(20))]
    assert 2 <= stand.most_under_way <= 5
    assert all(asked.query["top"] == ["2"] for asked in stand.asked)


def test_a_stream_without_end(stand: Stand, client: Client, files: list[Path]) -> None:
    """Little is taken ahead, nothing is asked any more once nobody wants it."""
    stand.answer = by_content
    taken = count()
    rows = client.stream((files[next(taken) % 20] for _ in iter(int, 1)), at_once=2)
    for number in range(300):
        assert next(rows).labels == (str(number % 20),)
    assert next(taken) <= 300 + 4
    rows.close()  # type: ignore[attr-defined]
    asked = len(stand.asked)
    assert asked <= 304
    time.sleep(0.05)
    assert len(stand.asked) == asked


def test_a_row_is_given_when_it_is_there(stand: Stand, client: Client, files: list[Path]) -> None:
    """Those who list the paths may take their time."""
    stand.answer = by_content
    seen: list[str] = []

    def slowly() -> Iterator[Path]:
        for path in files[:3]:
            yield path
            time.sleep(0.2)
            seen.append("listed")

    for row in client.stream(slowly(), at_once=8):
        seen.append(row.labels[0])
    assert "0" in seen[:3]


def test_a_file_is_read_when_it_is_sent(stand: Stand, client: Client, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"0")

    def next_one(asked: Asked) -> Reply:
        number = int(asked.body)
        (tmp_path / f"{number}.jpg").unlink()
        (tmp_path / f"{number + 1}.jpg").write_bytes(str(number + 1).encode())
        return by_content(asked)

    stand.answer = next_one
    rows = list(client.stream([tmp_path / f"{number}.jpg" for number in range(10)], at_once=1))
    assert [row.labels for row in rows] == [(str(number),) for number in range(10)]


def test_a_server_that_goes_away(stand: Stand, files: list[Path]) -> None:
    stand.answer = lambda asked: None if int(asked.body) >= 7 else by_content(asked)
    rows = []
    with (
        Client(stand.url, retries=2) as client,
        pytest.raises(ServerError, match=r"asked 3 times.*; 7 pictures have their rows, the next one is .*7\.jpg$"),
    ):
        for row in client.stream(files, at_once=3):
            rows.append(row)
    assert [row.labels for row in rows] == [(str(number),) for number in range(7)]


def test_a_stream_that_ends_does_not_wait_for_pauses(stand: Stand, client: Client, files: list[Path]) -> None:
    """What waits to be tried again is given up."""
    stand.answer = lambda asked: (
        by_content(asked) if asked.body == b"0" else problem(503, "busy", **{"Retry-After": "60"})
    )
    rows = client.stream(files, at_once=4)
    assert next(rows).labels == ("0",)
    begin = time.monotonic()
    rows.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 5


def test_a_stream_tells_what_is_refused(stand: Stand, client: Client, files: list[Path]) -> None:
    stand.answer = lambda asked: problem(404, "unknown-model", "no model is called 'x'")
    with pytest.raises(UnknownName, match=r"no model is called 'x'.*; 0 pictures have their rows"):
        next(client.stream(files, model="x"))
    with pytest.raises(ConfigError, match="at_once must be 1 or more"):
        client.stream(files, at_once=0)


def test_many_threads_may_ask(stand: Stand, client: Client) -> None:
    stand.answer = by_content
    found: dict[int, tuple[str, ...]] = {}

    def ask(number: int) -> None:
        found[number] = client.predict(str(number).encode()).labels

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (str(number),) for number in range(30)}


# With the server itself


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.safetensors``, ``photos/`` good and bad, and ``index.npy`` of these."""
    folder = tmp_path_factory.mktemp("place")
    birds = DrawnBirds(families=1, species=3, size=(240, 320))
    network = create_network("convnext_v2_atto", 3, size=(64, 64), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(network.classifier.weight, std=0.5)
    classes = {name: label for label, name in enumerate(["Wren", "Great Tit", "Emu"])}
    save_model(folder / "model.safetensors", network, class_to_idx=classes, rgb_stats=rgb_stats("birder"))
    photos = folder / "photos"
    for number in range(10):
        path = photos / f"station {number % 3}" / f"{number}, ü.{'png' if number == 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        birds.draw(number % 3, number).image.save(path)
    whole = (photos / "station 0" / "0, ü.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.jpg").touch()
    Job(
        model=str(folder / "model.safetensors"),
        paths=(photos,),
        output=folder / "index.npy",
        options=Options(**REFERENCE),
        embeddings=True,
    ).run()
    return folder


@pytest.fixture(scope="module")
def live(place: Path) -> Iterator[Live]:
    token = place / "token"
    token.write_text(TOKEN + "\n")
    with Live(place / "model.safetensors", "--index", str(place / "index.npy"), "--token-file", str(token)) as live:
        yield live
        assert live.stop() == 0


@pytest.fixture(scope="module")
def asking(live: Live) -> Iterator[Client]:
    with Client(live.address) as client:
        yield client


@pytest.mark.parametrize("species", [(), ("great tit", "Emu", "Dodo")])
def test_a_table_of_rows_is_that_of_birder_predict(
    asking: Client,
    place: Path,
    tmp_path: Path,
    species: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    scores = sorted(
        {row.scores[0] for row in asking.stream(find_images([Path("photos")]), species=species) if row.scores}
    )
    assert len(scores) > 5  # the pictures are told apart
    least = scores[len(scores) // 2]
    (tmp_path / "list.txt").write_text("\n".join(species), encoding="utf-8")
    options = Options(**REFERENCE, top=2, min_score=least, classes=tmp_path / "list.txt" if species else None)
    Job(model="model.safetensors", paths=(Path("photos"),), output=here, options=options).run()  # as the command does

    layout = Layout(top=2, open_scores=bool(species))
    with open_output(there, layout) as output:
        output.write(asking.stream(find_images([Path("photos")]), top=2, min_score=least, species=species))
    assert there.read_text(encoding="utf-8") == here.read_text(encoding="utf-8")
    assert output.statuses["error"] == 3
    assert output.statuses["ok"] and output.statuses["unsure"]
    assert output.statuses.total() == 13


def test_the_embeddings_are_those_of_birder_embed(asking: Client, place: Path) -> None:
    rows = [row for row in Table(place / "index.npy") if row.embedding is not None]
    assert len(rows) == 10
    for row in rows:
        assert np.array_equal(asking.embed(row.path).embedding, row.embedding)


def test_the_most_similar_picture_is_the_picture_itself(asking: Client, place: Path) -> None:
    first, second = asking.similar(place / "photos" / "station 1" / "4, ü.jpg", 2)
    assert (first.name, first.label) == ("4, ü.jpg", "station 1")
    assert first.similarity == pytest.approx(1, abs=1e-6)
    assert second.similarity < first.similarity


def test_an_explanation_of_the_server(asking: Client, place: Path) -> None:
    picture = place / "photos" / "station 1" / "4, ü.jpg"
    found = asking.explain(picture, "Emu")
    assert found.label == "Emu"
    assert found.method == "grad-cam"
    assert found.heat.ndim == 2
    assert 0 <= found.heat.min() <= found.heat.max() == 1
    row = asking.predict(picture, top="all")
    assert found.score == pytest.approx(dict(zip(row.labels, row.scores, strict=True))["Emu"], abs=1e-5)
    with pytest.raises(ImageError, match="not a picture") as caught:
        asking.explain(place / "photos" / "text.jpg")
    assert caught.value.code == "not_an_image"
    with pytest.raises(ConfigError, match="Dodo"):
        asking.explain(picture, "Dodo")


def test_what_the_server_has_and_has_not(asking: Client, live: Live) -> None:
    (model,) = asking.models()
    assert (model["name"], model["classes"], model["index"]) == ("model", 3, 10)
    with pytest.raises(UnknownName, match="no model is called 'x'"):
        asking.predict(b"1", model="x")
    with pytest.raises(ConfigError, match="top"):
        asking.predict(b"1", top=0)
    with Client(live.address.partition("#")[0]) as nobody, pytest.raises(ConfigError, match="a token is needed"):
        nobody.models()


def test_a_file_that_is_too_large_for_the_server(asking: Client, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(65 << 20)
    rows = list(asking.stream([path, place / "photos" / "text.jpg", path], at_once=2))
    assert [row.code for row in rows] == ["too_large", "not_an_image", "too_large"]
    assert "64 MiB" in rows[0].reason
