"""SimMIM: the loss against loops in float64, what is hidden from whom, and every network."""

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.configs import SimMIMConfig
from birder.objectives.simmim import SimMIM
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses
from tests.objectives.test_fcmae import small as staged


def simmim(network=None, **options):
    return SimMIM(network or small_vit(), SimMIMConfig(**{"cell": 8} | options))


def surroundings(images, row, column):
    """Mean and deviation of 47 x 47 pixels, as far as they are there."""
    around = images[:, :, max(row - 23, 0) : row + 24, max(column - 23, 0) : column + 24].flatten(2).numpy()
    return around.mean(axis=2), np.sqrt(around.var(axis=2, ddof=1) + 1e-6)


@pytest.mark.parametrize(("network", "stride"), [(small_vit, 4), (staged, 32)])
def test_the_loss_is_the_mean_difference_over_the_hidden_patches(network, stride):
    objective = simmim(network()).double().eval()
    height, width = objective.size
    images, mask = 2.0 * torch.randn(2, 3, height, width, dtype=torch.float64) + 1.0, objective.masks(2)
    drawn = objective.draw(images, mask).detach().numpy()
    columns = width // stride
    sums, counts = np.zeros(2), np.zeros(2)
    for row in range(height):
        for column in range(width):
            mean, deviation = surroundings(images, row, column)
            target = (images[:, :, row, column].numpy() - mean) / deviation
            place = row // stride * columns + column // stride
            first = (row % stride * stride + column % stride) * 3
            difference = np.abs(drawn[:, place, first : first + 3] - target).sum(axis=1)
            sums += difference * mask[:, place].numpy()
            counts += 3 * mask[:, place].numpy()
    assert objective.loss(images, mask).item() == pytest.approx((sums / counts).mean(), rel=1e-9)


@pytest.mark.parametrize("network", [small_vit, staged, lambda: staged("pvt_v2_b0"), lambda: staged("regnet_y_200m")])
def test_hidden_squares_are_not_seen(network):
    """But through the stem of overlapping patches, which is why they are hidden far from the border of a square."""
    objective = simmim(network()).eval()
    (height, width), patch = objective.size, objective.patch
    images, mask = torch.randn(2, 3, height, width), objective.masks(2)
    drawn = objective.draw(images, mask)
    assert drawn.shape == (2, mask.shape[1], 3 * patch**2)
    inside = torch.zeros(patch, patch, dtype=torch.bool)
    border = 3 if patch > 4 else 0
    inside[border : patch - border, border : patch - border] = True
    hidden = mask.view(2, 1, *objective.grid).repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
    hidden &= inside.repeat(objective.grid)
    assert torch.equal(objective.draw(torch.where(hidden, 100.0, images), mask), drawn)
    assert not torch.equal(objective.draw(torch.where(hidden, images, -images), mask), drawn)


@pytest.mark.parametrize(
    ("stride", "cell", "side"), [(4, 8, 2), (4, 32, 8), (4, 1, 1), (4, 10, 2), (4, 15, 4), (32, 32, 1), (32, 8, 1)]
)
def test_squares_are_whole_patches(stride, cell, side):
    network = small_vit() if stride == 4 else staged()
    network.adjust_size((128, 128))
    assert simmim(network, cell=cell).cell == side


def test_squares_at_the_border_may_be_cut_off():
    network = small_vit()
    network.adjust_size((36, 36))  # 9 x 9 patches, in squares of 2 x 2
    objective = simmim(network).eval()
    mask = objective.masks(16)
    assert len(set(mask.sum(dim=1).tolist())) > 1
    images = torch.randn(16, 3, 36, 36)
    each = [objective.loss(images[i : i + 1], mask[i : i + 1]).item() for i in range(16)]
    assert objective.loss(images, mask).item() == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("network", [small_vit, staged])
def test_it_keeps_the_promises_of_every_objective(network):
    check_objective("simmim", network=network, cell=8)


def test_bad_input_is_told():
    class Plain(type(small_network(0))):
        encode_masked = None

    network = small_network(0)
    network.__class__ = Plain
    with pytest.raises(ConfigError, match=r"simmim needs a network that can mask tokens; convnext_v2_atto cannot\. .*"):
        simmim(network)
    with pytest.raises(ConfigError, match=r"mask_ratio: 0\.6 leaves 0 visible of 1 x 1 squares of 32 pixels"):
        simmim(small_network(0))


def test_the_recorded_losses_are_reproduced(root):
    expect_recorded_losses(root, "simmim", simmim(create_network("vit_t16", 0, size=(32, 32), **{
        "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "drop_path_rate": 0.0
    })))  # fmt: skip
