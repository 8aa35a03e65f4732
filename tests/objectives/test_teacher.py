"""Teachers: copies that do not learn, and moving averages."""

import logging
import math
import re

import pytest
import torch
from torch import nn

from birder.data.drawn import DrawnBirds, write_folder
from birder.objectives.configs import (
    BYOLConfig,
    Data2Vec2Config,
    Data2VecConfig,
    DINOConfig,
    IJEPAConfig,
    MMCRConfig,
    RotationConfig,
)
from birder.objectives.methods import create_objective
from birder.objectives.teacher import (
    MOST_LEFT,
    cosine_between,
    follow,
    frozen_copy,
    linear_between,
    share_of_start,
    warn_of_start,
)
from birder.testing import labelled_pictures, small_vit
from birder.training.fit import fit
from birder.training.recipe import Recipe, Run


def module():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_frozen_copy_stays_as_it_is():
    student = module()
    teacher = frozen_copy(student)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(part.training for part in teacher.modules())
    assert all(weight.requires_grad for weight in student.parameters())
    assert student.training
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    teacher(torch.randn(8, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("buffers", [False, True])
def test_following_is_a_moving_average(buffers):
    """Closed form, in float64: after k steps behind a student that stands still, 1 - momentum^k of the way is done."""
    student, teacher = module().double(), frozen_copy(module().double())
    student(torch.randn(8, 3).double())  # gives the norm statistics
    start = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    for _ in range(5):
        follow(teacher, student, 0.9, buffers=buffers)
    goal = student.state_dict()
    for name, tensor in teacher.state_dict().items():
        expected = start[name] + (1 - 0.9**5) * (goal[name] - start[name])
        if "num_batches" in name:
            expected = goal[name] if buffers else start[name]
        elif "running" in name and not buffers:
            expected = start[name]
        assert torch.allclose(tensor, expected, rtol=0, atol=1e-14), name


def test_momentum_0_copies_and_1_stays():
    student, teacher = module(), frozen_copy(module())
    before = teacher[0].weight.clone()
    follow(teacher, student, 1.0)
    assert torch.equal(teacher[0].weight, before)
    follow(teacher, student, 0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)
    assert teacher[0].weight.grad_fn is None


def test_another_structure_is_no_teacher():
    with pytest.raises(AssertionError, match="same parameters"):
        follow(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.9)


@pytest.mark.parametrize(("first", "last"), [(0.996, 1.0), (0.04, 0.07), (1.0, 0.0)])
def test_schedules_go_from_the_first_to_the_last(first, last):
    for schedule in (linear_between, cosine_between):
        assert schedule(first, last, 0.0) == first
        assert schedule(first, last, 1.0) == pytest.approx(last, rel=1e-15)
        assert schedule(first, last, 0.5) == pytest.approx((first + last) / 2, rel=1e-15)
    assert linear_between(first, last, 0.25) == pytest.approx(0.75 * first + 0.25 * last, rel=1e-15)
    # 1 - (1 - first) (cos(pi k / K) + 1) / 2 in the paper of BYOL, where the last is 1.
    expected = last - (last - first) * (math.cos(math.pi / 4) + 1) / 2
    assert cosine_between(first, last, 0.25) == pytest.approx(expected, rel=1e-15)


SELF_TAUGHT = [
    (Data2VecConfig(momentum=(0.9, 0.99)), cosine_between),
    (Data2Vec2Config(momentum=(0.9, 0.99), num_masks=2, decoder_depth=1, decoder_width=32), linear_between),
    (IJEPAConfig(momentum=(0.9, 0.99), predictor_depth=1, predictor_width=32, predictor_heads=2), linear_between),
]


@pytest.fixture(params=SELF_TAUGHT, ids=lambda param: param[0].name)
def self_taught(request):
    config, schedule = request.param
    network = small_vit()
    network.blocks()[1].drop_path_1.rate = 0.5
    return create_objective(config, network), schedule


def test_its_own_teacher_follows_by_the_schedule_of_the_objective(self_taught):
    """Closed form: behind a student that stands still, the product of the momenta of the way is left."""
    objective, schedule = self_taught
    objective.double()
    with torch.no_grad():
        for weight in objective.network.parameters():
            weight.add_(1.0)
    goal = objective.network.state_dict()
    start = {name: tensor.clone() for name, tensor in objective.result.state_dict().items()}
    left = 1.0
    for progress in (0.0, 0.25, 0.5, 1.0):
        objective.after_step(progress)
        left *= schedule(0.9, 0.99, progress)
    for name, tensor in objective.result.state_dict().items():
        assert torch.allclose(tensor, goal[name] + left * (start[name] - goal[name]), rtol=0, atol=1e-14), name


def test_its_own_teacher_is_the_result_drops_no_paths_and_gets_no_gradient(self_taught):
    objective, _ = self_taught
    assert objective.result is objective.teacher_network
    assert objective.train() is objective
    assert objective.network.training
    assert not any(part.training for part in objective.teacher_network.modules())
    weights = list(objective.teacher_network.parameters())
    objective(labelled_pictures(objective.network), 0.0)["loss"].backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)
    assert all(weight.grad is not None for weight in objective.network.encoder.parameters())


# How much of its first weights is left in a teacher.

TINY = {
    "data2vec": Data2VecConfig,
    "data2vec2": lambda **options: Data2Vec2Config(num_masks=2, decoder_depth=1, decoder_width=32, **options),
    "i_jepa": lambda **options: IJEPAConfig(predictor_depth=1, predictor_width=32, predictor_heads=2, **options),
    "dino": lambda **options: DINOConfig(prototypes=4, hidden=4, bottleneck=4, small_size=16, **options),
    "byol": lambda **options: BYOLConfig(projection=4, hidden=4, **options),
    "mmcr": lambda **options: MMCRConfig(projector=(4,), **options),
}


def with_teacher(name, **options):
    return create_objective(TINY[name](**options), small_vit())


def warning(objective, steps, caplog):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "birder"):
        warn_of_start(objective, steps)
    return " ".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", TINY)
