"""From pictures in files to batches on the device: parts, views, blank ones, places in memory."""

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from birder.data.loader import Pictures
from birder.data.transforms import classification_transform
from birder.objectives.configs import DINOConfig, MAEConfig, MMCRConfig, ObjectiveConfig
from birder.signature import rgb_stats
from birder.training import feed as feed_module
from birder.training.feed import Feed
from birder.training.machine import resolve
from birder.training.recipe import Augment, Recipe, Run

SIZE = (16, 24)
ONE, TWO, SMALL = MAEConfig(), MMCRConfig(num_views=2), DINOConfig(small_views=3, small_size=8)


def feed(objective: ObjectiveConfig, augment: Augment | None = None, **run: Any) -> Feed:
    recipe = Recipe(data="", objective=objective, augment=augment or Augment(), run=Run(device="cpu", **run))
    recipe = resolve(recipe, torch.device("cpu"))
    return Feed(recipe, classification_transform(SIZE, rgb_stats("imagenet")), torch.device("cpu"))


def pictures(objective: ObjectiveConfig, count: int) -> Pictures:
    """Noise in the views of an objective; where there is no picture, as the loader gives it."""
    views = objective.views
    if not count:
        images, small = torch.empty(0, 3, 0, 0).byte(), None
    else:
        shape = (count, *([views.large] if views.large > 1 else []), 3, *SIZE)
        images = torch.randint(0, 256, shape).byte()
        side = views.small_size
        small = torch.randint(0, 256, (count, views.small, 3, side, side)).byte() if views.small else None
    labels = torch.arange(count)
    return Pictures(images=images, labels=labels, names=["x"] * count, unreadable=[], small=small)


def normalized(images: torch.Tensor) -> torch.Tensor:
    stats = rgb_stats("imagenet")
    mean, std = (torch.tensor(stats[name]).view(3, 1, 1) for name in ("mean", "std"))  # type: ignore[literal-required]
    return (images / 255 - mean) / std


@pytest.mark.parametrize("objective", [ONE, TWO, SMALL], ids=["one view", "two views", "small views"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_all_views_are_normalised_and_parts_make_the_whole(objective: ObjectiveConfig, channels_last: bool) -> None:
    given = pictures(objective, 5)
    parts = feed(objective, accumulate=2, channels_last=channels_last).parts(given)
    assert [part.count for part in parts] == [3, 2]
    assert torch.equal(torch.cat([part.labels for part in parts]), given.labels)
    torch.testing.assert_close(torch.cat([part.images for part in parts]), normalized(given.images))
    assert not any(part.blank for part in parts)
    if given.small is None:
        assert [part.small for part in parts] == [None, None]
        return
    small = [part.small for part in parts if part.small is not None]
    torch.testing.assert_close(torch.cat(small), normalized(given.small))


@pytest.mark.parametrize("objective", [ONE, TWO, SMALL], ids=["one view", "two views", "small views"])
def test_channels_lie_side_by_side_in_what_the_network_gets(objective: ObjectiveConfig) -> None:
    """Objectives put the views of all pictures in one row, or take them in turn."""
    (part,) = feed(objective, channels_last=True).parts(pictures(objective, 4))
    for images in (part.images, part.small):
        if images is not None:
            assert images.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)
    if part.images.dim() == 5:
        assert part.images[:, 1].stride()[-3] == 1


def test_fewer_pictures_than_parts() -> None:
    assert [part.count for part in feed(ONE, accumulate=4).parts(pictures(ONE, 2))] == [1, 1]
    assert feed(ONE, accumulate=4).parts(pictures(ONE, 0)) == []


@pytest.mark.parametrize("objective", [ONE, TWO, SMALL], ids=["one view", "two views", "small views"])
@pytest.mark.parametrize("count", [0, 1])
def test_where_others_wait_blank_parts_stand_in(
    objective: ObjectiveConfig, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "world_size", lambda: 2)
    made = feed(objective, accumulate=3)
    parts = made.parts(pictures(objective, count))
    assert [part.count for part in parts] == [count, 0, 0]
    assert [part.blank for part in parts] == [False] * count + [True] * (3 - count)
    like = made.parts(pictures(objective, 6))[0]  # two pictures, as batch norms need
    for part in parts[count:]:
        assert part.images.shape == like.images.shape and part.labels.shape == like.labels.shape
        assert (part.small is None) == (like.small is None)
        assert part.small is None or like.small is None or part.small.shape == like.small.shape
        assert part.images.dtype == torch.float32


@pytest.mark.parametrize(
    ("objective", "shapes"),
    [(ONE, [(3, 16, 24)]), (TWO, [(2, 3, 16, 24)]), (SMALL, [(2, 3, 16, 24), (3, 3, 8, 8)])],
    ids=["one view", "two views", "small views"],
)
def test_a_look_is_what_the_objective_wants(objective: ObjectiveConfig, shapes: list[tuple[int, ...]]) -> None:
    look = pickle.loads(pickle.dumps(feed(objective).look()))
    looks = look(Image.effect_noise((60, 40), 90).convert("RGB"))
    assert [tuple(each.shape) for each in looks] == shapes


def test_small_views_show_less() -> None:
    """Of a ramp from left to right, a look shows as many grey levels as its share of the width."""
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB").resize((64, 64))
    plain = Augment(policy="none", min_scale=1.0, flip=0.0)
    objective = replace(SMALL, small_scale=(0.05, 0.1), small_views=8)
    large, small = feed(objective, plain).look()(ramp)
    ranges = [int(view.max()) - int(view.min()) for view in small]
    assert max(ranges) < 130 < 250 < int(large.max()) - int(large.min()) + 10
