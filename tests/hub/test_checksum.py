"""Checksums are computed once, and again when a file has changed."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from birder.hub import checksum

SCRIPT = """
import sys
from pathlib import Path
from birder.hub.checksum import sha256
for path in sys.argv[1:]:
    sha256(Path(path))
"""


@pytest.fixture
def file(home: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bird.pt"
    path.write_bytes(b"a bird")
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read through."""
    files: list[Path] = []
    compute = checksum.compute
    monkeypatch.setattr(checksum, "compute", lambda path: files.append(path) or compute(path))
    return files


def test_it_is_the_sha256_of_the_content(file: Path) -> None:
    assert checksum.sha256(file) == hashlib.sha256(b"a bird").hexdigest()


def test_it_is_computed_once(file: Path, computed: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link.pt").symlink_to(file)
    assert checksum.sha256(file) == checksum.sha256(file) == checksum.sha256(tmp_path / "link.pt")
    assert computed == [file]


def test_another_content_is_computed_again(file: Path, computed: list[Path]) -> None:
    checksum.sha256(file)
    file.write_bytes(b"another bird")
    assert checksum.sha256(file) == hashlib.sha256(b"another bird").hexdigest()
    time = file.stat().st_mtime_ns
    file.write_bytes(b"another brid")
    os.utime(file, ns=(time, time + 1))
    assert checksum.sha256(file) == hashlib.sha256(b"another brid").hexdigest()
    assert len(computed) == 3


@pytest.mark.parametrize("memory", ["", "[1, 2]", "{", '{"x": 1}', "\xff"])
def test_a_damaged_memory_is_forgotten(memory: str, file: Path, home: Path) -> None:
    home.mkdir()
    (home / "checksums.json").write_text(memory, encoding="latin-1")
    assert checksum.sha256(file) == hashlib.sha256(b"a bird").hexdigest()
    assert str(file) in json.loads((home / "checksums.json").read_text())


def test_where_home_cannot_be_written_to_it_is_computed_once_in_each_process_and_that_is_said(
    file: Path, home: Path, computed: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    home.write_text("a file, not a folder")
    with caplog.at_level("INFO", "birder"):
        assert checksum.sha256(file) == checksum.sha256(file) == hashlib.sha256(b"a bird").hexdigest()
    assert len(computed) == 1 and len(caplog.messages) == 1
    file.write_bytes(b"another bird")
    assert checksum.sha256(file) == hashlib.sha256(b"another bird").hexdigest()


def test_files_that_are_gone_are_forgotten(file: Path, home: Path, tmp_path: Path) -> None:
    checksum.sha256(file)
    file.unlink()
    (tmp_path / "other.pt").touch()
    checksum.sha256(tmp_path / "other.pt")
    assert list(json.loads((home / "checksums.json").read_text())) == [str(tmp_path / "other.pt")]


def test_two_processes_forget_nothing(home: Path, tmp_path: Path, root: Path) -> None:
    files = [tmp_path / f"{number}.pt" for number in range(40)]
    for file in files:
        file.touch()
    environment = os.environ | {"PYTHONPATH": str(root), "BIRDER_HOME": str(home)}
    halves = (files[::2], files[1::2])
    processes = [subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, half)], env=environment) for half in halves]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert set(json.loads((home / "checksums.json").read_text())) == set(map(str, files))
