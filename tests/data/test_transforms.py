"""The inference transform: exactly Pillow's bicubic, then the published arithmetic."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.fitting import normalized
from birder.data.transforms import classification_transform
from birder.errors import ConfigError
from birder.signature import PRESETS, RGBStats, rgb_stats

NEUTRAL: RGBStats = PRESETS["neutral"]


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 80, 3), np.uint8))


def levels(tensor: torch.Tensor) -> np.ndarray:
    """Back to (H, W, 3) in 0-255, of a transform with neutral statistics."""
    return (tensor * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_squeezed_to_the_size_by_pillow(picture: Image.Image) -> None:
    result = classification_transform((24, 32), NEUTRAL)(picture)
    assert result.shape == (3, 24, 32) and result.dtype == torch.float32 and result.is_contiguous()
    assert (levels(result) == np.asarray(picture.resize((32, 24), Image.Resampling.BICUBIC))).all()


def test_normalised_with_the_statistics(picture: Image.Image) -> None:
    stats = rgb_stats("birder")
    result = classification_transform((8, 8), stats)(picture)
    values = np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC), np.float64) / 255
    wanted = (values - np.array(stats["mean"])) / np.array(stats["std"])
    assert np.abs(result.permute(1, 2, 0).numpy() - wanted).max() < 1e-6


def test_center_crop_resizes_first_and_then_cuts(picture: Image.Image) -> None:
    result = classification_transform((20, 30), NEUTRAL, center_crop=0.8)(picture)
    whole = np.asarray(picture.resize((37, 25), Image.Resampling.BICUBIC))
    assert (levels(result) == whole[2:22, 4:34]).all()  # half of 5 and of 7, to the even neighbour


@pytest.mark.parametrize(("shape", "resized"), [((50, 80), (20, 32)), ((80, 50), (32, 20)), ((20, 20), (20, 20))])
def test_simple_crop_keeps_the_proportions(shape: tuple[int, int], resized: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (*shape, 3), np.uint8))
    result = classification_transform((20, 20), NEUTRAL, simple_crop=True)(picture)
    whole = np.asarray(picture.resize(resized[::-1], Image.Resampling.BICUBIC))
    top, left = (resized[0] - 20) // 2, (resized[1] - 20) // 2
    assert (levels(result) == whole[top : top + 20, left : left + 20]).all()


def test_an_endless_strip_is_cropped_before_it_is_enlarged() -> None:
    strip = Image.fromarray(np.random.default_rng(3).integers(0, 255, (4, 6000, 3), np.uint8))
    result = levels(classification_transform((32, 32), NEUTRAL, simple_crop=True)(strip))
    whole = np.asarray(strip.resize((48000, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(result - whole[:, 23984:24016]).max() <= 1


def test_other_modes_are_converted_right() -> None:
    transparent = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert (levels(classification_transform((4, 4), NEUTRAL)(transparent)) == 255).all()
    deep = Image.fromarray(np.full((10, 10), 32768, np.uint16))
    assert (levels(classification_transform((4, 4), NEUTRAL)(deep)) == 128).all()


def test_two_halves_make_the_whole(picture: Image.Image) -> None:
    transform = classification_transform((16, 16), rgb_stats("imagenet"))
    pixels = transform.pixels(picture)
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 16, 16)
    batch = transform.normalize(torch.stack([pixels, pixels]))
    assert torch.equal(batch[1], transform(picture))


@pytest.mark.parametrize("preset", PRESETS)
def test_numpy_makes_the_same_numbers_as_torch_to_the_last_bit(preset: str) -> None:
    every = np.arange(256, dtype=np.uint8)
    pixels = np.stack([every, every[::-1], np.roll(every, 9)], axis=1).reshape(1, 16, 16, 3)
    pixels = np.concatenate([pixels, pixels[:, ::-1]])
    stats = rgb_stats(preset)
    images = normalized(pixels, stats)
    expected = classification_transform((16, 16), stats).normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert images.dtype == np.float32 and images.flags.c_contiguous
    np.testing.assert_array_equal(images, expected.numpy())


def test_the_picture_and_its_bytes_are_not_changed(picture: Image.Image) -> None:
    before = picture.tobytes()
    transform = classification_transform((16, 16), NEUTRAL)
    pixels = transform.pixels(picture)
    kept = pixels.clone()
    transform.normalize(pixels)
    assert torch.equal(pixels, kept)
    assert picture.tobytes() == before


def test_can_be_sent_to_another_process(picture: Image.Image) -> None:
    transform = classification_transform((16, 16), NEUTRAL, center_crop=0.9)
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform
    assert torch.equal(copy(picture), transform(picture))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (0, 8)}, "size must be"),
        ({"size": (8.0, 8)}, "size must be"),
        ({"center_crop": 0.0}, "center_crop"),
        ({"center_crop": 1.5}, "center_crop"),
        ({"rgb_stats": {"mean": (0.5, 0.5, 0.5), "std": (1.0, 0.0, 1.0)}}, "std above 0"),
        ({"rgb_stats": {"mean": (0.5,), "std": (1.0,)}}, "three numbers"),
    ],
)
def test_options_that_make_no_sense(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        classification_transform(**{"size": (8, 8), "rgb_stats": NEUTRAL, **options})
