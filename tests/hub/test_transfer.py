"""Downloads go on where they stopped, and say what is wrong. The server is a real one, on this computer."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from birder.errors import DownloadError
from birder.hub import transfer
from birder.hub.transfer import ATTEMPTS, download
from tests.loopback import CHUNK, Fault, Loopback

CONTENT = bytes(range(256)) * 1200
SIZE = len(CONTENT)
PATH = "/models/bird.pt"

# Downloads in a process of its own, with as many pauses as here.
SCRIPT = """
import sys
from pathlib import Path
from birder.hub import transfer
transfer.PAUSE_S = 0.0
transfer.download(sys.argv[1], Path(sys.argv[2]), accept=lambda path: None)
"""


@pytest.fixture
def url(server: Loopback, tmp_path: Path) -> str:
    (tmp_path / "source").write_bytes(CONTENT)
    server.publish(PATH, tmp_path / "source")
    return server.url + PATH


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is to lie, in a folder that does not exist yet."""
    return tmp_path / "folder" / "bird.pt"


def take(partial: Path) -> None:
    """Accept a file that has the right content."""
    assert partial.read_bytes() == CONTENT


def left(file: Path) -> set[str]:
    return {path.name for path in file.parent.iterdir()}


def get(url: str, file: Path) -> None:
    """Download, and see that nothing but the right file is left."""
    download(url, file, accept=take)
    assert file.read_bytes() == CONTENT
    assert left(file) == {"bird.pt"}


def test_a_file_is_downloaded(url: str, file: Path, server: Loopback) -> None:
    get(url, file)
    assert server.gets(PATH) == [""]
    assert server.served[PATH] == SIZE


def test_a_file_that_is_there_is_not_downloaded(url: str, file: Path, server: Loopback) -> None:
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    get(url, file)
    assert server.asked == []


def test_a_broken_connection_goes_on_where_it_broke(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(drop_after=100_000), Fault(drop_after=50_000)]
    get(url, file)
    assert server.gets(PATH) == ["", "bytes=100000-", "bytes=150000-"]
    assert server.served[PATH] == SIZE


def test_a_server_that_knows_no_ranges_starts_over(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(drop_after=100_000), Fault(ignore_range=True)]
    get(url, file)
    assert server.served[PATH] == 100_000 + SIZE


def test_without_a_version_it_starts_over(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(drop_after=100_000, no_version=True)]
    get(url, file)
    assert server.gets(PATH) == ["", ""]


@pytest.mark.parametrize("ignore_version", [False, True])
def test_a_file_that_changed_on_the_server_starts_over(
    url: str, file: Path, server: Loopback, tmp_path: Path, ignore_version: bool
) -> None:
    (tmp_path / "old").write_bytes(b"old" * 200_000)
    server.publish(PATH, tmp_path / "old")
    server.faults[PATH] = [Fault(drop_after=100_000), *[Fault(status=404)]]
    with pytest.raises(DownloadError):
        download(url, file, accept=take)
    assert left(file) >= {"bird.pt.partial"}
    server.publish(PATH, tmp_path / "source")
    server.faults[PATH] = [Fault(ignore_version=ignore_version)]
    get(url, file)
    assert server.gets(PATH)[2:] == ["bytes=100000-", *([""] if ignore_version else [])]


@pytest.mark.parametrize(("there", "served"), [(CONTENT, 0), (CONTENT + b"more", SIZE)])
def test_all_was_there_but_the_name(there: bytes, served: int, url: str, file: Path, server: Loopback) -> None:
    file.parent.mkdir()
    file.with_name("bird.pt.partial").write_bytes(there)
    file.with_name("bird.pt.partial.version").write_text(f'"{server.publish(PATH, server.file(PATH)[0])}"')
    get(url, file)
    assert server.served.get(PATH, 0) == served


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status: int, url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(status=status)] * 3
    get(url, file)
    assert len(server.gets(PATH)) == 4


def test_a_server_that_stays_busy(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(status=503, all=True)]
    with pytest.raises(
        DownloadError, match="could not be downloaded: the server says 503 Service Unavailable; without"
    ):
        download(url, file, accept=take)
    assert len(server.gets(PATH)) == ATTEMPTS
    assert "bird.pt" not in left(file)


def test_a_server_that_always_breaks_off_at_the_same_place(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(drop_after=100_000, ignore_range=True, all=True)]
    message = r"the connection broke after 0.1 of 0.3 MiB; 0.1 MiB have arrived, and the next download goes on there"
    with pytest.raises(DownloadError, match=message):
        download(url, file, accept=take)
    assert len(server.gets(PATH)) == ATTEMPTS


