"""A training process that is killed at random moments, and started again, ends as one that was left alone.

``KILLS=30 pytest -m slow tests/training/test_killed.py`` kills it thirty times; three times are enough in between.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.training.checkpoints import Checkpoints

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("SEED", "0"))
GO_ON = 75
"""Exit code of a run that was asked to stop."""

RECIPE = """
network = "convnext_v2_atto"
size = 32
epochs = 3
batch_size = 8
network_options = { in_channels = [8, 16, 16, 24], num_layers = [1, 1, 2, 1], drop_path_rate = 0.2 }
objective = { mixup = 0.2 }
augment = { min_scale = 0.6 }
average = { decay = 0.9 }
run = { device = "cpu", dtype = "float32", threads = 1, workers = 1, save_minutes = 0.0, log_every = 5 }
"""


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    drawn = DrawnBirds(families=3, species=3, size=(40, 40))
    write_folder(drawn, folder / "train", 40)
    write_folder(drawn, folder / "val", 4, split="val")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


def start(root: Path, birds: Path, out: Path) -> subprocess.Popen[str]:
    """The process; a checkpoint is written after every step."""
    data = ["--data", str(birds / "train"), "--val", str(birds / "val"), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "birder", "train", "--recipe", str(birds / "recipe.toml"), *data]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code, out
    return out


def state(out: Path) -> dict[str, Any]:
    (newest, *_) = Checkpoints(out / "checkpoints", keep=2).paths()
    loaded: dict[str, Any] = torch.load(newest, weights_only=True)
    return loaded


def assert_same(first: Any, second: Any, path: str = "state") -> None:
    """Equal to the last bit, at any depth."""
    assert type(first) is type(second), path
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for name in first:
            assert_same(first[name], second[name], f"{path}.{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{path}[{place}]")
    else:
        assert first == second, path


@pytest.fixture(scope="module")
def unbroken(root: Path, birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(start(root, birds, out))
    return out


def wait_for_steps(out: Path, process: subprocess.Popen[str], seen: set[str]) -> None:
    """Until a checkpoint appears that this process has written."""
    while process.poll() is None and {path.name for path in (out / "checkpoints").glob("0*.pt")} <= seen:
        time.sleep(0.002)


def assert_ends_the_same(out: Path, unbroken: Path) -> None:
    assert_same(state(out), state(unbroken))
    for name in ("last.safetensors", "best.safetensors"):
        assert_same(load_file(out / name), load_file(unbroken / name))


def test_killed_at_random_moments(root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / "run", random.Random(SEED)
    killed = 0
    while killed < KILLS:
        seen = {path.name for path in (out / "checkpoints").glob("0*.pt")}
        process = start(root, birds, out)
        wait_for_steps(out, process, seen)
        time.sleep(moments.uniform(0.0, 1.2 / KILLS))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break  # it was quicker
        killed += 1
    print(f"killed {killed} times, last at step {state(out)['engine']['step']} of {state(unbroken)['engine']['step']}")
    finish(start(root, birds, out))
    assert_ends_the_same(out, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop(number: signal.Signals, root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """The whole group is asked, as a terminal, torchrun and Slurm do; the process that reads pictures does not mind."""
    out = tmp_path / "run"
    process = start(root, birds, out)
    wait_for_steps(out, process, set())
    time.sleep(0.2)
    os.killpg(process.pid, number)
    said = finish(process, GO_ON)
    step = state(out)["engine"]["step"]
    assert 0 < step < 45
    assert f"stopped at step {step} of 45; the same command goes on" in said
    assert f"goes on at step {step} of 45" in finish(start(root, birds, out))
    assert_ends_the_same(out, unbroken)
