"""Runs that meet trouble outside: a validation that cannot be done, a disk that is full, a folder in use."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.errors import DataError
from birder.training.checkpoints import Checkpoints
from birder.training.fit import Fitted, fit
from birder.training.recipe import Augment, Recipe, Run
from birder.training.runs import is_locked

NETWORK = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    drawn = DrawnBirds(families=2, species=2, size=(40, 40))
    write_folder(drawn, folder / "train", 12)
    write_folder(drawn, folder / "val", 3, split="val")
    return folder


def recipe_for(birds: Path) -> Recipe:
    return Recipe(
        data=str(birds / "train"),
        val=str(birds / "val"),
        network_options=NETWORK,
        size=(32,),
        epochs=2,
        batch_size=8,
        augment=Augment(policy="none"),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0, log_every=1),
    )


@pytest.fixture(scope="module")
def whole(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit(recipe_for(birds), tmp_path_factory.mktemp("runs") / "whole")


class Listener:
    """A console that keeps what it is told."""

    is_terminal = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, text: str, **options: Any) -> None:
        self.lines.append(text)


def assert_ends_as(out: Path, whole: Fitted) -> None:
    once, again = (load_file(folder / "last.safetensors") for folder in (whole.folder, out))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert losses(whole.folder) == losses(out)


def losses(out: Path) -> list[tuple[str, int, float | None]]:
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(entry["kind"], entry["step"], entry.get("loss")) for entry in entries]


def test_a_validation_that_fails_costs_no_step(birds: Path, whole: Fitted, tmp_path: Path) -> None:
    """The pictures went away; when they are back, the same command begins with the validation that was missed."""
    out, away = tmp_path / "run", tmp_path / "away"
    shutil.copytree(birds / "val", away)
    try:
        for path in (birds / "val").glob("*/*.jpg"):
            path.write_bytes(b"")
        with pytest.raises(DataError, match="can be read"):
            fit(recipe_for(birds), out)
    finally:
        shutil.copytree(away, birds / "val", dirs_exist_ok=True)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["00000003.pt"]
    assert not list(out.glob("*.safetensors"))
    listener = Listener()
    fit(recipe_for(birds), out, console=listener)
    assert any("goes on at step 3 of 6" in line for line in listener.lines)
    assert_ends_as(out, whole)


def test_the_newest_checkpoint_is_looked_for_under_the_lock(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that, another process may still be writing there."""
    seen: list[bool] = []
    newest = Checkpoints.newest

    def looked(checkpoints: Checkpoints, report: Any) -> Path | None:
        seen.append(is_locked(checkpoints.folder.parent))
        return newest(checkpoints, report)

    monkeypatch.setattr(Checkpoints, "newest", looked)
    fit(recipe_for(birds), tmp_path / "run")
    assert seen == [True]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is full: a recipe fills it."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], check=False).returncode != 0:
        pytest.skip("no disk can be made here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_said_of_every_file_and_nothing_is_half_written(
    birds: Path, whole: Fitted, small_disk: Path
) -> None:
    """Only the model of the last epoch must find room; with room again, the same command ends as the unbroken run."""
    out, listener = small_disk / "run", Listener()
    with pytest.raises(OSError, match="No space left on device"):
        fit(recipe_for(birds), out, console=listener)
    said = "\n".join(listener.lines)
    for file in ("metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert re.search(f"{re.escape(str(out / file))} could not be written: .*No space left on device", said), file
    assert "the checkpoint at step 3 could not be written: No space left on device; the newest is none" in said
    assert "epoch 1/2" in said, "the run went on"
    left = {path.name: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    assert left.keys() == {"recipe.toml", "metrics.jsonl", ".lock"}, "no half model, no half checkpoint"
    assert left["metrics.jsonl"] == 0

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    fit(recipe_for(birds), out)
    assert_ends_as(out, whole)
