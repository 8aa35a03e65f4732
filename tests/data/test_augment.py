"""Each option of the training transform does what it says."""

import pickle
import typing
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from birder.data.augment import (
    Drawn,
    Several,
    Views,
    crop_scale,
    erase_probability,
    level_operations,
    training_transform,
)
from birder.training.recipe import Augment

NAMES = set(typing.get_args(typing.get_args(typing.get_type_hints(Augment)["policy"])[0]))

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


LEVELS = range(1, 11)
POLICIES = [*(("birder", level) for level in range(11)), *((name, 4) for name in sorted(NAMES - {"birder"}))]


def drawn(policy, level=4, seeds=range(20), **options):
    """What some seeds make of a picture, with the crop, the flip and the erasing of the policy."""
    results = []
    for seed in seeds:
        torch.manual_seed(seed)
        transform = training_transform((40, 60), Augment(policy=policy, level=level, **options))
        results.append(transform(gradient()))
    return results


@pytest.mark.parametrize(("policy", "level"), POLICIES)
def test_every_policy_gives_bytes_that_its_seed_decides(policy, level):
    images = drawn(policy, level)
    assert {(image.shape, image.dtype) for image in images} == {((3, 40, 60), torch.uint8)}
    assert all(torch.equal(one, other) for one, other in zip(images, drawn(policy, level), strict=True))
    kinds = len({image.numpy().tobytes() for image in images})
    assert kinds == 1 if (policy, level) == ("birder", 0) else kinds > 15


@pytest.mark.parametrize(("policy", "level"), POLICIES)
def test_transforms_can_be_sent_to_other_processes(policy, level):
    transform = training_transform((40, 60), Augment(policy=policy, level=level, grayscale=True))
    copied = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(1)
    image = transform(gradient())
    torch.manual_seed(1)
    assert torch.equal(copied(gradient()), image)


def test_what_is_left_to_the_policy():
    """The table of the published models; those that were here before keep what they had."""
    scales = {policy: crop_scale(Augment(policy=policy)) for policy in NAMES - {"birder"}}
    assert scales == {
        "none": 0.35,
        "randaugment": 0.35,
        "trivialaugment": 0.35,
        "autoaugment": 0.08,
        "augmix": 0.08,
        "3augment": 0.08,
        "clip": 0.8,
    }
    levels = [Augment(policy="birder", level=level) for level in range(11)]
    assert [round(crop_scale(options), 9) for options in levels] == [
        1.0, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3
    ]  # fmt: skip
    assert [round(erase_probability(options), 9) for options in levels] == [0.0, *[0.25] * 8, 0.3, 0.35]
    assert {erase_probability(Augment(policy=policy)) for policy in NAMES - {"birder"}} == {0.0}
    chosen = Augment(policy="birder", level=9, min_scale=0.5, erase=0.1)
    assert (crop_scale(chosen), erase_probability(chosen)) == (0.5, 0.1)


