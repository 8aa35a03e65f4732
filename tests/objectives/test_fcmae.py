"""FCMAE: what is drawn and the loss, step by step, and what is hidden from whom."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.configs import FCMAEConfig
from birder.objectives.fcmae import FCMAE
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses

NETWORKS = {
    "convnext_v2_atto": {"in_channels": (8, 8, 16, 24), "num_layers": (1, 1, 1, 1)},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 20, 32), "mlp_ratios": (2.0, 2.0, 2.0, 2.0)},
    "regnet_y_200m": {"depth": 6, "w_0": 8, "w_a": 8.0, "w_m": 2.0},
}


def small(name="convnext_v2_atto"):
    return create_network(name, 0, size=(64, 96), **NETWORKS[name])


def fcmae(network=None, **options):
    return FCMAE(network or small(), FCMAEConfig(**{"decoder_width": 16} | options))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_position_draws_its_square(name):
    objective = fcmae(small(name)).double().eval()
    images, mask = torch.randn(2, 3, 64, 96, dtype=torch.float64), objective.masks(2)
    assert mask.sum(dim=1).tolist() == [4, 4]
    features = objective.network.encode_masked(images, mask.double(), None)
    x = F.conv2d(features, objective.embed.weight, objective.embed.bias)
    for image, place in mask.nonzero().tolist():
        x[image, :, place // 3, place % 3] = objective.mask_token.flatten()
    x = objective.decoder(x)
    drawn = objective.draw(images, mask)
    assert drawn.shape == (2, 6, 32 * 32 * 3)
    for place in range(6):
        pixels = objective.pixels(x[:, :, place // 3, place % 3])
        torch.testing.assert_close(drawn[:, place], pixels, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_loss_is_the_mean_square_over_the_hidden_squares(normalized):
    objective = fcmae(normalized_targets=normalized).double().eval()
    images, mask = 2.0 * torch.randn(2, 3, 64, 96, dtype=torch.float64) + 1.0, objective.masks(2)
    drawn = objective.draw(images, mask).detach().numpy()
    errors = []
    for image, place in mask.nonzero().tolist():
        row, column = 32 * (place // 3), 32 * (place % 3)
        square = images[image, :, row : row + 32, column : column + 32].permute(1, 2, 0).numpy().ravel()
        if normalized:
            square = (square - square.mean()) / np.sqrt(square.var(ddof=1) + 1e-6)
        errors.append(np.mean((drawn[image, place] - square) ** 2))
    assert objective.loss(images, mask).item() == pytest.approx(np.mean(errors), rel=1e-12)


def test_hidden_squares_are_not_seen():
    objective = fcmae().eval()
    images, mask = torch.randn(2, 3, 64, 96), objective.masks(2)
    hidden = mask.view(2, 1, 2, 3).repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)
    drawn = objective.draw(images, mask)
    assert torch.equal(objective.draw(torch.where(hidden, 100.0, images), mask), drawn)
    assert not torch.equal(objective.draw(torch.where(hidden, images, -images), mask), drawn)


def test_it_keeps_the_promises_of_every_objective():
    check_objective("fcmae", network=small, decoder_width=16)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "regnet_y_200m"])  # which have no weights behind the last map
def test_gradients_reach_everything(name):
    objective = fcmae(small(name))
    objective.loss(torch.randn(4, 3, 64, 96), objective.masks(4)).backward()
    assert all(weight.grad is not None for weight in objective.parameters())


def test_bad_input_is_told():
    with pytest.raises(ConfigError, match=r"fcmae needs a network that can mask .*; vit_t16 cannot\. .*convnext_v2_"):
        fcmae(small_vit())
    with pytest.raises(ConfigError, match=r"mask_ratio: 0\.6 leaves 0 visible of 1 x 1 squares of 32 pixels"):
        fcmae(small_network(0))
    with pytest.raises(ConfigError, match="RegNet for a decoder needs a multiple of 64 channels, not 100"):
        fcmae(small("regnet_y_200m"), decoder_width=100)
    with pytest.raises(ConfigError, match="PVT v2 for a decoder needs a multiple of 8 channels, not 100"):
        fcmae(small("pvt_v2_b0"), decoder_width=100)


def test_the_recorded_losses_are_reproduced(root):
    expect_recorded_losses(root, "fcmae", fcmae())
