"""Several real processes learn without labels: DDP and FSDP, through the command line, on drawn birds."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import load_model
from birder.training.checkpoints import Checkpoints
from birder.training.fit import fit
from birder.training.machine import resolve
from birder.training.recipe import Optim, Recipe, Run, Schedule, write_recipe
from birder.training.start import Start
from tests.training.test_pretraining import CONVOLUTIONS, TRANSFORMER, method

STEADY = {**TRANSFORMER, "drop_path_rate": 0.0}
NETWORKS = {"convnext_v2_atto": {**CONVOLUTIONS, "drop_path_rate": 0.0}, "vit_t16": STEADY}


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, of which two cannot be read: processes get unequal numbers."""
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40)), folder / "train", 6)
    for path in sorted((folder / "train").glob("*/*.jpg"))[3:5]:
        path.write_bytes(b"no picture")
    return folder


def recipe_for(folder: Path, name: str, network: str = "vit_t16", **options: Any) -> Recipe:
    """Of a network without chance and batch norms, so that only masks tell the numbers of processes apart."""
    return Recipe(
        data=str(folder / "train"),
        network=network,
        network_options=dict(NETWORKS[network]),
        size=(32,),
        epochs=2,
        batch_size=4,
        objective=method(name, **options),
        optim=Optim(name="sgd", lr=0.01),
        schedule=Schedule(warmup_epochs=0.0),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )


def together(root: Path, recipe: Path, name: str, out: Path, *words: str) -> str:
    """The command in two processes; what it says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    birder = ["-m", "birder", "pretrain", name, "--recipe", str(recipe), "--out", str(out), *words]
    done = subprocess.run(
        [sys.executable, *start, "--master-port", str(port), *birder],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "by 2 processes" in " ".join(done.stderr.split())
    return done.stderr


def pretrained(root: Path, recipe: Recipe, out: Path, *words: str) -> str:
    write_recipe(out.with_suffix(".toml"), recipe)
    return together(root, out.with_suffix(".toml"), recipe.objective.name, out, *words)


def state(out: Path) -> dict[str, Tensor]:
    (newest, *_) = Checkpoints(out / "checkpoints", keep=2).paths()
    found: dict[str, Tensor] = torch.load(newest, weights_only=True)["engine"]["objective"]
    return found


def lines(out: Path, kind: str = "epoch") -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


def expect_near(first: Path, second: Path) -> None:
    """Two runs had the same losses, and ended with the same weights, teachers and centres."""
    for name in ("loss", "rank", "uniformity", "alignment"):
        one, other = ([line[name] for line in lines(out)] for out in (first, second))
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5), name
    torch.testing.assert_close(state(first), state(second), rtol=1e-4, atol=1e-5)


def test_two_processes_are_one_that_sorts(root: Path, folder: Path, tmp_path: Path) -> None:
    """Small views, a teacher, a centre over all processes, and a last layer that begins to learn later."""
    recipe = recipe_for(folder, "dino")
    fit(recipe, tmp_path / "one")
    pretrained(root, recipe, tmp_path / "two")
    expect_near(tmp_path / "two", tmp_path / "one")
    assert len(lines(tmp_path / "two", "unreadable")) >= 1, "they had unequal numbers of pictures"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parallel", "options"),
    [("dino", "fsdp", {}), ("mmcr", "ddp", {"projector": (16,)}), ("mmcr", "fsdp", {"projector": (16,)})],
)
def test_so_are_others(name: str, parallel: str, options: Any, root: Path, folder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(folder, name, **options)
    fit(recipe, tmp_path / "one")
    pretrained(root, recipe, tmp_path / "two", "--run.parallel", parallel)
    expect_near(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_goes_on_alone_and_together_again(parallel: str, root: Path, folder: Path, tmp_path: Path) -> None:
    """Of two epochs, the second is done by another number of processes: by one, and then once more by two."""
    recipe, two = recipe_for(folder, "dino"), tmp_path / "two"
    fit(recipe, tmp_path / "one")
    pretrained(root, recipe, two, "--run.parallel", parallel)
    (two / "checkpoints" / "00000006.pt").unlink()
    fit(recipe, two)
    expect_near(two, tmp_path / "one")
    (two / "checkpoints" / "00000006.pt").unlink()
    said = pretrained(root, recipe, two, "--run.parallel", parallel)
    assert "goes on at step 3 of 6" in " ".join(said.split())
    expect_near(two, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("name", "network"), [("data2vec", "vit_t16"), ("mae", "vit_t16"), ("mmcr", "convnext_v2_atto")]
)
def test_what_two_processes_leave(
    name: str, network: str, parallel: str, root: Path, folder: Path, tmp_path: Path
) -> None:
    """Whole weights, those of the teacher where it is what is left, which followed its student in all parts."""
    options = {"data2vec": {"momentum": (0.0, 0.0)}, "mmcr": {"momentum": 0.0}}.get(name, {})
    out = tmp_path / "run"
    pretrained(root, recipe_for(folder, name, network, **options), out, "--run.parallel", parallel)
    left, _ = load_model(out / "last.safetensors")
    weights = state(out)
    for key, value in left.state_dict().items():
        assert torch.equal(value, weights[f"teacher_network.{key}" if name == "data2vec" else f"network.{key}"]), key
    if options:  # it follows at once
        for key, _ in left.named_parameters():
            assert torch.equal(weights[f"teacher_network.{key}"], weights[f"network.{key}"]), key
    torch.manual_seed(0)
    began = Start(resolve(recipe_for(folder, name, network), torch.device("cpu"))).network({})
    moved = [key for key, value in began.named_parameters() if not torch.equal(value, weights[f"network.{key}"])]
    assert len(moved) > len(dict(began.named_parameters())) / 2
    assert lines(out)[-1].keys() >= {"loss", "rank", "uniformity"}
    (out / "checkpoints" / "00000006.pt").unlink()
    fitted = fit(recipe_for(folder, name, network, **options), out)
    assert [line["epoch"] for line in lines(fitted.folder)] == [1, 2]