def test_level_0_only_resizes():
    options = Augment(policy="birder", level=0, flip=1.0, erase=1.0, min_scale=0.1)
    expected = gradient().resize((24, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(
        training_transform((16, 24), options)(gradient()).numpy(), np.array(expected).transpose(2, 0, 1)
    )


def test_clip_never_mirrors():
    images = drawn("clip", seeds=range(50), flip=1.0, min_scale=1.0)
    assert all(image[0, :, :10].float().mean() < image[0, :, -10:].float().mean() for image in images)


def bounds(level):
    """The table of the published models: name of a parameter -> lowest and highest value, for each change in turn."""
    colour, light, hue = 0.05 + 0.025 * level, 0.2 + 0.0125 * level, max(0.0, 0.0125 * level - 0.025)
    changes = [
        {},
        {"angle": (-2.25 * level, 2.25 * level)},
        {"brightness_factor": (1 - light, 1 + light)},
        {"contrast_factor": (1 - colour, 1 + colour), "hue_factor": (-hue, hue)},
    ]
    if level >= 3:
        sharpness = (max(1.0, 0.8 + 0.04 * level), min(2.0, 1.2 + 0.04 * level))
        changes += [
            {"saturation_factor": (max(0.1, 1 - 0.07 * level), min(2.0, 1 + 0.07 * level))},
            {"translate_x": (-20 * level, 20 * level), "translate_y": (-20 * level, 20 * level)},
            {"shear_x": (-2.5 * level, 2.5 * level)},
            {"bits": (9 - (level + 1) // 2,) * 2},
            {"kernel": (2 * ((level + 1) // 4) + 1,) * 2, "sigma": (0.5, 1.2)},
            {},
            {"number": sharpness},
        ]
    if level >= 5:
        changes.append({"number": (0.7 * (255 - 12 * level), 1.3 * (255 - 12 * level))})
    return changes


def drawn_parameters(change, image):
    """What one change draws for a picture, by the names of ``bounds``; what never changes is left out."""
    if isinstance(change, Drawn):
        return {"number": replace(change, function=lambda image, number: number)(image)}
    found = dict(change.make_params([image])) if hasattr(change, "make_params") else {}
    if isinstance(change, v2.RandomAffine):
        assert (found["angle"], found["scale"], found["shear"][1]) == (0, 1, 0)
        found = {
            "shear_x": found["shear"][0],
            "translate_x": found["translate"][0],
            "translate_y": found["translate"][1],
        }
    elif isinstance(change, v2.RandomPosterize):
        found["bits"] = change.bits
    elif isinstance(change, v2.GaussianBlur):
        assert change.kernel_size[0] == change.kernel_size[1] and found["sigma"][0] == found["sigma"][1]
        found = {"kernel": change.kernel_size[0], "sigma": found["sigma"][0]}
    found.pop("fn_idx", None)
    return {name: value for name, value in found.items() if value not in (None, 0)}


@pytest.mark.parametrize("level", LEVELS)
def test_the_changes_of_a_level(level):
    image, wanted = Image.new("RGB", (1000, 1000)), bounds(level)
    changes = level_operations(level)
    assert len(changes) == len(wanted)
    for change, ranges in zip(changes, wanted, strict=True):
        draws = [drawn_parameters(change, image) for _ in range(1000)]
        assert set().union(*draws) == {name for name, (low, high) in ranges.items() if low or high}
        for name, (low, high) in ranges.items():
            values = np.array([draw.get(name, 0) for draw in draws])
            assert low - 1e-6 <= values.min() <= low + 0.011 * (high - low) + 1e-6
            assert high + 1e-6 >= values.max() >= high - 0.011 * (high - low) - 1e-6
    assert len(level_operations(level, grayscale=True)) == len(wanted) + 1


@pytest.mark.parametrize("level", LEVELS)
def test_how_many_changes_and_how_they_are_chosen(level):
    transform = training_transform((8, 8), Augment(policy="birder", level=level))
    (several,) = (step for step in transform.transforms if isinstance(step, Several))
    kinds = len(several.changes)
    several = replace(several, changes=tuple(lambda seen, kind=kind: [*seen, kind] for kind in range(kinds)))
    chosen = [several([]) for _ in range(4000)]
    counts = Counter(map(len, chosen))
    most = {1: 2, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 5, 10: 5}[level]
    assert set(counts) == set(range(2, most + 1))
    assert max(counts.values()) - min(counts.values()) < 250 or most == 2
    uses = np.bincount(np.concatenate(chosen), minlength=kinds) / sum(map(len, chosen))
    assert np.abs(uses - 1 / kinds).max() < 0.03
    assert any(len(set(picked)) < len(picked) for picked in chosen)


@pytest.mark.parametrize("level", LEVELS)
def test_erasing_of_a_level(level):
    transform = training_transform((8, 8), Augment(policy="birder", level=level))
    names = [type(step).__name__ for step in transform.transforms]
    assert names == ["RandomChoice", "Several", "function", "RandomErasing", "RandomHorizontalFlip"]
    erasing = transform.transforms[3]
    assert erasing.p == pytest.approx(max(0.25, 0.05 * level - 0.15))
    assert erasing.scale == pytest.approx((0.02, 0.05 + 0.025 * level))
    assert (erasing.ratio, erasing.value) == ((0.3, 3.3), [0])


BILINEAR = v2.InterpolationMode.BILINEAR
DIRECT = {
    "none": [],
    "autoaugment": [v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, interpolation=BILINEAR)],
    "randaugment": [v2.RandAugment(3, 12, interpolation=BILINEAR)],
    "trivialaugment": [v2.TrivialAugmentWide(interpolation=BILINEAR)],
    "augmix": [v2.AugMix(5, interpolation=BILINEAR)],
    "3augment": [
        v2.RandomChoice([v2.Grayscale(3), v2.RandomSolarize(128, 1.0), v2.GaussianBlur((13, 13), (0.1, 2.0))]),
        v2.ColorJitter(0.3, 0.3, 0.3),
    ],
    "clip": [v2.RandomApply([v2.ColorJitter(0.32, 0.32, 0.32, 0.08)], 0.8), v2.RandomGrayscale(0.2)],
}


@pytest.mark.parametrize("policy", DIRECT)
def test_policies_are_those_of_torchvision(policy):
    kernels = (BILINEAR, v2.InterpolationMode.BICUBIC)
    crop = v2.RandomChoice([v2.RandomResizedCrop((40, 60), (0.5, 1.0), (3 / 4, 4 / 3), kernel) for kernel in kernels])
    flip = [v2.RandomHorizontalFlip(0.5)] if policy != "clip" else []
    direct = v2.Compose([crop, *flip, *DIRECT[policy], v2.PILToTensor(), v2.RandomErasing(0.5)])
    for seed, image in enumerate(
        drawn(policy, seeds=range(15), min_scale=0.5, erase=0.5, operations=3, magnitude=12, severity=5)
    ):
        torch.manual_seed(seed)
        assert torch.equal(image, direct(gradient()))


def test_drawn_changes_are_those_of_torchvision():
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    sharper, solarized = [change for change in level_operations(10) if isinstance(change, Drawn)]
    for change, function in ((sharper, v2.functional.adjust_sharpness), (solarized, v2.functional.solarize)):
        torch.manual_seed(3)
        image = change(picture)
        torch.manual_seed(3)
        number = float(torch.empty(1).uniform_(change.low, change.high))
        assert np.array_equal(image, function(picture, number)) and not np.array_equal(image, picture)


class Counted:
    """Looks that differ: the number of the look everywhere."""

    def __init__(self, size):
        self.size, self.number = size, 0

    def __call__(self, image):
        self.number += 1
        return torch.full((3, *self.size), self.number, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("large", "small", "shapes"),
    [
        (1, 0, [(3, 4, 6)]),
        (2, 0, [(2, 3, 4, 6)]),
        (1, 1, [(3, 4, 6), (1, 3, 2, 2)]),
        (2, 3, [(2, 3, 4, 6), (3, 3, 2, 2)]),
    ],
)
def test_views_have_the_asked_numbers_and_sizes(large, small, shapes):
    looks = Views(Counted((4, 6)), large, Counted((2, 2)) if small else None, small)(gradient())
    assert [tuple(look.shape) for look in looks] == shapes
    assert all(look.dtype == torch.uint8 for look in looks)
    if large > 1:
        assert looks[0][:, 0, 0, 0].tolist() == [1, 2], "each is made anew"
    if small:
        assert looks[1][:, 0, 0, 0].tolist() == list(range(1, small + 1))


def test_no_small_views_are_made_where_none_are_wanted():
    small = Counted((2, 2))
    assert len(Views(Counted((4, 6)), 2, small, 0)(gradient())) == 1
    assert small.number == 0


def test_views_differ_and_follow_the_random_numbers():
    views = Views(
        training_transform((20, 20), Augment(policy="birder", min_scale=0.3)),
        2,
        training_transform((10, 10), Augment(policy="birder"), scale=(0.1, 0.5)),
        3,
    )
    results = []
    for look in (views, views, pickle.loads(pickle.dumps(views))):
        torch.manual_seed(7)
        results.append(look(gradient()))
    first, *others = results
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0][0], first[0][1])
    assert len({small.numpy().tobytes() for small in first[1]}) == 3


def test_a_range_of_the_crop_is_kept_at_both_ends():
    """The range of the gradient tells how much of the picture is left; without a range, up to all of it."""
    options = Augment(**{**PLAIN, "min_scale": 0.9})
    shares = []
    for seed in range(80):
        torch.manual_seed(seed)
        image = training_transform((40, 60), options, scale=(0.1, 0.3))(gradient()).float()
        shares.append(float((image[0].max() - image[0].min()) * (image[1].max() - image[1].min())) / (236 * 156))
    assert 0.05 < min(shares) < 0.15  # pixels have a width, and the gradient ends half a pixel from the edge
    assert 0.2 < max(shares) < 0.33
    assert min(float(apply(seed, min_scale=0.9)[0].float().std()) for seed in range(5)) > 50, "the options alone"
