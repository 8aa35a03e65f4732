"""Each option of the training transform does what it says."""

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.augment import training_transform
from birder.training.recipe import Augment

PLAIN = {"min_scale": 1.0, "flip": 0.0, "policy": "none", "erase": 0.0}


def gradient(height=40, width=60):
    """Red grows to the right, green grows downwards."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = np.full_like(rows, 99)
    return Image.fromarray(np.stack([columns * 4, rows * 4, blue], axis=2).astype(np.uint8))


def apply(seed=0, size=(40, 60), **options):
    torch.manual_seed(seed)
    return training_transform(size, Augment(**{**PLAIN, **options}))(gradient())


def test_without_options_it_only_resizes():
    assert np.array_equal(apply().numpy(), np.array(gradient()).transpose(2, 0, 1))
    expected = gradient().resize((24, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(apply(size=(16, 24)).numpy(), np.array(expected).transpose(2, 0, 1))


def test_flip_mirrors_left_and_right():
    assert torch.equal(apply(flip=1.0), apply().flip(2))
    mirrored = sum(bool(apply(seed, flip=0.5)[0, 0, 0] > 100) for seed in range(200))
    assert 70 < mirrored < 130


def test_a_crop_keeps_at_least_the_asked_share():
    """The range of the gradient tells how much of the picture is left."""
    shares = []
    for seed in range(50):
        image = apply(seed, min_scale=0.3).float()
        shares.append(float((image[0].max() - image[0].min()) * (image[1].max() - image[1].min())) / (236 * 156))
    assert min(shares) > 0.24  # pixels have a width, and the gradient ends half a pixel from the edge
    assert min(shares) < 0.5
    assert max(shares) > 0.8


def test_erasing_blanks_a_rectangle():
    changed = (apply(erase=1.0) != apply()).any(dim=0)
    rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
    assert 0.02 <= changed.float().mean() <= 0.34
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].float().mean() > 0.95


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_policies_change_pictures_by_chance(policy):
    images = {apply(seed, policy=policy).numpy().tobytes() for seed in range(20)}
    assert len(images) > 10
    assert np.array_equal(apply(4, policy=policy), apply(4, policy=policy))


def test_magnitude_zero_is_gentler_than_thirty():
    def change(magnitude):
        options = {"policy": "randaugment", "magnitude": magnitude}
        return sum(float((apply(seed, **options).float() - apply().float()).abs().mean()) for seed in range(30))

    assert change(30) > 2 * change(0)
