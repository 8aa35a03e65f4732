"""A large picture is converted in bands, and comes out as if it had been converted at once."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from birder.data import colours
from birder.data.colours import to_rgb

VALUES = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
COLOURED = Image.fromarray(VALUES)


def of_mode(mode: str) -> Image.Image:
    """Noise in any mode of Pillow."""
    if mode in ("I", "F", "I;16"):
        numbers = VALUES[..., 0].astype(np.float32) * 37 - (mode != "I;16") * 1000
        return Image.fromarray(numbers.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(
            COLOURED.convert("RGB"), ImageCms.buildTransform(*profiles, "RGB", "LAB"), inPlace=False
        )
    if mode == "P":
        image = COLOURED.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        image.info["transparency"] = 3
        return image
    return COLOURED.convert("LA").convert("La") if mode == "La" else COLOURED.convert("RGB").convert(mode)


MODES = ["RGB", "RGBA", "L", "LA", "La", "1", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]


@pytest.mark.parametrize("rows", [1, 5, 36])
@pytest.mark.parametrize("mode", MODES)
def test_bands_give_what_the_whole_gives(mode: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = of_mode(mode)
    whole = to_rgb(image)
    monkeypatch.setattr(colours, "BAND_PIXELS", rows * image.width)
    assert to_rgb(image).size == image.size
    assert to_rgb(image).tobytes() == whole.tobytes()


@pytest.mark.parametrize("shrink", [2, 3, 7, 40])
@pytest.mark.parametrize("mode", MODES)
def test_shrunk_pixels_are_means(mode: str, shrink: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = of_mode(mode)
    whole = np.asarray(to_rgb(image), np.float64)
    monkeypatch.setattr(colours, "BAND_PIXELS", 5 * image.width)
    result = np.asarray(to_rgb(image, shrink))
    assert result.shape == (-(-37 // shrink), -(-23 // shrink), 3)
    for row, column in ((0, 0), (result.shape[0] - 1, result.shape[1] - 1)):
        square = whole[row * shrink : (row + 1) * shrink, column * shrink : (column + 1) * shrink]
        count = square.shape[0] * square.shape[1]  # Pillow adds half of it in whole numbers, and divides
        assert np.abs(result[row, column] - square.mean((0, 1))).max() <= 0.5 + 0.5 / count + 1e-9
