"""Heat over photographs: where it lies, and that its colours are even."""

import numpy as np
import pytest
from PIL import Image

from birder.data.fitting import Fit
from birder.errors import ConfigError
from birder.explain import overlay, seen
from birder.explain.colours import STEPS, from_oklab, scale, to_oklab


def photograph(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: each place can be told from its colour."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    blue = np.full((height, width), 128.0)
    return Image.fromarray(
        np.stack([np.tile(across, (height, 1)), np.tile(down, (width, 1)).T, blue], 2).astype("uint8")
    )


def test_without_heat_it_is_the_photograph() -> None:
    image = photograph(60, 40)
    shown = overlay(image, np.zeros((32, 32), np.float32))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(image))


def test_heat_lies_where_the_network_saw_it() -> None:
    image = photograph(200, 50)
    before = np.asarray(image).copy()
    heat = np.zeros((32, 32), np.float32)
    heat[:8, 24:] = 1  # the upper right corner, a quarter of each side
    shown = np.asarray(overlay(image, heat)).astype(int)
    changed = np.abs(shown - before).max(axis=2) > 40
    assert changed[:11, 155:].all() and not changed[14:].any() and not changed[:, :145].any()
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_photograph_stays_readable(share: float) -> None:
    """Neighbours that differ in lightness still do, under any heat, by two fifths of what they did."""
    image = Image.fromarray((np.indices((40, 40)).sum(axis=0) % 2 * 200).astype("uint8")).convert("RGB")
    shown = overlay(image, np.full((8, 8), share, np.float32))
    before, after = (np.abs(np.diff(to_oklab(np.asarray(one))[..., 0], axis=1)).mean() for one in (image, shown))
    assert after > 0.4 * before


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (150, 150)])
@pytest.mark.parametrize("crop, simple", [(1.0, False), (0.8, False), (1.0, True), (0.75, True)])
def test_what_was_seen_is_what_the_transform_shows(size: tuple[int, int], crop: float, simple: bool) -> None:
    fit = Fit((64, 48), center_crop=crop, simple_crop=simple)
    left, top, right, bottom = seen(fit, size)
    pixels = fit(photograph(*size)).astype(float)
    shares = np.array([left, right]) / size[0] * 255, np.array([top, bottom]) / size[1] * 255
    for values, ends in ((pixels[32, :, 0], shares[0]), (pixels[:, 24, 1], shares[1])):
        inner = values[[2, -3]]  # off the edges, where resizing has fewer neighbours
        step = (ends[1] - ends[0]) / len(values)
        np.testing.assert_allclose(inner, ends + np.array([2.5, -2.5]) * step, atol=1.5 * step)


def test_what_was_not_seen_is_darker() -> None:
    image = photograph(100, 50)
    shown = overlay(image, np.zeros((32, 32), np.float32), box=seen(Fit((32, 32), simple_crop=True), image.size))
    before, after = np.asarray(image).astype(int), np.asarray(shown).astype(int)
    np.testing.assert_array_equal(after[:, 25:75], before[:, 25:75])
    assert (after[:, :25, 2] < 70).all() and (after[:, 75:, 2] < 70).all()


@pytest.mark.parametrize("heat", [np.full((4, 4), np.nan), np.full((4, 4), 1.5), np.full((4, 4), -0.5), np.zeros(4)])
def test_what_is_no_heat(heat: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        overlay(photograph(20, 20), heat)


@pytest.mark.parametrize("box", [(0, 0, 21, 20), (-1, 0, 20, 20), (5, 0, 5, 20), (0, 9, 20, 8)])
def test_what_is_no_box(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="within"):
        overlay(photograph(20, 20), np.zeros((4, 4), np.float32), box=box)


def test_a_strip_of_a_pixel() -> None:
    assert overlay(photograph(300, 1), np.ones((8, 8), np.float32)).size == (300, 1)


def test_oklab_is_that_of_its_author() -> None:
    """White and black; the mixed colours as in the table of the article, to three decimals."""
    expected = {(255, 255, 255): (1, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (0.628, 0.225, 0.126)}
    for colour, lab in expected.items():
        np.testing.assert_allclose(to_oklab(np.array(colour, np.uint8)), lab, atol=1e-3)
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), axis=-1).reshape(-1, 3).astype(np.uint8)
    np.testing.assert_array_equal(from_oklab(to_oklab(every)), every)


def test_the_scale_gets_lighter_in_equal_steps() -> None:
    colours = scale()
    assert colours.shape == (STEPS, 3) and colours.dtype == np.uint8
    lab = to_oklab(colours)
    tenths = lab[:: STEPS // 10]
    assert (np.diff(tenths[:, 0]) > 0.02).all()
    steps = np.linalg.norm(np.diff(tenths, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.15  # where the line bends, the way is a little shorter