def test_what_is_left_of_the_start_is_what_the_steps_leave(name):
    """Behind a student that stands still at 1, a teacher that starts at 0 ends at one minus that."""
    objective = with_teacher(name, **{} if name == "mmcr" else {"momentum": (0.8, 0.97)}).double()
    for network, value in ((objective.network, 1.0), (objective.teacher_network, 0.0)):
        for weight in network.parameters():
            nn.init.constant_(weight, value)
    for step in range(7):
        objective.after_step(step / 7)
    for weight in objective.teacher_network.parameters():
        assert weight.flatten()[0].item() == pytest.approx(1.0 - share_of_start(objective, 7), abs=1e-13)


@pytest.mark.parametrize(
    ("name", "steps", "share"), [("data2vec2", 600, 0.94), ("data2vec2", 6000, 0.53), ("data2vec", 600, 0.70)]
)
def test_a_short_run_leaves_most_of_the_start_and_is_warned_of_it(name, steps, share, caplog):
    objective = with_teacher(name)
    assert share_of_start(objective, steps) == pytest.approx(share, abs=0.005)
    text = warning(objective, steps, caplog)
    assert text.startswith("objective.momentum: the teacher, which is the network that is saved, follows so slowly")
    assert f"after the {steps} steps of this run {100 * share:.0f} % of it will be what it began with" in text


@pytest.mark.parametrize("name", ["data2vec", "data2vec2", "i_jepa", "dino"])
@pytest.mark.parametrize("steps", [1, 2, 5, 40, 600, 6000])
@pytest.mark.parametrize("momentum", [(0.9998, 0.99999), (1.0, 1.0), (0.9999, 0.9999)])
def test_the_momentum_that_the_warning_names_leaves_less(name, steps, momentum, caplog):
    text = warning(with_teacher(name, momentum=momentum), steps, caplog)
    first, last = re.search(r"momentum from (\S+) to (\S+), or with more steps, less than 5 %", text).groups()
    assert float(last) == momentum[1]
    better = with_teacher(name, momentum=(float(first), float(last)))
    assert share_of_start(better, steps) <= MOST_LEFT
    assert warning(better, steps, caplog) == ""


def test_what_leaves_the_network_itself_or_runs_long_needs_no_warning(caplog):
    assert warning(with_teacher("byol"), 10, caplog) == ""
    assert warning(with_teacher("mmcr"), 10, caplog) == ""
    assert warning(create_objective(RotationConfig(), small_vit()), 10, caplog) == ""
    assert warning(with_teacher("data2vec"), 100_000, caplog) == ""
    assert "82 %" in warning(with_teacher("dino"), 100, caplog)


def test_a_run_warns_of_it(tmp_path, caplog):
    write_folder(DrawnBirds(families=1, species=2, difficulty=0.1, size=(40, 40)), tmp_path / "data", 4)
    recipe = Recipe(
        data=str(tmp_path / "data"),
        network="vit_t16",
        network_options={"patch_size": 4, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16},
        size=(32,),
        epochs=1,
        batch_size=4,
        objective=Data2VecConfig(min_masked=4, top_layers=1),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    with caplog.at_level(logging.WARNING, "birder"):
        fit(recipe, tmp_path / "run")
    assert "after the 2 steps of this run 100 % of it will be what it began with" in caplog.text


# How many of its layers are learned from.


@pytest.mark.parametrize("name", ["data2vec", "data2vec2"])
def test_fewer_layers_than_asked_for_are_told_of(name, caplog):
    with caplog.at_level(logging.INFO, "birder"):
        with_teacher(name, top_layers=3)
        assert not caplog.records
        with_teacher(name, top_layers=4)
    assert "objective.top_layers: vit_t16 has 3 blocks, fewer than 4; all are taken" in caplog.text
