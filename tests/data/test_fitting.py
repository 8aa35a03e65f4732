"""The half of the inference transform that needs no torch."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.fitting import Fit
from birder.data.transforms import classification_transform
from birder.signature import PRESETS

PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (61, 90, 3), np.uint8))


@pytest.mark.parametrize("simple_crop", [False, True])
@pytest.mark.parametrize("center_crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [(24, 32), (32, 24), (16, 16)])
def test_is_the_first_half_of_the_inference_transform(
    size: tuple[int, int], center_crop: float, simple_crop: bool
) -> None:
    transform = classification_transform(size, PRESETS["neutral"], center_crop, simple_crop)
    pixels = Fit(size, center_crop, simple_crop)(PICTURE)
    assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8
    assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), transform.pixels(PICTURE))
    assert transform.fit == Fit(size, center_crop, simple_crop)


@pytest.mark.parametrize("simple_crop", [False, True])
def test_the_whole_picture_as_box_changes_nothing(simple_crop: bool) -> None:
    fit = Fit((24, 24), 0.9, simple_crop)
    assert (fit(PICTURE, (0.0, 0.0, 90.0, 61.0)) == fit(PICTURE)).all()


@pytest.mark.parametrize("simple_crop", [False, True])
@pytest.mark.parametrize("size", [(120, 180), (10, 900)])  # of the second, so much is cut off that it is cut off first
def test_the_box_is_what_is_resized(simple_crop: bool, size: tuple[int, int]) -> None:
    height, width = size
    part = PICTURE.resize((width, height), Image.Resampling.BICUBIC)
    framed = Image.new("RGB", (width + 8, height + 5))
    framed.paste(part.resize(framed.size))
    framed.paste(part, (3, 4))
    fit = Fit((24, 24), 0.9, simple_crop)
    result, wanted = fit(framed, (3, 4, 3 + width, 4 + height)), fit(part)
    assert (result[4:-4, 4:-4] == wanted[4:-4, 4:-4]).all()  # at the edges, the frame is among the neighbours
    assert (fit(framed)[4:-4, 4:-4] != wanted[4:-4, 4:-4]).any()


def test_half_a_column_counts_half() -> None:
    # 9 columns at half scale are 4.5: the edge between black and white stays in the middle of 9 columns of the result.
    stored = np.zeros((2, 5, 3), np.uint8)
    stored[:, 2] = 127  # half of it black, half white
    stored[:, 3:] = 255
    whole = np.zeros((2, 9, 3), np.uint8)
    whole[:, 5:] = 255
    fit = Fit((2, 3))
    off = np.abs(fit(Image.fromarray(stored), (0, 0, 4.5, 2)).astype(int) - fit(Image.fromarray(whole)))
    without = np.abs(fit(Image.fromarray(stored)).astype(int) - fit(Image.fromarray(whole)))
    assert off.max() < 10 < without.max()


def test_cover_is_what_a_picture_is_resized_to() -> None:
    assert Fit((224, 192)).cover == (224, 192)
    assert Fit((224, 192), 0.875).cover == (256, 219)


def test_can_be_sent_to_another_process() -> None:
    fit = Fit((24, 24), 0.9, True)
    assert pickle.loads(pickle.dumps(fit)) == fit


def test_reading_and_fitting_need_no_torch() -> None:
    code = "import sys, birder.data.fitting, birder.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
