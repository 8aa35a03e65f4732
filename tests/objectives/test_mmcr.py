"""MMCR: its loss against singular values found in another way, and what it does at the ends."""

import math

import numpy as np
import pytest
import torch

from birder.objectives.configs import MMCRConfig
from birder.objectives.methods import create_objective
from birder.objectives.mmcr import mmcr_loss, nuclear_norm
from birder.testing import check_objective, labelled_pictures, small_network


def double(*shape):
    return torch.randn(shape, dtype=torch.float64)


def by_eigenvalues(matrix):
    """Sum of the singular values, as the roots of the eigenvalues of the smaller Gram matrix, in numpy."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    return sum(math.sqrt(max(value, 0.0)) for value in np.linalg.eigvalsh(gram))


@pytest.mark.parametrize("shape", [(6, 2, 10), (12, 3, 5), (4, 4, 3)])
@pytest.mark.parametrize("local_weight", [0.0, 0.7])
def test_the_loss_is_that_of_the_paper(shape, local_weight):
    z, teacher = 3.0 * double(*shape), 0.1 * double(*shape)
    centroids, own = [], []
    for picture, others in zip(z.numpy(), teacher.numpy(), strict=True):
        rows = [row / math.sqrt(sum(row**2)) for row in picture]
        rows_of_teacher = [row / math.sqrt(sum(row**2)) for row in others]
        centroids.append(sum(rows + rows_of_teacher) / (2 * len(rows)))
        own.append(by_eigenvalues(np.array(rows)))
    expected = -by_eigenvalues(np.array(centroids)) + local_weight * sum(own) / len(own)
    assert mmcr_loss(z, teacher, local_weight).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("angle", [0.1, 1.0, math.pi / 2, 3.0])
def test_two_views_have_singular_values_that_follow_from_their_angle(angle):
    views = torch.tensor([[[1.0, 0.0, 0.0], [math.cos(angle), math.sin(angle), 0.0]]], dtype=torch.float64)
    expected = math.sqrt(1.0 + math.cos(angle)) + math.sqrt(1.0 - math.cos(angle))
    assert nuclear_norm(views).item() == pytest.approx(expected, rel=1e-12)


def test_different_pictures_of_equal_views_are_best_and_equal_pictures_worst():
    best = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 2, 6)
    assert mmcr_loss(best, best).item() == pytest.approx(-6.0)
    alike = torch.ones(6, 2, 6, dtype=torch.float64)
    assert mmcr_loss(alike, alike).item() == pytest.approx(-math.sqrt(6.0))
    opposite = torch.stack([best[:, 0], -best[:, 0]], dim=1)
    assert mmcr_loss(opposite, opposite).item() == pytest.approx(0.0)


def test_gradients_are_those_of_differences():
    z, teacher = double(4, 2, 5).requires_grad_(), double(4, 2, 5)
    assert torch.autograd.gradcheck(lambda rows: mmcr_loss(rows, teacher, 0.3), z)


def test_the_gradient_is_no_accident_where_singular_values_are_equal_or_0():
    """By the Gram matrix it would be infinite: there are 8 pictures, all alike."""
    matrix = torch.ones(8, 16).requires_grad_()
    nuclear_norm(matrix).backward()
    assert matrix.grad.isfinite().all()
    equal = torch.eye(8, 16).requires_grad_()
    nuclear_norm(equal).backward()
    torch.testing.assert_close(equal.grad, torch.eye(8, 16))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_hidden(value):
    """The training stops at it, and names the step and the pictures."""
    z = torch.randn(4, 2, 8)
    z[1, 0, 3] = value
    assert mmcr_loss(z, torch.randn(4, 2, 8), 0.1).isnan()


def test_the_views_of_a_picture_and_its_teacher_make_one_point():
    config = MMCRConfig(num_views=4, projector=(8,), local_weight=0.2)
    objective = create_objective(config, small_network(0))
    batch = labelled_pictures(objective.network, config.views)
    assert batch.images.shape[1] == 4
    z, teacher = objective.projections(batch.images)
    torch.testing.assert_close(z, teacher)  # it is a copy still
    assert objective(batch, 0.0)["loss"].item() == pytest.approx(mmcr_loss(z, teacher, 0.2).item(), rel=1e-6)
    assert objective.result is objective.network
    assert objective.compares


def test_it_keeps_the_promises_of_every_objective():
    check_objective("mmcr", num_views=3, projector=(32, 16), local_weight=0.1, momentum=0.9)
