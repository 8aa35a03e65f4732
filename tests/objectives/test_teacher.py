"""Teachers: copies that do not learn, and moving averages."""

import math

import pytest
import torch
from torch import nn

from birder.objectives.configs import Data2Vec2Config, Data2VecConfig, IJEPAConfig
from birder.objectives.methods import create_objective
from birder.objectives.teacher import cosine_between, follow, frozen_copy, linear_between
from birder.testing import labelled_pictures, small_vit


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
    network.blocks()[1].drop_path_1.p = 0.5
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
