"""BYOL: its loss against the paper's equations 2 and 3, and who gets gradients."""

import math

import pytest
import torch

from birder.objectives.base import Batch
from birder.objectives.byol import bootstrap_loss
from birder.objectives.configs import BYOLConfig
from birder.objectives.methods import create_objective
from birder.testing import check_objective, labelled_pictures, small_network


def squared_distance(a, b):
    """Of the directions, as in the paper."""
    one, other = ([value / math.hypot(*row) for value in row] for row in (a, b))
    return sum((x - y) ** 2 for x, y in zip(one, other, strict=True))


def test_the_loss_is_that_of_the_paper():
    predictions, targets = torch.randn(2, 5, 2, 6, dtype=torch.float64).unbind()
    losses = [
        squared_distance(predictions[picture, view].tolist(), targets[picture, 1 - view].tolist())
        for picture in range(5)
        for view in range(2)
    ]
    assert bootstrap_loss(predictions, targets).item() == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_it_is_0_where_each_view_tells_the_other_and_8_where_it_tells_the_opposite():
    targets = torch.randn(4, 2, 3, dtype=torch.float64)
    assert bootstrap_loss(2.0 * targets.flip(1), targets).item() == pytest.approx(0.0, abs=1e-12)
    assert bootstrap_loss(-targets.flip(1), targets).item() == pytest.approx(8.0)


def built():
    config = BYOLConfig(hidden=32, projection=16)
    return create_objective(config, small_network(0))


def test_the_predictor_learns_and_the_teacher_does_not():
    objective = built()
    objective(labelled_pictures(objective.network, objective.config.views), 0.0)["loss"].backward()
    reached = {name.split(".")[0] for name, weight in objective.named_parameters() if weight.grad is not None}
    assert reached == {"network", "head", "predictor"}
    assert objective.result is objective.network


def test_no_picture_is_compared_so_that_parts_add_up_to_the_whole():
    """But for batch norms, which are still in evaluation mode."""
    objective = built().eval()
    assert not objective.compares
    batch = labelled_pictures(objective.network, objective.config.views)
    whole = objective(batch, 0.0)["loss"].item()
    parts = [
        objective(Batch(images=batch.images[part], labels=batch.labels[part]), 0.0)["loss"].item() * share
        for part, share in ((slice(0, 2), 0.25), (slice(2, 8), 0.75))
    ]
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_it_keeps_the_promises_of_every_objective():
    check_objective("byol", hidden=32, projection=16)
