"""Checkpoints: written whole, the newest kept, damaged ones passed over."""

from pathlib import Path

import pytest
import torch

from birder.errors import DataError
from birder.training.checkpoints import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def no_report(line: str) -> None:
    raise AssertionError(line)


def test_what_was_written_comes_back(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest(no_report) is None
    weights = torch.rand(3)
    checkpoints.write(7, {"step": 7, "weights": weights})
    state = checkpoints.newest(no_report)
    assert state is not None and state["step"] == 7 and torch.equal(state["weights"], weights)


def test_the_newest_stay(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15, 123_456_789):
        checkpoints.write(step, {"step": step})
    assert names(checkpoints) == ["00000015.pt", "123456789.pt"]
    assert checkpoints.newest(no_report) == {"step": 123_456_789}


def test_one_alone_replaces_the_other(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    for step in (5, 10):
        checkpoints.write(step, {"step": step})
    assert names(checkpoints) == ["00000010.pt"]


def test_damage_is_said_and_passed_over(checkpoints: Checkpoints) -> None:
    for step in (5, 10):
        checkpoints.write(step, {"step": step, "weights": torch.rand(1000)})
    newest = checkpoints.folder / "00000010.pt"
    whole = newest.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 20)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (1000, 2000, 3000)]
    for content in damaged:
        newest.write_bytes(content)
        lines: list[str] = []
        state = checkpoints.newest(lines.append)
        assert state is not None and state["step"] == 5
        assert len(lines) == 1 and lines[0].startswith(f"{newest} is damaged and passed over (")
    (checkpoints.folder / "00000005.pt").write_bytes(b"half")
    with pytest.raises(DataError, match=r"all checkpoints in .*checkpoints are damaged: remove .* to begin again"):
        checkpoints.newest(lambda line: None)


def test_a_damaged_newer_one_is_gone_after_the_next(checkpoints: Checkpoints) -> None:
    """Otherwise it would be the newest for ever."""
    checkpoints.write(5, {"step": 5})
    (checkpoints.folder / "00000020.pt").write_bytes(b"half")
    checkpoints.write(8, {"step": 8})
    assert names(checkpoints) == ["00000005.pt", "00000008.pt"]


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
