"""What light and camera make of a scene: brightness, tint, a lit side, blur and sensor noise."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from birder.data.drawn.chance import between


def develop(picture: Image.Image, difficulty: float, rng: Generator) -> Image.Image:
    """The photograph of a painted scene; the more difficult, the poorer the light and the camera."""
    height, width = picture.height, picture.width
    blur = between(rng, 0.0, 0.9 * difficulty) * min(height, width) / 128
    if blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    warmth = between(rng, -0.10, 0.10) * (0.3 + difficulty)
    tint = np.array([1 + warmth, 1 + between(rng, -0.02, 0.02), 1 - warmth], dtype=np.float32)
    gain = between(rng, 1 - 0.05 - 0.25 * difficulty, 1 + 0.03 + 0.12 * difficulty)
    across, down = between(rng, -0.22, 0.22) * difficulty, between(rng, -0.12, 0.05) * difficulty
    side = 1 + across * np.linspace(-1, 1, width, dtype=np.float32)
    fall = 1 + down * np.linspace(-1, 1, height, dtype=np.float32)
    light = (gain * fall[:, None] * side)[:, :, None] * tint
    pixels = np.asarray(picture, dtype=np.float32) * light
    grain = between(rng, 0.5, 1.5 + 9 * difficulty)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(grain)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
