"""Objectives that compare views: what they have in common, alone and in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives import barlow_twins, simclr, vicreg
from birder.objectives.base import Batch, Objective
from birder.objectives.methods import create_objective, objectives
from birder.objectives.views import Followed, projected, projected_in_turn, squares_off_diagonal
from birder.testing import labelled_pictures, small_network
from tests.objectives.curves import expect_recorded_losses

OPTIONS: dict[str, dict[str, Any]] = {
    "mmcr": {"num_views": 3, "projector": (32, 16), "local_weight": 0.1, "momentum": 0.9},
    "simclr": {"projection": 16},
    "byol": {"hidden": 32, "projection": 16, "momentum": (0.9, 1.0)},
    "barlow_twins": {"projector": (32, 16)},
    "vicreg": {"projector": (32, 16)},
}


LEARNING_RATES = {"barlow_twins": 0.002}
"""Where 0.02 is so much for pictures of noise that even the last bits of doubles count after twenty steps."""


def build(name: str) -> Objective:
    return create_objective(objectives[name][1](**OPTIONS[name]), small_network(0))


def some_pictures(objective: Objective, number: int = 8) -> Batch:
    batch = labelled_pictures(objective.network, objective.config.views)
    return Batch(images=batch.images[:number], labels=batch.labels[:number])


@pytest.mark.parametrize("name", OPTIONS)
def test_the_recorded_losses_are_reproduced(name: str, root: Path) -> None:
    expect_recorded_losses(root, name, build(name), LEARNING_RATES.get(name, 0.02))


@pytest.mark.parametrize("name", ["mmcr", "simclr", "byol"])
@pytest.mark.parametrize("training", [True, False])
def test_one_picture_says_little_but_is_no_accident(name: str, training: bool) -> None:
    objective = build(name).train(training)
    loss = objective(some_pictures(objective, 1), 0.0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in objective.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
@pytest.mark.parametrize("training", [True, False])
def test_what_needs_two_pictures_says_so(name: str, training: bool) -> None:
    objective = build(name).train(training)
    message = (
        f"^{name} compares pictures: every process needs 2 or more in every step, and this one has 1. Take a larger"
    )
    with pytest.raises(ConfigError, match=message):
        objective(some_pictures(objective, 1), 0.0)


LOSSES = {
    "simclr": (simclr, "contrastive_loss"),
    "barlow_twins": (barlow_twins, "correlation_loss"),
    "vicreg": (vicreg, "vicreg_terms"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_itself_is_computed_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of the rows would be rounded to three digits under autocast."""
    module, function = LOSSES[name]
    loss_of, given = getattr(module, function), []

    def spy(*arguments: Any) -> Any:
        given.append(arguments)
        return loss_of(*arguments)

    monkeypatch.setattr(module, function, spy)
    objective = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(some_pictures(objective), 0.0)
    assert all(rows.dtype == torch.float32 for rows in given[0] if isinstance(rows, torch.Tensor))
    expected = loss_of(*given[0])
    if name == "vicreg":
        assert losses["covariance"].item() == expected["covariance"].item()
    else:
        assert losses["loss"].item() == expected.item()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (4, 1)])
def test_the_squares_off_the_diagonal_are_summed(shape: tuple[int, int]) -> None:
    a, b = torch.randn(2, *shape, dtype=torch.float64).unbind()
    product = [[float((a[:, i] * b[:, j]).sum()) for j in range(shape[1])] for i in range(shape[1])]
    expected = sum(value**2 for i, row in enumerate(product) for j, value in enumerate(row) if i != j)
    assert squares_off_diagonal(a, b).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", [(32, 512), (512, 512), (2048, 64)])
def test_in_float32_they_have_five_digits(shape: tuple[int, int]) -> None:
    a = torch.randn(shape)
    a = a - a.mean(dim=0)
    exact = squares_off_diagonal(a.double(), a.double()).item()
    assert squares_off_diagonal(a, a).item() == pytest.approx(exact, rel=1e-5)


def test_views_are_rows_of_their_picture() -> None:
    network, head = small_network(0).eval(), nn.Linear(24, 3)
    images = torch.randn(4, 3, 3, 32, 32)
    rows = projected(network, head, images)
    assert rows.shape == (4, 3, 3)
    for picture in range(4):
        for view in range(3):
            single = head(network.embedding(images[picture, view][None]))[0]
            torch.testing.assert_close(rows[picture, view], single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(projected_in_turn(network, head, images), rows, rtol=1e-4, atol=1e-5)


def test_batch_norms_see_all_views_or_one_at_a_time() -> None:
    network, images = small_network(0), torch.randn(6, 2, 3, 32, 32)
    norm = nn.BatchNorm1d(24, affine=False)
    together = projected(network, norm, images).detach()
    in_turn = projected_in_turn(network, norm, images).detach()
    torch.testing.assert_close(together.mean(dim=(0, 1)), torch.zeros(24), rtol=0, atol=1e-5)
    torch.testing.assert_close(in_turn.mean(dim=0), torch.zeros(2, 24), rtol=0, atol=1e-5)
    assert together.mean(dim=0).abs().max() > 0.01


@pytest.mark.parametrize("name", ["mmcr", "byol"])
def test_a_teacher_has_norms_in_training_mode_and_drops_no_paths(name: str) -> None:
    options = {"in_channels": (8, 8, 16, 24), "num_layers": (1, 1, 1, 1), "drop_path_rate": 0.9}
    network = create_network("convnext_v2_atto", 0, size=(32, 32), **options)
    objective = create_objective(objectives[name][1](**OPTIONS[name]), network)
    assert isinstance(objective, Followed)
    norms = [module for module in objective.teacher_head.modules() if isinstance(module, nn.BatchNorm1d)]
    assert norms
    images = some_pictures(objective).images
    (first, teacher), (second, again) = (objective.projections(images) for _ in range(2))
    assert not torch.equal(first, second)  # whose paths are dropped
    assert torch.equal(teacher, again)
    assert teacher.requires_grad is False
    assert all(norm.training and norm.num_batches_tracked == 2 for norm in norms)
    objective.eval()
    objective.projections(images)
    assert all(norm.num_batches_tracked == 2 for norm in norms)


@pytest.mark.parametrize(("name", "momentum"), [("mmcr", 0.9), ("byol", 0.95)])
def test_the_teacher_follows_with_its_weights_only(name: str, momentum: float) -> None:
    """BYOL's momentum goes from 0.9 to 1, and is half-way there in the middle of the run."""
    objective = build(name)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    with torch.no_grad():
        for key, tensor in objective.state_dict().items():
            if key.startswith(("network", "head")) and tensor.is_floating_point():
                tensor.add_(1.0)
    objective.after_step(0.5)
    followed = 0
    for key, tensor in objective.state_dict().items():
        if key.startswith("teacher"):
            moved = "running" not in key and "tracked" not in key
            expected = before[key] + (1.0 - momentum) * moved
            torch.testing.assert_close(tensor, expected, check_dtype=False)
            followed += moved
    students = [name for name, _ in objective.named_parameters() if name.startswith(("network", "head"))]
    assert followed == len(students)


def test_processes_are_one(root: Path) -> None:
    """Losses, gradients and states; also with unequal numbers of pictures, with none at all, and weights in parts."""
    cases = [["ddp", [4, 2]], ["ddp", [0, 6]], ["fsdp", [4, 2]]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += [str(Path(__file__).with_name("together.py")), json.dumps(cases)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["processes"] == 2
    assert len(result["distances"]) == 4 * len(cases)
    assert max(result["distances"].values()) < 1e-9, result["distances"]
