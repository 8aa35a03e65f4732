"""One process alone does without all of this; several, started by torchrun, train as one and speak with one voice."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from birder.data.drawn import DrawnBirds, write_folder
from birder.distributed import (
    added,
    collected,
    first_of_all,
    gathered,
    local_rank,
    primary,
    processes,
    rank,
    said_by_primary,
    world_size,
)
from birder.errors import ConfigError
from birder.training.checkpoints import Checkpoints

CPU = torch.device("cpu")
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

RECIPE = """
network = "convnext_v2_atto"
size = 32
epochs = 3
batch_size = 8
network_options = { in_channels = [8, 16, 16, 24], num_layers = [1, 1, 1, 1] }
augment = { min_scale = 0.6 }
average = { decay = 0.9 }
run = { device = "cpu", dtype = "float32", threads = 1, workers = 0, log_every = 4, save_minutes = 0.0 }
"""
STEPS = 18


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_one_process_asks_nobody() -> None:
    with processes(CPU):
        assert not dist.is_initialized()
        assert (rank(), local_rank(), world_size()) == (0, 0, 1)
        assert primary() and first_of_all()
        assert added([1, 2.5, True], CPU) == [1, 2.5, True]
        assert collected({"a": (1, 2)}) == [{"a": (1, 2)}]
        assert gathered(rows := torch.ones(3, 2)) is rows
        assert said_by_primary(lambda: "answer") == "answer"
        with pytest.raises(ConfigError, match="no"):
            said_by_primary(_refuse)
    assert not dist.is_initialized()


def _refuse() -> None:
    raise ConfigError("no")


def test_so_does_a_single_one_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in zip(VARIABLES, ("0", "0", "1", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(variable, value)
    with processes(CPU):
        assert not dist.is_initialized()


def test_numbers_are_known_before_the_processes_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_rank() == 1
    assert not first_of_all()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        (("RANK", "MASTER_ADDR"), "LOCAL_RANK, MASTER_PORT"),
        (("RANK", "LOCAL_RANK", "MASTER_ADDR"), "MASTER_PORT"),
    ],
)
def test_what_torchrun_would_have_set_is_named(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], missing: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for variable in given:
        monkeypatch.setenv(variable, "0")
    message = f"^WORLD_SIZE is set, but not {missing}: start several processes with torchrun$"
    with pytest.raises(ConfigError, match=message), processes(CPU):
        pass


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("birds")
    drawn = DrawnBirds(families=3, species=3, size=(40, 40))
    write_folder(drawn, folder / "train", 16)
    write_folder(drawn, folder / "val", 5, split="val")
    min((folder / "train").glob("*/*.jpg")).write_bytes(b"")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


def begin(repository: Path, birds: Path, out: Path, number: int, *words: str) -> "subprocess.Popen[str]":
    """``birder train`` in so many processes; a checkpoint is written after every step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = [
        "torch.distributed.run",
        "--nproc-per-node",
        number,
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        port,
        "-m",
    ]
    data = ["--data", birds / "train", "--val", birds / "val", "--recipe", birds / "recipe.toml", "--out", out]
    command = [sys.executable, "-m", *(together if number > 1 else []), "birder", "train", *data, *words]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end(process: "subprocess.Popen[str]", code: int = 0) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def lines(out: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in (out / "metrics.jsonl").read_text().splitlines():
        if (entry := json.loads(line))["kind"] == kind:
            yield entry


def numbers(out: Path, kind: str) -> list[float]:
    names = (
        "step",
        "loss",
        "accuracy",
        "gradient_norm",
        "lr",
        *(["epoch", "val_top1", "val_macro_f1"] * (kind == "epoch")),
    )
    return [entry[name] for entry in lines(out, kind) for name in names]


@pytest.fixture(scope="module")
def by_one(repository: Path, birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    end(begin(repository, birds, out, 1))
    return out


def test_two_processes_train_as_one_and_speak_with_one_voice(
    repository: Path, birds: Path, by_one: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = end(begin(repository, birds, out, 2))
    for kind in ("steps", "epoch"):
        assert numbers(out, kind) == pytest.approx(numbers(by_one, kind), rel=1e-5)
    assert [entry["step"] for entry in lines(out, "epoch")] == [6, 12, 18]
    assert [entry["processes"] for entry in lines(out, "start")] == [2]
    assert {entry["path"] for entry in lines(out, "unreadable")} == {str(min((birds / "train").glob("*/*.jpg")))}
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in by_one.iterdir())
    assert [path.name for path in Checkpoints(out / "checkpoints", keep=9).paths()] == ["00000018.pt", "00000017.pt"]
    for text in ("on cpu in float32 by 2 processes", "epoch 1/3", "epoch 3/3", "pictures right", "birder predict "):
        assert said.count(text) == 1, text


@pytest.mark.slow
def test_a_mistake_is_told_and_not_traced(repository: Path, birds: Path, by_one: Path) -> None:
    """Only the first process opens the folder; the others must not wait for it, or fall over its end."""
    said = end(begin(repository, birds, by_one, 2, "--epochs", "4"), 1)  # torchrun's own code; it shows the others
    assert "birder: " in said and "holds something else than this run: name another folder" in said
    assert "[rank" not in said
    assert "broadcast" not in said
    assert "exitcode  : 2 " in said
    assert "SIGABRT" not in said


@pytest.mark.slow
def test_stopped_by_torchrun_it_goes_on_with_two_and_then_with_one(
    repository: Path, birds: Path, by_one: Path, tmp_path: Path
) -> None:
    out, steps = tmp_path / "run", [0]
    for _ in range(2):
        process = begin(repository, birds, out, 2)
        checkpoints = Checkpoints(out / "checkpoints", keep=2)
        while process.poll() is None and not any(int(path.stem) > steps[-1] + 2 for path in checkpoints.paths()):
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        said = end(process, 1)  # torchrun's own code
        steps.append(int(checkpoints.paths()[0].stem))
        assert 0 < steps[-1] < STEPS
        assert said.count(f"stopped at step {steps[-1]} of {STEPS}; the same command goes on") == 1
        assert (f"goes on at step {steps[-2]} of {STEPS}" in said) == (steps[-2] > 0)
    assert f"goes on at step {steps[-1]} of {STEPS}" in end(begin(repository, birds, out, 1))
    assert numbers(out, "epoch") == pytest.approx(numbers(by_one, "epoch"), rel=1e-4)
