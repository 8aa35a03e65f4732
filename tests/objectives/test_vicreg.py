"""VICReg: its terms against the paper's, from numpy's covariances in float64."""

import math

import numpy as np
import pytest
import torch

from birder.objectives.configs import VICRegConfig
from birder.objectives.methods import create_objective
from birder.objectives.vicreg import covariance, flatness, vicreg_terms
from birder.testing import check_objective, labelled_pictures, small_network


def flatness_of(rows):
    deviations = [math.sqrt(np.cov(column) + 1e-4) for column in rows.T]
    return sum(max(0.0, 1.0 - deviation) for deviation in deviations) / len(deviations)


def covariance_of(rows):
    matrix = np.cov(rows, rowvar=False)
    width = len(matrix)
    return sum(matrix[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width


@pytest.mark.parametrize("shape", [(5, 9), (16, 4), (2, 3)])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_the_terms_are_those_of_the_paper(shape, scale):
    first, second = (scale * torch.randn(shape, dtype=torch.float64) + 5.0 for _ in range(2))
    a, b = first.numpy(), second.numpy()
    distances = [sum((x - y) ** 2) for x, y in zip(a, b, strict=True)]
    expected = {
        "invariance": sum(distances) / shape[0] / shape[1],
        "variance": (flatness_of(a) + flatness_of(b)) / 2,
        "covariance": covariance_of(a) + covariance_of(b),
    }
    terms = {name: term.item() for name, term in vicreg_terms(first, second).items()}
    assert terms == pytest.approx(expected, rel=1e-10)


def test_pictures_that_are_all_alike_still_have_a_gradient():
    rows = torch.ones(4, 3, requires_grad=True)
    assert flatness(rows).item() == pytest.approx(0.99)
    assert covariance(rows).item() == 0.0
    (flatness(rows) + covariance(rows)).backward()
    assert rows.grad.isfinite().all()


def test_the_loss_is_the_weighted_sum_and_the_terms_are_shown():
    config = VICRegConfig(projector=(12,), invariance=3.0, variance=5.0, covariance=7.0)
    objective = create_objective(config, small_network(0))
    losses = objective(labelled_pictures(objective.network, config.views), 0.0)
    terms = {name: losses[name].item() for name in ("invariance", "variance", "covariance")}
    assert all(term > 0.0 for term in terms.values())
    expected = 3.0 * terms["invariance"] + 5.0 * terms["variance"] + 7.0 * terms["covariance"]
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert objective.compares


def test_it_keeps_the_promises_of_every_objective():
    check_objective("vicreg", projector=(32, 16))
