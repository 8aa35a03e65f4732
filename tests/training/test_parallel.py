"""Several real processes train as one does: the same losses, the same weights, and checkpoints that all can read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from birder.errors import ConfigError
from birder.training.machine import resolve
from birder.training.recipe import Recipe, Run
from tests.training.torchrun import finish, start

SCRIPT = Path(__file__).with_name("several.py")


def run(
    root: Path,
    state: Path,
    *,
    processes: int,
    network: str = "convnext_v2_atto",
    optimizer: str = "adamw",
    parallel: str = "ddp",
    steps: tuple[int, int] = (0, 20),
    size: int = 8,
) -> dict[str, Any]:
    """The script under torchrun; its result."""
    words = (SCRIPT, network, optimizer, parallel, state, *steps, size)
    result: dict[str, Any] = json.loads(finish(start(root, processes, *words)).splitlines()[-1])
    assert result["processes"] == processes
    return result


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(root, tmp_path_factory.mktemp("alone") / "state.pt", processes=1)


@pytest.fixture(scope="module")
def root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one(parallel: str, alone: dict[str, Any], root: Path, tmp_path: Path) -> None:
    two = run(root, tmp_path / "state.pt", processes=2, parallel=parallel)
    assert two["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    torch.testing.assert_close(torch.tensor(two["logits"]), torch.tensor(alone["logits"]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "optimizer", "parallel"), [("vit_t16", "adamw", "fsdp"), ("vit_t16", "sgd", "ddp")]
)
def test_so_are_others(network: str, optimizer: str, parallel: str, root: Path, tmp_path: Path) -> None:
    how = {"network": network, "optimizer": optimizer, "parallel": parallel}
    one, two = (run(root, tmp_path / f"{processes}.pt", processes=processes, **how) for processes in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_a_run_goes_on_with_another_number_of_processes(alone: dict[str, Any], root: Path, tmp_path: Path) -> None:
    """Two in parts, then one, then two with all weights each."""
    losses = []
    for processes, parallel, steps in ((2, "fsdp", (0, 7)), (1, "ddp", (7, 14)), (2, "ddp", (14, 20))):
        losses += run(root, tmp_path / "state.pt", processes=processes, parallel=parallel, steps=steps)["losses"]
    assert losses == pytest.approx(alone["losses"], rel=1e-5)


def test_processes_with_unequal_numbers_of_pictures_weigh_them_all_alike(root: Path, tmp_path: Path) -> None:
    """Five pictures: three here, two there, each in parts of one or two."""
    one, two = (run(root, tmp_path / f"{number}.pt", processes=number, steps=(0, 4), size=5) for number in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_what_does_not_go_together_is_refused() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match=r"batch_size: 2 pictures cannot be shared by 1 processes in 4 parts each"):
        resolve(Recipe(data="", batch_size=2, run=Run(accumulate=4)), cpu)
    with pytest.raises(ConfigError, match="sync_batch_norm: batch norms can be joined on GPUs only"):
        resolve(Recipe(data="", run=Run(sync_batch_norm=True)), cpu)
    with pytest.raises(ConfigError, match=r"float16 does not go with run\.parallel fsdp"):
        resolve(Recipe(data="", run=Run(parallel="fsdp", dtype="float16")), cpu)
