"""A run of real processes on drawn birds that is broken off, and its comparison with one that was not."""

import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.training.checkpoints import Checkpoints

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


def write_birds(folder: Path) -> None:
    """Pictures, and a recipe that writes a checkpoint after every one of its 45 steps."""
    drawn = DrawnBirds(families=3, species=3, size=(40, 40))
    write_folder(drawn, folder / "train", 40)
    write_folder(drawn, folder / "val", 4, split="val")
    (folder / "recipe.toml").write_text(RECIPE)


def words(birds: Path, out: Path) -> list[str]:
    """The command, behind the word ``python``."""
    data = ["--data", str(birds / "train"), "--val", str(birds / "val"), "--out", str(out)]
    return ["-m", "birder", "train", "--recipe", str(birds / "recipe.toml"), *data]


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


def wait_for_steps(out: Path, process: subprocess.Popen[str], seen: set[str]) -> None:
    """Until a checkpoint appears that this process has written."""
    while process.poll() is None and {path.name for path in (out / "checkpoints").glob("0*.pt")} <= seen:
        time.sleep(0.002)


def assert_ends_the_same(out: Path, unbroken: Path) -> None:
    assert_same(state(out), state(unbroken))
    for name in ("last.safetensors", "best.safetensors"):
        assert_same(load_file(out / name), load_file(unbroken / name))
