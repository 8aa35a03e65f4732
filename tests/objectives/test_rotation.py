"""Rotation: which way pictures are turned, how often, and the loss."""

import math

import pytest
import torch
from torch import nn

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.configs import RotationConfig
from birder.objectives.rotation import Rotation, turned
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses


def test_pictures_are_turned_pixel_by_pixel():
    images = torch.rand(4, 2, 5, 5)
    result = turned(images, torch.tensor([0, 1, 2, 3]))
    for row in range(5):
        for column in range(5):
            here = images[:, :, row, column]
            assert torch.equal(result[0, :, row, column], here[0])
            assert torch.equal(result[1, :, 4 - column, row], here[1])  # what was at the right is on top
            assert torch.equal(result[2, :, 4 - row, 4 - column], here[2])
            assert torch.equal(result[3, :, column, 4 - row], here[3])


def test_the_loss_is_the_cross_entropy_of_the_quarters():
    objective = Rotation(small_network(0), RotationConfig()).eval()
    images, quarters = torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 3, 1])
    losses = objective.losses(images, quarters)
    expected, right = 0.0, 0
    for image, quarter in zip(images, quarters.tolist(), strict=True):
        embedding = objective.network.embedding(image.rot90(quarter, (1, 2))[None])
        row = objective.head(embedding)[0].tolist()
        expected -= math.log(math.exp(row[quarter]) / sum(math.exp(value) for value in row)) / 4
        right += row.index(max(row)) == quarter
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["accuracy"].item() == right / 4


class Remembers(nn.Module):
    """Takes the place of the head's input to see what was turned how far."""

    def forward(self, embedding):
        self.embedding = embedding
        return torch.zeros(len(embedding), 4)


def test_all_four_ways_are_as_likely():
    """Three quarters of the pictures are turned; the corner of a picture with one bright corner tells how far."""
    network = small_network(0)
    network.embedding = lambda x: x[:, 0, [0, -1, -1, 0], [0, 0, -1, -1]]
    objective = Rotation(network, RotationConfig())
    objective.head = Remembers()
    images = torch.zeros(2000, 3, 32, 32)
    images[:, :, 0, 0] = 1.0
    batch = Batch(images=images, labels=torch.zeros(2000, dtype=torch.int64))
    objective(batch, 0.0)
    counts = objective.head.embedding.argmax(dim=1).bincount(minlength=4)
    assert counts.sum() == 2000
    assert all(abs(count - 500) < 5 * math.sqrt(2000 * 3 / 16) for count in counts.tolist())
    before = objective.head.embedding
    objective(batch, 0.0)
    assert not torch.equal(objective.head.embedding, before)


def test_pictures_that_are_not_square_are_refused():
    network = create_network("convnext_v2_atto", 0, size=(64, 96))
    with pytest.raises(ConfigError) as raised:
        Rotation(network, RotationConfig())
    assert str(raised.value) == (
        "rotation needs square pictures, which are as wide when they are turned; those of convnext_v2_atto are "
        "64 x 96: take a size such as 64 x 64"
    )


@pytest.mark.parametrize("network", [small_network, small_vit])
def test_it_keeps_the_promises_of_every_objective(network):
    check_objective("rotation", network=lambda: network(0))


def test_the_golden_losses_are_reproduced(root):
    expect_recorded_losses(root, "rotation", Rotation(small_vit(), RotationConfig()))
