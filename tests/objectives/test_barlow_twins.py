"""Barlow Twins: its loss against the correlations that numpy finds."""

import numpy as np
import pytest
import torch

from birder.objectives.barlow_twins import correlation_loss
from birder.objectives.configs import BarlowTwinsConfig
from birder.objectives.methods import create_objective
from birder.testing import check_objective, labelled_pictures, small_network


def correlations(first, second):
    """Of every dimension of one view with every one of the other, (N, D) each -> (D, D)."""
    width = first.shape[1]
    return np.corrcoef(first.numpy(), second.numpy(), rowvar=False)[:width, width:]


def paper(first, second, weight):
    matrix = correlations(first, second)
    width = len(matrix)
    return sum(
        (1.0 - matrix[i, j]) ** 2 if i == j else weight * matrix[i, j] ** 2 for i in range(width) for j in range(width)
    )


@pytest.mark.parametrize("shape", [(5, 9), (16, 4)])
@pytest.mark.parametrize("weight", [0.0, 0.0051, 1.0])
def test_the_loss_is_that_of_the_paper(shape, weight):
    first = torch.randn(shape, dtype=torch.float64)
    second = first + 0.5 * torch.randn(shape, dtype=torch.float64) + 2.0
    normed = [(view - view.mean(dim=0)) / view.std(dim=0, correction=0) for view in (first, second)]
    assert correlation_loss(*normed, weight).item() == pytest.approx(paper(first, second, weight), rel=1e-10)


def test_the_objective_norms_each_view_by_itself_and_counts_what_is_seen():
    config = BarlowTwinsConfig(projector=(12,), off_diagonal=0.1)
    objective = create_objective(config, small_network(0)).double()
    images = labelled_pictures(objective.network, config.views).images.double()
    images[:, 1] += images[:, 0] + 0.5
    batch = labelled_pictures(objective.network, config.views)
    loss = objective(type(batch)(images=images, labels=batch.labels), 0.0)["loss"].item()
    with torch.no_grad():
        first, second = (objective.head(objective.network.embedding(images[:, view])) for view in range(2))
    assert loss == pytest.approx(paper(first, second, 0.1), rel=1e-2)  # a batch norm adds 1e-5 to the variance
    assert objective.norm.num_batches_tracked == 2
    assert objective.compares


def test_in_evaluation_the_norm_keeps_what_it_has_learned():
    objective = create_objective(BarlowTwinsConfig(projector=(12,)), small_network(0)).eval()
    before = objective.norm.running_mean.clone()
    batch = labelled_pictures(objective.network, objective.config.views)
    assert objective(batch, 0.0)["loss"].isfinite()
    assert torch.equal(objective.norm.running_mean, before)


def test_it_keeps_the_promises_of_every_objective():
    check_objective("barlow_twins", projector=(32, 16))
