"""What DINO and iBOT share: the head, the centre, temperatures, the loss of pictures; and several processes."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.configs import DINOConfig, SelfSorting
from birder.objectives.dino import DINO
from birder.objectives.prototypes import Center, Head, alike, entropy, temperature
from birder.testing import labelled_pictures, small_network, small_vit

SCRIPT = Path(__file__).with_name("sorted_together.py")
SMALL: dict[str, Any] = {"prototypes": 24, "hidden": 32, "bottleneck": 8, "small_views": 2, "small_size": 16}


def stepped(objective: DINO, batch: Batch, progress: float, parts: int = 1, decay: float = 0.0) -> None:
    """One move of the weights, the batch cut into parts."""
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=decay)
    optimizer.zero_grad()
    assert batch.small is not None
    pieces = [tensor.tensor_split(parts) for tensor in (batch.images, batch.small, batch.labels)]
    for images, small, labels in zip(*pieces, strict=True):
        objective(Batch(images=images, small=small, labels=labels), progress)["loss"].backward()
    optimizer.step()
    objective.after_step(progress)


def dino(**options: Any) -> tuple[DINO, Batch]:
    torch.manual_seed(3)
    objective = DINO(small_vit(), DINOConfig(**(SMALL | options))).train()
    return objective, labelled_pictures(objective.network, objective.config.views)


@pytest.mark.parametrize(("large", "crops"), [(2, 2), (2, 5), (1, 3)])
def test_the_loss_of_pictures_is_that_of_a_loop_over_all_pairs(large: int, crops: int) -> None:
    generator = np.random.default_rng(1)
    student, teacher = generator.normal(size=(crops, 4, 7)), generator.normal(size=(large, 4, 7))
    total, pairs = 0.0, 0
    for seen in range(large):
        for told in range(crops):
            if told == seen:
                continue
            pairs += 1
            for picture in range(4):
                said, answer = (np.exp(logits[picture]) for logits in (teacher[seen], student[told]))
                total -= sum(said / said.sum() * np.log(answer / answer.sum()))
    loss = alike(torch.from_numpy(student).log_softmax(2), torch.from_numpy(teacher).softmax(2))
    assert loss.item() == pytest.approx(total / pairs / 4, rel=1e-13)


def test_entropy_tells_both_ways_to_collapse() -> None:
    one_kind, no_kind = torch.eye(8)[:3], torch.full((2, 5, 8), 1 / 8)
    assert entropy(one_kind).item() == 0.0
    assert entropy(no_kind).item() == pytest.approx(math.log(8), rel=1e-6)


def test_temperatures_rise_on_a_line_and_stay() -> None:
    """As in the papers, where epoch e of the warm-up has entry e of so many from the first to the second."""
    steps = np.linspace(0.04, 0.07, 5)
    expected = [0.04, 0.04, *steps, *[0.07] * 13]
    limits, later = (0.04, 0.07), 2 / 20
    found = [temperature(limits, epoch / 20, 4 / 20, later) for epoch in range(20)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert temperature(limits, 0.02, 0.1) == pytest.approx(0.046)
    assert temperature(limits, 0.0, 0.0) == 0.07
    assert temperature((0.07, 0.04), 0.5, 1.0) == pytest.approx(0.055)


def test_the_centre_is_taken_away_and_the_rest_sharpened() -> None:
    center = Center(3, 0.9)
    center.value.copy_(torch.tensor([0.5, 0.0, -0.5]))
    judged = center.judged(torch.tensor([[0.6, 0.0, -0.5]]), 0.1)
    expected = np.exp([1.0, 0.0, 0.0])
    assert judged.numpy()[0] == pytest.approx(expected / expected.sum(), rel=1e-6)


def test_the_centre_is_a_moving_average_over_steps_of_any_number_of_parts() -> None:
    """Closed form: after k steps with means m_1 … m_k it is the sum of 0.1 * 0.9^(k-i) m_i."""
    center, generator, means = Center(4, 0.9).double(), torch.Generator().manual_seed(2), []
    for step in range(4):
        logits = torch.randn(7, 4, generator=generator, dtype=torch.float64)
        before = center.value.clone()
        for part in logits.tensor_split(step + 1):
            center.collect(part.mean(dim=0), len(part))
            assert torch.equal(center.value, before)
        center.move()
        means.append(logits.numpy().mean(axis=0))
    expected = sum(0.1 * 0.9 ** (3 - number) * mean for number, mean in enumerate(means))
    assert center.value.numpy() == pytest.approx(expected, rel=1e-12)
    assert center.state_dict().keys() == {"value"}
    assert not center.total.any() and not center.count
    before = center.value.clone()
    center.move()  # a step without pictures
    assert torch.equal(center.value, before)


def test_prototypes_have_length_1_and_their_mean_nearness_is_that_of_all_points() -> None:
    head = Head(6, SelfSorting(name="", hidden=8, bottleneck=4), 5, 3)
    points = head(torch.randn(9, 6))
    torch.testing.assert_close(points.norm(dim=1), torch.ones(9))
    for which, kinds in enumerate((5, 3)):
        torch.testing.assert_close(head.prototypes(which).norm(dim=1), torch.ones(kinds))
        torch.testing.assert_close(head.mean_nearness(points, which), head.nearness(points, which).mean(dim=0))
        assert head.nearness(points, which).abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(("depth", "norms", "kinds"), [(1, False, "L"), (2, True, "LBGL"), (3, False, "LGLGL")])
def test_the_head_has_the_layers_that_are_asked_for(depth: int, norms: bool, kinds: str) -> None:
    head = Head(6, SelfSorting(name="", hidden=8, bottleneck=4, head_depth=depth, head_batch_norm=norms), 5)
    assert "".join(type(layer).__name__[0] for layer in head.mlp) == kinds
    assert head.mlp[-1].out_features == 4


def test_the_last_layer_is_held_for_the_first_share_of_the_run() -> None:
    """To the last bit, though the optimiser lets weights decay; all else learns."""
    objective, batch = dino(hold_last=0.3)
    last = objective.head.prototypes
    start, body = last().detach().clone(), objective.head.mlp[0].weight.detach().clone()
    for step in range(3):
        stepped(objective, batch, step / 10, decay=0.5)
        assert torch.equal(last(), start)
        assert objective.head.last[0].get_parameter("parametrizations.weight.original1").grad is None
    assert not torch.equal(objective.head.mlp[0].weight, body)
    stepped(objective, batch, 0.3, decay=0.5)
    assert not torch.equal(last(), start)
    torch.testing.assert_close(last().norm(dim=1), torch.ones(24))


def test_a_step_in_parts_moves_the_centre_as_a_whole_one() -> None:
    whole, batch = dino()
    parts, _ = dino()
    stepped(whole, batch, 0.0)
    stepped(parts, batch, 0.0, parts=3)
    assert whole.center.value.any()
    torch.testing.assert_close(parts.center.value, whole.center.value, rtol=1e-5, atol=1e-7)


def test_what_does_not_count_leaves_the_centre_alone() -> None:
    objective, batch = dino()
    blank = Batch(images=batch.images, small=batch.small, labels=batch.labels, blank=True)
    objective(blank, 0.0)
    objective.eval()
    objective(batch, 0.0)
    objective.after_step(0.0)
    assert not objective.center.value.any()


def test_the_teacher_follows_on_a_cosine_and_is_what_is_left() -> None:
    objective, batch = dino(momentum=(0.9, 1.0))
    name = "encoder.block.0.mlp.0.weight"
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95)):
        before = objective.teacher_network.get_parameter(name).clone()
        stepped(objective, batch, progress)
        expected = momentum * before + (1 - momentum) * objective.network.get_parameter(name)
        torch.testing.assert_close(objective.teacher_network.get_parameter(name), expected)
    assert objective.result is objective.teacher_network
    assert not any(weight.requires_grad for weight in objective.teacher_head.parameters())


def test_the_network_that_is_left_is_as_it_was_made() -> None:
    objective, _ = dino()
    assert not objective.result.dynamic_size
    assert objective.result.size == (32, 32)
    assert not dino(small_views=0)[0].network.dynamic_size


def test_batch_norms_of_the_teacher_see_the_step_and_nothing_is_dropped() -> None:
    network = create_network(
        "vit_t16", 0, size=(32, 32), num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, dropout=0.5
    )
    objective = DINO(network, DINOConfig(**SMALL, head_batch_norm=True)).train()
    training = {type(part).__name__ for part in objective.teacher_head.modules() if part.training}
    assert training == {"BatchNorm1d"}
    assert not any(part.training for part in objective.teacher_network.modules())
    assert any(part.training for part in objective.network.modules())


def test_small_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^small_size: size must be multiples of the patch size 4, .*not \(18, 18\)"):
        DINO(small_vit(), DINOConfig(**(SMALL | {"small_size": 18})))
    with pytest.raises(ConfigError, match=r"^small_size: size must be \(height, width\), 32 pixels or more"):
        DINO(small_network(0), DINOConfig(**SMALL))


def together(root: Path, parallel: str) -> dict[str, Any]:
    """The script in two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [sys.executable, *torchrun, "--master-port", port, str(SCRIPT), parallel]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_sort_as_one(parallel: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from sorted_together import results

    two = together(root, parallel)
    for kind, found in two.items():
        alone = results(kind)
        assert found.keys() == alone.keys()
        for name, values in alone.items():
            assert found[name] == pytest.approx(values, rel=1e-5, abs=1e-6), f"{name} of {kind}"
            assert np.abs(values).max() > 1e-3
