"""Patches and what is drawn of them: against loops in float64, and what all objectives that draw have in common."""

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.pixels import (
    PixelObjective,
    mean_of_hidden,
    patch_scale,
    to_images,
    to_patches,
    window_scale,
)
from birder.testing import small_network, small_vit


def double(*shape):
    return torch.randn(shape, dtype=torch.float64)


def test_a_patch_goes_row_by_row_column_by_column_and_channel_by_channel():
    images, patch = double(2, 3, 8, 12), 4
    patches = to_patches(images, patch)
    assert patches.shape == (2, 6, 48)
    for row in range(8):
        for column in range(12):
            place = row // patch * 3 + column // patch
            first = (row % patch * patch + column % patch) * 3
            assert torch.equal(patches[:, place, first : first + 3], images[:, :, row, column])
    assert torch.equal(to_images(patches, (2, 3), patch), images)


def test_the_scale_of_a_patch_is_that_of_its_numbers():
    images = 3.0 * double(2, 3, 8, 4) + 1.0
    mean, deviation = patch_scale(images, 4)
    for image in range(2):
        for place in range(2):
            numbers = images[image, :, 4 * place : 4 * place + 4].numpy()
            assert mean[image, place].item() == pytest.approx(numbers.mean(), abs=1e-12)
            assert deviation[image, place].item() == pytest.approx(np.sqrt(numbers.var(ddof=1) + 1e-6), abs=1e-12)


@pytest.mark.parametrize(("size", "window"), [((9, 7), 5), ((6, 11), 47), ((5, 5), 1)])
def test_the_scale_of_a_pixel_is_that_of_its_surroundings(size, window):
    images = 3.0 * double(2, 3, *size) + 1.0
    mean, deviation = window_scale(images, window)
    reach = window // 2
    for row in range(size[0]):
        for column in range(size[1]):
            around = images[:, :, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
            numbers = around.flatten(2).numpy()
            variance = numbers.var(axis=2, ddof=1) if window > 1 else np.zeros((2, 3))
            np.testing.assert_allclose(mean[:, :, row, column], numbers.mean(axis=2), atol=1e-12)
            np.testing.assert_allclose(deviation[:, :, row, column], np.sqrt(variance + 1e-6), atol=1e-9)


def test_a_picture_of_one_colour_has_a_scale():
    mean, deviation = window_scale(torch.full((1, 3, 64, 64), 2.6))
    assert torch.allclose(mean, torch.tensor(2.6))
    assert bool(torch.isfinite(deviation).all())
    assert deviation.min() >= 1e-3


def test_the_mean_is_over_the_hidden_of_a_picture_then_over_pictures():
    errors, mask = double(3, 5).abs(), torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]).bool()
    pictures = [np.mean([errors[i, k].item() for k in range(5) if mask[i, k]]) for i in range(3)]
    assert mean_of_hidden(errors, mask).item() == pytest.approx(np.mean(pictures), abs=1e-12)


class Draws(PixelObjective):
    """Something wrong by ``error`` in the units of the target."""

    wrong = 0.0

    def draw(self, images, mask):
        mean, deviation = self.scale(images)
        target = (to_patches(images, self.patch) - mean) / deviation
        return torch.where(mask.unsqueeze(-1), target + self.wrong, torch.nan)  # what is visible is not looked at

    def scale(self, images):
        return patch_scale(images, self.patch)


def test_what_is_drawn_right_has_no_loss_and_gives_the_picture():
    objective, images = Draws(small_vit(), 0.75), torch.randn(4, 3, 32, 32)
    mask = objective.masks(4)
    assert torch.equal(torch.where(mask, 0.0, 1.0).sum(dim=1), torch.full((4,), 16.0))
    drawn = torch.nan_to_num(objective.draw(images, mask))
    assert objective.error(drawn, images, mask).item() == pytest.approx(0.0, abs=1e-12)
    _, pictures = objective.eval().reconstruct(images)
    assert torch.allclose(pictures, images, atol=1e-5)


def test_what_is_drawn_wrong_is_wrong_where_it_was_hidden():
    objective, images = Draws(small_vit(), 0.75).eval(), torch.randn(4, 3, 32, 32)
    objective.wrong = 0.5
    mask, pictures = objective.reconstruct(images)
    difference = to_patches(pictures - images, 4)
    deviation = patch_scale(images, 4)[1]
    assert torch.equal(difference.abs().amax(dim=2) > 1e-6, mask)
    assert torch.allclose(difference[mask], (0.5 * deviation).expand_as(difference)[mask], atol=1e-5)
    drawn = torch.nan_to_num(objective.draw(images, mask))
    assert objective.error(drawn, images, mask).item() == pytest.approx(0.25, rel=1e-5)


def test_masks_are_random_in_training_and_the_same_in_evaluation():
    objective = Draws(small_vit(), 0.5)
    assert not torch.equal(objective.masks(4), objective.masks(4))
    before = torch.get_rng_state()
    assert torch.equal(objective.eval().masks(4), objective.masks(4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    mask = objective.train().masks(4)
    torch.manual_seed(1)
    assert torch.equal(objective.masks(4), mask)


def test_squares_are_hidden_as_a_whole():
    mask = Draws(small_vit(), 0.75, cell=2).masks(4).view(4, 4, 2, 4, 2)
    assert torch.equal(mask.all(dim=(2, 4)), mask.any(dim=(2, 4)))
    assert mask.all(dim=(2, 4)).sum(dim=(1, 2)).tolist() == [12] * 4


def test_some_parts_must_be_visible_and_some_hidden():
    with pytest.raises(ConfigError, match=r"0.6 leaves 0 visible of 1 x 1 squares of 32 pixels; .* larger pictures"):
        Draws(small_network(), 0.6)
    with pytest.raises(ConfigError, match=r"0\.99 leaves 0 visible of 8 x 8"):
        Draws(small_vit(), 0.99)
    with pytest.raises(ConfigError, match=r"1e-17 leaves 64 visible of 8 x 8"):
        Draws(small_vit(), 1e-17)
    with pytest.raises(ConfigError, match=r"0\.5 leaves 0 visible of 1 x 1 squares of 32 pixels"):
        Draws(small_vit(), 0.5, cell=8)


def test_patches_must_fit():
    with pytest.raises(
        ConfigError, match=r"patches of 32 pixels, which do not fit pictures of \(70, 96\); .*\(64, 96\)"
    ):
        Draws(create_network("convnext_v2_atto", 0, size=(70, 96)), 0.6)


def test_pictures_must_have_the_size_that_it_was_built_for():
    from birder.objectives.configs import SimMIMConfig
    from birder.objectives.simmim import SimMIM

    network = small_vit()
    objective = SimMIM(network, SimMIMConfig(cell=4))
    network.adjust_size((32, 36))
    batch = Batch(images=torch.randn(2, 3, 32, 36), labels=torch.zeros(2))
    with pytest.raises(ConfigError, match=r"hides parts of pictures of \(32, 32\), and these are of \(32, 36\)"):
        objective(batch, 0.0)
