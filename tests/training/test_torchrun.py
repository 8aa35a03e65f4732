"""Two processes under torchrun, killed or asked to stop: none is left behind, and the same command ends the same."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from birder.training.runs import is_locked
from tests.training.broken_off import assert_ends_the_same, state, wait_for_steps, words, write_birds
from tests.training.torchrun import finish, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
]

FAILED = 1
"""Exit code of torchrun, whatever its processes ended with."""


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    write_birds(folder)
    return folder


def train(root: Path, birds: Path, out: Path) -> subprocess.Popen[str]:
    return start(root, 2, *words(birds, out))


@pytest.fixture(scope="module")
def unbroken(root: Path, birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(train(root, birds, out))
    return out


def below(process: int) -> list[int]:
    """Its children and theirs: with torchrun, two that train; then those who read for these."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    children = [int(number) for number in text.split()]
    return children + [number for child in children for number in below(child)]


def alive(processes: list[int]) -> list[int]:
    """Those that still do something; who was killed may wait for its parent to be told."""
    found = []
    for number in processes:
        try:
            kind = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found += [number] if kind != "Z" else []
    return found


def wait_until_gone(processes: list[int]) -> None:
    until = time.monotonic() + 120
    while (left := alive(processes)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


def under_way(root: Path, birds: Path, out: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A run that has written checkpoints, and all its processes but torchrun."""
    process = train(root, birds, out)
    wait_for_steps(out, process, set())
    time.sleep(0.2)
    return process, below(process.pid)


@pytest.mark.parametrize("which", [0, 1], ids=["the first", "the second"])
def test_one_of_them_is_killed(which: int, root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """The other cannot go on alone: it ends by itself, and torchrun need not kill it after 30 seconds."""
    process, others = under_way(root, birds, tmp_path / "run")
    os.kill(others[which], signal.SIGKILL)
    assert "forcefully exiting" not in finish(process, FAILED)
    wait_until_gone(others)
    assert "goes on at step" in finish(train(root, birds, tmp_path / "run"))
    assert_ends_the_same(tmp_path / "run", unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop(number: signal.Signals, root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """Torchrun, whose processes have groups of their own, passes it on, and then ends with 1, not with 75."""
    process, others = under_way(root, birds, tmp_path / "run")
    os.killpg(process.pid, number)
    said = finish(process, FAILED)
    step = state(tmp_path / "run")["engine"]["step"]
    assert said.count(f"stopped at step {step} of 45; the same command goes on") == 1
    wait_until_gone(others)
    assert f"goes on at step {step} of 45" in finish(train(root, birds, tmp_path / "run"))
    assert_ends_the_same(tmp_path / "run", unbroken)


def test_torchrun_itself_is_killed(root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """Nobody tells its processes: they go on to the end and keep the folder; then the command finds all done."""
    process, others = under_way(root, birds, tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert is_locked(tmp_path / "run")
    process.communicate(timeout=300)  # until nobody writes any more
    wait_until_gone(others)
    assert not is_locked(tmp_path / "run")
    assert "is finished: nothing to do" in finish(train(root, birds, tmp_path / "run"))
    assert_ends_the_same(tmp_path / "run", unbroken)


def test_all_are_killed(root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """As when a machine is switched off."""
    process, others = under_way(root, birds, tmp_path / "run")
    for number in (process.pid, *others):
        os.kill(number, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until_gone(others)
    assert "goes on at step" in finish(train(root, birds, tmp_path / "run"))
    assert_ends_the_same(tmp_path / "run", unbroken)