def test_the_next_download_goes_on_there(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(drop_after=100_000), *[Fault(status=503)] * ATTEMPTS]
    with pytest.raises(DownloadError):
        download(url, file, accept=take)
    get(url, file)
    assert server.served[PATH] == SIZE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, r"the server asks for a token \(HTTP 401\)"),
        (403, r"the server refuses it; a token may be needed \(HTTP 403\)"),
        (404, r"there is no such file \(HTTP 404\)"),
        (418, r"I'm a Teapot \(HTTP 418\)"),
    ],
)
def test_a_refusal_is_not_asked_again(status: int, reason: str, url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(status=status, all=True)]
    with pytest.raises(DownloadError, match=f"{url} could not be downloaded: {reason}"):
        download(url, file, accept=take)
    assert len(server.gets(PATH)) == 1


def test_no_network(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for a network that is not there"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    with pytest.raises(DownloadError, match=r"Connection refused; without a network, give the file .* or as dst="):
        download(url, file, accept=take)


@pytest.mark.parametrize("url", ["http://192.0.2.1/bird.pt", "file:///etc/passwd", "ftp://192.0.2.1/x"])
def test_only_https_from_elsewhere(url: str, file: Path) -> None:
    with pytest.raises(DownloadError, match=f"{url} is not https: it was not downloaded"):
        download(url, file, accept=take)


def test_no_redirect_to_plain_http_elsewhere(url: str, file: Path, server: Loopback) -> None:
    server.faults[PATH] = [Fault(location="http://192.0.2.1/bird.pt")]
    with pytest.raises(DownloadError, match=r"http://192.0.2.1/bird.pt is not https"):
        download(url, file, accept=take)


def test_a_token_goes_to_the_first_server_only(url: str, file: Path, server: Loopback) -> None:
    server.faults["/moved"] = [Fault(location=url)]
    server.token = "secret"
    with pytest.raises(DownloadError, match=r"\(HTTP 401\)"):
        download(f"{server.url}/moved", file, accept=take, headers={"Authorization": "Bearer secret"})
    assert [path for _, path, _ in server.asked] == ["/moved", PATH]
    download(url, file, accept=take, headers={"Authorization": "Bearer secret"})


Usage = namedtuple("Usage", "total used free")


def test_no_space_is_seen_before(url: str, file: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: Usage(SIZE, 1, SIZE - 1))
    with pytest.raises(DownloadError, match=r"no space for bird.pt in .*: 0.3 MiB are needed and 0.3 are free; make"):
        download(url, file, accept=take)
    assert not any(path.suffix == ".pt" or path.stat().st_size > 100 for path in file.parent.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_the_disk_fills_up(url: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "open", lambda *_, **__: io.FileIO("/dev/full", "w"), raising=False)
    with pytest.raises(DownloadError, match=r"no space for bird.pt in .*: the disk is full; make room, or choose"):
        download(url, file, accept=take)


def test_what_is_not_accepted_is_removed(url: str, file: Path) -> None:
    def refuse(partial: Path) -> None:
        raise DownloadError("not this one")

    with pytest.raises(DownloadError, match="not this one"):
        download(url, file, accept=refuse)
    assert left(file) == set()


def start(url: str, file: Path, root: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, url, str(file)], env=environment)


def test_two_processes_download_once(url: str, file: Path, server: Loopback, root: Path) -> None:
    server.faults[PATH] = [Fault(pause_s=0.04, all=True)]
    processes = [start(url, file, root) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert server.served[PATH] == SIZE
    assert file.read_bytes() == CONTENT
    assert left(file) == {"bird.pt"}


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_download_goes_on(url: str, file: Path, server: Loopback, root: Path) -> None:
    server.faults[PATH] = [Fault(pause_s=0.1)]
    process = start(url, file, root)
    while server.served.get(PATH, 0) < 6 * CHUNK:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    partial = file.with_name("bird.pt.partial")
    there = partial.stat().st_size
    assert 0 < there < SIZE
    assert partial.read_bytes() == CONTENT[:there]
    get(url, file)
    assert server.gets(PATH) == ["", f"bytes={there}-"]


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_on_a_terminal(
    shown: bool, url: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    download(url, file, accept=take, progress_bar=shown)
    assert ("bird.pt" in capsys.readouterr().err) == shown
