"""Whole runs by two real processes: what they have, and save, is that of one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.training.fit import fit
from tests.training.several_fits import with_gaps
from tests.training.torchrun import finish, start

SCRIPT = Path(__file__).with_name("several_fits.py")


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    drawn = DrawnBirds(families=2, species=2, size=(40, 40))
    write_folder(drawn, folder / "train", 12)
    write_folder(drawn, folder / "val", 4, split="val")
    return folder


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four of twelve cannot be read."""
    folder = tmp_path_factory.mktemp("gaps") / "train"
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), folder, 6)
    for path in sorted(folder.glob("*/*.jpg"))[::3]:
        path.write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def out(root: Path, birds: Path, gaps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    finish(start(root, 2, SCRIPT, birds, gaps, folder))
    return folder


def test_batch_norms_of_all_are_those_of_the_first_when_the_network_is_used(out: Path) -> None:
    """Each has seen other pictures; what is validated by all must be what is saved by the first."""
    first, second = (json.loads((out / f"notes{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 4, "validated and saved after each of two epochs"
    for (own, used), (_, also_used) in zip(first, second, strict=True):
        assert own == used == also_used
    assert all(own != other for (own, _), (other, _) in zip(first[::2], second[::2], strict=True)), "or it cannot fail"
    saved = load_file(out / "whole" / "last.safetensors")
    means = [float(saved[name].double().sum()) for name in sorted(saved) if name.endswith("running_mean")]
    assert means == first[-1][1]


def test_going_on_the_first_looks_for_the_checkpoint_and_all_take_that(out: Path) -> None:
    """In the script, another one that looks itself fails; the whole run is gone through again from the first epoch."""
    once, again = (load_file(out / name / "last.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_step_in_which_one_process_has_no_picture(parallel: str, out: Path, gaps: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (out / parallel / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "unreadable"]
    assert {steps.count(step) for step in steps} == {1, 2}, "one process had none, and at times both"
    fit(with_gaps(gaps), tmp_path / "alone")
    alone, two = (load_file(folder / "last.safetensors") for folder in (tmp_path / "alone", out / parallel))
    for name, weight in alone.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4, msg=name)
