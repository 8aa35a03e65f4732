"""Teachers: copies that do not learn, and moving averages."""

import pytest
import torch
from torch import nn

from birder.objectives.teacher import follow, frozen_copy


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
