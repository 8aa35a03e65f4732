"""Checkpoints: written whole, the newest kept, damaged ones passed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from birder.errors import DataError
from birder.training.checkpoints import Checkpoints, read_checkpoint


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def no_report(line: str) -> None:
    raise AssertionError(line)


def newest(checkpoints: Checkpoints, report: Callable[[str], None] = no_report) -> dict[str, Any] | None:
    path = checkpoints.newest(report)
    return read_checkpoint(path) if path is not None else None


def test_what_was_written_comes_back(checkpoints: Checkpoints) -> None:
    assert newest(checkpoints) is None
    weights = torch.rand(3)
    checkpoints.write(7, {"step": 7, "weights": weights})
    state = newest(checkpoints)
    assert state is not None and state["step"] == 7 and torch.equal(state["weights"], weights)


def test_the_newest_stay(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15, 123_456_789):
        checkpoints.write(step, {"step": step})
    assert names(checkpoints) == ["00000015.pt", "123456789.pt"]
    assert newest(checkpoints) == {"step": 123_456_789}


def test_one_alone_replaces_the_other(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    for step in (5, 10):
        checkpoints.write(step, {"step": step})
    assert names(checkpoints) == ["00000010.pt"]


def test_damage_is_said_and_passed_over(checkpoints: Checkpoints) -> None:
    for step in (5, 10):
        checkpoints.write(step, {"step": step, "weights": torch.rand(1000)})
    last = checkpoints.folder / "00000010.pt"
    whole = last.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 20)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (1000, 2000, 3000)]
    for content in damaged:
        last.write_bytes(content)
        lines: list[str] = []
        state = newest(checkpoints, lines.append)
        assert state is not None and state["step"] == 5
        assert len(lines) == 1 and lines[0].startswith(f"{last} is damaged and passed over (")
    (checkpoints.folder / "00000005.pt").write_bytes(b"half")
    with pytest.raises(DataError, match=r"all checkpoints in .*checkpoints are damaged: remove .* to begin again"):
        checkpoints.newest(lambda line: None)


def test_a_damaged_newer_one_is_gone_after_the_next(checkpoints: Checkpoints) -> None:
    """Otherwise it would be the newest for ever."""
    checkpoints.write(5, {"step": 5})
    (checkpoints.folder / "00000020.pt").write_bytes(b"half")
    checkpoints.write(8, {"step": 8})
    assert names(checkpoints) == ["00000005.pt", "00000008.pt"]


def test_other_files_are_left_alone(checkpoints: Checkpoints) -> None:
    checkpoints.write(5, {"step": 5})
    kept = checkpoints.folder / "00000005-good.pt"
    kept.write_bytes(b"mine")
    for step in (6, 7, 8):
        checkpoints.write(step, {"step": step})
    assert names(checkpoints) == ["00000005-good.pt", "00000007.pt", "00000008.pt"]
    assert newest(checkpoints) == {"step": 8}


def test_one_that_may_not_be_read_is_not_passed_over(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one would take its place."""
    checkpoints.write(5, {"step": 5})

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("birder.training.checkpoints.read_checkpoint", refused)
    with pytest.raises(PermissionError):
        checkpoints.newest(no_report)


def test_what_cannot_be_written_leaves_the_old_ones(checkpoints: Checkpoints) -> None:
    checkpoints.write(5, {"step": 5})
    with pytest.raises(Exception, match="pickle"):
        checkpoints.write(6, {"broken": lambda: None})
    assert names(checkpoints) == ["00000005.pt"]


def test_what_a_killed_process_left_is_removed(checkpoints: Checkpoints) -> None:
    checkpoints.write(5, {"step": 5})
    (checkpoints.folder / ".00000006.abc.tmp.pt").write_bytes(b"half")
    checkpoints.write(7, {"step": 7})
    assert names(checkpoints) == ["00000005.pt", "00000007.pt"]


def test_no_code_is_run(checkpoints: Checkpoints) -> None:
    checkpoints.folder.mkdir()
    torch.save({"step": Path("x")}, checkpoints.folder / "00000001.pt")
    with pytest.raises(DataError, match="are damaged"):
        checkpoints.newest(lambda line: None)
