"""A name becomes a whole file: from the hub, from a plain address, or placed by hand."""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from birder.catalogue import find
from birder.errors import ConfigError, DownloadError, ModelFileError, UnknownName
from birder.hub import checksum, transfer
from birder.hub.fetch import fetch, local_file, locate
from tests.loopback import CHUNK, COMMIT, Fault, Loopback, add_to_catalogue

CONTENT = bytes(range(256)) * 1200
OLD = CONTENT[::-1]
SIZE = len(CONTENT)
MIB = round(SIZE / 2**20, 1)
HUB = "/birds/finch/resolve/main/finch.pt"
PLAIN = "/models/wren.pt"
PATHS = {"finch": HUB, "wren": PLAIN}

# Fetches in a process of its own, from this computer; the environment says where from.
SCRIPT = """
import sys
from birder.catalogue import find
from birder.hub.fetch import fetch
print(fetch(find(sys.argv[1]), dst=sys.argv[2] if len(sys.argv) > 2 else None))
"""

Download = Callable[[str], Path]


@pytest.fixture(autouse=True)
def published(home: Path, server: Loopback, tmp_path: Path) -> None:
    """Two models with the same content: ``finch`` at the hub, ``wren`` at a plain address."""
    (tmp_path / "source").write_bytes(CONTENT)
    (tmp_path / "old").write_bytes(OLD)
    old = server.publish(HUB, tmp_path / "old")
    digest = server.publish(HUB, tmp_path / "source")
    server.publish(PLAIN, tmp_path / "source")
    row = {"sha256": digest, "mib": MIB, "superseded": [old]}
    add_to_catalogue(home, "finch", url="https://huggingface.co/birds/finch/resolve/main", **row)
    add_to_catalogue(home, "wren", url=f"{server.url}/models", **row)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Where the library of the hub puts the file."""
    return tmp_path / "hub" / "models--birds--finch" / "snapshots" / COMMIT / "finch.pt"


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
    """Nobody answers any more; and nobody waits for that."""
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for a network that is not there"))


def get(name: str, dst: Path | None = None) -> Path:
    return fetch(find(name), dst=dst)


def test_from_the_hub_into_its_cache(server: Loopback, snapshot: Path) -> None:
    assert get("finch") == snapshot
    assert snapshot.read_bytes() == CONTENT
    assert [method for method, path, _ in server.asked if path == HUB] == ["HEAD", "HEAD", "GET"]


def test_from_a_plain_address_into_our_cache(server: Loopback, home: Path) -> None:
    assert get("wren") == home / "models" / "wren.pt"
    assert (home / "models" / "wren.pt").read_bytes() == CONTENT
    assert [method for method, _, _ in server.asked] == ["GET"]


@pytest.mark.parametrize("name", ["finch", "wren"])
def test_later_without_a_network_and_without_reading_it_through(
    name: str, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = get(name)
    server.asked.clear()
    monkeypatch.setattr(checksum, "compute", lambda path: pytest.fail(f"{path} is read through again"))
    monkeypatch.setenv("BIRDER_OFFLINE", "1")
    assert get(name) == path
    assert server.asked == []


@pytest.mark.parametrize("name", ["finch", "wren"])
def test_a_place_of_ones_own(name: str, server: Loopback, tmp_path: Path) -> None:
    dst = tmp_path / "field trip" / "bird.pt"
    assert get(name, dst) == dst
    assert dst.read_bytes() == CONTENT
    assert [path.name for path in dst.parent.iterdir()] == ["bird.pt"]
    assert server.served[PATHS[name]] == SIZE
    server.asked.clear()
    assert get(name, dst) == dst
    assert server.asked == []
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("name", ["finch", "wren"])
@pytest.mark.parametrize("by_hand", ["dst", "cache"])
def test_offline_with_a_file_placed_by_hand(
    name: str, by_hand: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: None
) -> None:
    monkeypatch.setenv("BIRDER_OFFLINE", "1")
    place = home / "models" / f"{name}.pt" if by_hand == "cache" else tmp_path / "x.pt"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(CONTENT)
    assert get(name, None if by_hand == "cache" else place) == place


@pytest.mark.parametrize(("name", "variable"), [("finch", "BIRDER_OFFLINE"), ("wren", "BIRDER_OFFLINE")])
def test_offline_without_the_file(
    name: str, variable: str, home: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    message = rf"{name} is not on this computer, and {variable} is set. Place http\S*/{name}.pt at {home}/models/{name}"
    with pytest.raises(DownloadError, match=message):
        get(name)
    assert server.asked == []


def test_the_offline_mode_of_the_hub_is_of_the_hub_only(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="finch is not on this computer, and HF_HUB_OFFLINE is set"):
        get("finch")
    get("wren")


@pytest.mark.parametrize("name", ["finch", "wren"])
@pytest.mark.parametrize("dst", [None, "x.pt"])
def test_no_network(name: str, dst: str | None, tmp_path: Path, closed: None) -> None:
    with pytest.raises(DownloadError, match=r"could not be downloaded: .*; without a network, give the file that"):
        get(name, tmp_path / dst if dst else None)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, r"the hub refuses it \(HTTP 401\): it is private, or there is no such repository; log in with `hf auth"),
        (403, r"the hub refuses it \(HTTP 403\): it is private"),
        (404, r"there is no such file \(HTTP 404\)"),
    ],
)
def test_the_hub_refuses(status: int, reason: str, server: Loopback) -> None:
    server.faults[HUB] = [Fault(status=status, all=True)]
    with pytest.raises(DownloadError, match=f"finch.pt of birds/finch could not be downloaded: {reason}"):
        get("finch")


def test_a_hub_that_is_busy_is_asked_again(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    server.faults[HUB] = [Fault(status=503), Fault(status=503)]
    assert get("finch").read_bytes() == CONTENT


@pytest.mark.parametrize("dst", [None, "x.pt"])
def test_a_token_opens_a_private_repository(
    dst: str | None, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert get("finch", tmp_path / dst if dst else None).read_bytes() == CONTENT


def test_a_broken_connection_to_the_hub_goes_on_where_it_broke(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 20_000)  # the library keeps whole chunks only
    server.faults[HUB] = [Fault(drop_after=100_000)]
    assert get("finch").read_bytes() == CONTENT
    assert server.gets(HUB) == ["", "bytes=100000-"]


@pytest.mark.parametrize("name", ["finch", "wren"])
@pytest.mark.parametrize("dst", [None, "x.pt"])
def test_wrong_content_on_the_way(name: str, dst: str | None, server: Loopback, tmp_path: Path) -> None:
    server.faults[PATHS[name]] = [Fault(body=b"x" * SIZE)]
    with pytest.raises(DownloadError, match="removed"):
        get(name, tmp_path / dst if dst else None)
    assert not list(tmp_path.rglob("*.pt*"))
    assert get(name, tmp_path / dst if dst else None).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["finch", "wren"])
def test_an_older_publication_is_not_what_was_asked_for(name: str, server: Loopback, tmp_path: Path) -> None:
    server.publish(PATHS[name], tmp_path / "old")
    with pytest.raises(DownloadError, match=f"gave is an older publication of {name}: its sha256 is .*…, not .*…"):
        get(name, tmp_path / "x.pt")


def test_what_the_hub_published_anew_is_kept(server: Loopback, tmp_path: Path, snapshot: Path) -> None:
    (tmp_path / "new").write_bytes(b"new" * 100_000)
    server.publish(HUB, tmp_path / "new")
    for _ in range(2):
        with pytest.raises(
            DownloadError, match=rf"published anew: .* if you trust it, load it by its path, {snapshot}"
        ):
            get("finch")
    assert snapshot.read_bytes() == b"new" * 100_000
    assert len(server.gets(HUB)) == 1


def test_a_file_damaged_in_the_cache_of_the_hub_is_downloaded_again(snapshot: Path) -> None:
    get("finch")
    snapshot.resolve().write_bytes(CONTENT[:-100])
    with pytest.raises(DownloadError, match=rf"{snapshot} was damaged and has been removed: .* Try again"):
        get("finch")
    assert get("finch").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "difference"),
    [(CONTENT[: SIZE // 2], r"it has 0.1 of 0.3 MiB"), (b"x" * SIZE, r"its sha256 is \w{16}…, not \w{16}…")],
)
@pytest.mark.parametrize("dst", [None, "mine/x.pt"])
def test_another_file_placed_by_hand_stays(
    content: bytes, difference: str, dst: str | None, home: Path, tmp_path: Path
) -> None:
    place = tmp_path / dst if dst else home / "models" / "wren.pt"
    place.parent.mkdir()
    place.write_bytes(content)
    message = f"{place} is not the published file of wren: {difference}. Remove it, .* load it by its path"
    with pytest.raises(ModelFileError, match=message):
        get("wren", tmp_path / dst if dst else None)
    assert place.read_bytes() == content


@pytest.mark.parametrize("dst", [None, "mine/x.pt"])
def test_an_older_publication_placed_by_hand_will_do(
    dst: str | None, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / dst if dst else home / "models" / "wren.pt"
    place.parent.mkdir()
    place.write_bytes(OLD)
    with caplog.at_level(logging.WARNING, "birder"):
        assert get("wren", tmp_path / dst if dst else None) == place
    assert caplog.messages == [f"{place} is an older publication of wren; remove it to get the current one"]


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("name", ["finch", "wren"])
def test_no_space(name: str, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    with pytest.raises(DownloadError, match=f"no space for {name}.pt in .*: 0.3 MiB are needed and 0.0 are free"):
        get(name)
    assert server.served.get(HUB, 0) == 0


def test_the_disk_fills_up_under_the_hubs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download._chmod_and_move", full)
    with pytest.raises(DownloadError, match=r"no space for finch.pt in .*: the disk is full .*HF_HUB_CACHE"):
        get("finch")


def start(name: str, server: Loopback, home: Path, root: Path, *words: object) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
    }
    command = [sys.executable, "-c", SCRIPT, name, *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("name", ["finch", "wren"])
def test_two_processes_download_once(name: str, server: Loopback, home: Path, root: Path) -> None:
    server.faults[PATHS[name]] = [Fault(pause_s=0.04, all=True)]
    processes = [start(name, server, home, root) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {out for out, _ in outputs} == {f"{get(name)}\n"}
    assert server.served[PATHS[name]] == SIZE


def test_a_killed_download_from_the_hub_to_a_place_of_ones_own_goes_on(
    server: Loopback, home: Path, root: Path, tmp_path: Path
) -> None:
    server.faults[HUB] = [Fault(pause_s=0.1)]
    dst = tmp_path / "x.pt"
    with start("finch", server, home, root, dst) as process:
        while server.served.get(HUB, 0) < 4 * CHUNK:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    there = dst.with_name("x.pt.partial").stat().st_size
    assert get("finch", dst).read_bytes() == CONTENT
    assert server.gets(HUB) == ["", f"bytes={there}-"]


def test_a_killed_download_into_the_cache_of_the_hub_does_no_harm(server: Loopback, home: Path, root: Path) -> None:
    server.faults[HUB] = [Fault(pause_s=0.1)]
    with start("finch", server, home, root) as process:
        while server.served.get(HUB, 0) < 4 * CHUNK:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert get("finch").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["finch", "wren"])
@pytest.mark.parametrize("shown", [True, False])
def test_a_bar(name: str, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TQDM_POSITION", "-1")  # as if on a terminal, for the hub's library
    fetch(find(name), progress_bar=shown)
    assert (f"{name}.pt" in capsys.readouterr().err) == shown


def test_where_a_file_lies(home: Path, snapshot: Path) -> None:
    for name, place in (("finch", snapshot), ("wren", home / "models" / "wren.pt")):
        assert local_file(find(name), "pt") is None
        get(name)
        assert local_file(find(name), "pt") == place


def test_a_form_that_is_not_published() -> None:
    with pytest.raises(ConfigError, match="file_format: wren is published as pt, not as 'safetensors'"):
        fetch(find("wren"), "safetensors")


def test_a_place_with_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dst: .*x.bin must end in .pt"):
        get("wren", tmp_path / "x.bin")


def test_a_name_becomes_a_file_and_its_network(home: Path) -> None:
    assert locate("wren") == (home / "models" / "wren.pt", "convnext_v2_atto")


@pytest.mark.parametrize("weights", ["x.pt", "x.safetensors", "./x", Path("x"), "folder/x"])
def test_a_path_is_itself(weights: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(weights).parent.mkdir(exist_ok=True)
    Path(weights).touch()
    assert locate(weights) == (Path(weights), None)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("wern", UnknownName, "no published model is called 'wern', and no file; did you mean wren?"),
        ("finch.safetensor", UnknownName, r"no file; did you mean finch.safetensors\?"),
        ("finch.pt", ModelFileError, "finch.pt: no such file; did you mean finch"),
        ("folder/wren.pt", ModelFileError, "folder/wren.pt: no such file; did you mean folder/wrn.pt"),
        (Path("wren"), ModelFileError, "wren: no such file; did you mean wren"),
        ("convnext_v2_tiny_il-common", UnknownName, "did you mean .*, convnext_v2_atto_il-common, "),
        (
            "biformer_s_il-all",
            UnknownName,
            "is a published model, but its network .* is not supported yet by this version of birder",
        ),
        ("lw_detr_2stg_objects365_pe_spatial_s16", UnknownName, "but its task object_detection is not supported yet"),
    ],
)
def test_what_is_not_there(
    weights: str | Path, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("finch.safetensors").touch()
    Path("folder").mkdir()
    Path("folder/wrn.pt").touch()
    with pytest.raises(error, match=message):
        locate(weights)


def test_a_path_has_no_other_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dst: is for the name of a published model; x.pt is a path"):
        locate("x.pt", dst=tmp_path / "y.pt")


def test_a_form_that_cannot_be_loaded(home: Path) -> None:
    row = {"sha256": "0" * 64, "mib": 1.0, "url": "https://example.org"}
    add_to_catalogue(home, "emu", **row)
    with open(home / "catalogue.toml", "a", encoding="utf-8") as file:
        file.write(f'formats.pts = {{ file_size = 1, sha256 = "{"0" * 64}" }}\n')
    with pytest.raises(ConfigError, match="file_format: pts cannot be loaded; choose one of pt, safetensors"):
        locate("emu", file_format="pts")


def test_the_cache_may_be_moved(home: Path) -> None:
    get("wren")
    shutil.move(home, home.with_name("elsewhere"))
    os.environ["BIRDER_HOME"] = str(home.with_name("elsewhere"))  # undone with the fixture's own
    assert locate("wren")[0] == home.with_name("elsewhere") / "models" / "wren.pt"
