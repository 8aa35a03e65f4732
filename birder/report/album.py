"""The pictures that a report shows: each is kept once, however often it occurs, and is read when all are known."""

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from birder.data.images import read_photo
from birder.data.samples import Samples
from birder.errors import ImageError

_QUALITY, _SPRITE_QUALITY = 80, 62  # of JPEGs
_THREADS = 4


class Album:
    """Pictures by the place that they were given."""

    def __init__(self, samples: Samples) -> None:
        """An album without pictures; they are numbers of ``samples``."""
        self.samples = samples
        self._place: dict[int, int] = {}

    def add(self, pictures: Iterable[int]) -> list[int]:
        """The places of these pictures, which get one if they have none."""
        return [self._place.setdefault(int(picture), len(self._place)) for picture in pictures]

    @property
    def pictures(self) -> list[int]:
        """The numbers of the pictures, in the order of their places."""
        return list(self._place)

    def thumbnails(self, side: int) -> list[str]:
        """Each picture as a data URL of a JPEG of at most side x side pixels; empty if it cannot be read."""
        return [
            "" if image is None else as_url(image, _QUALITY) for image in read_small(self.samples, self.pictures, side)
        ]


def sprite(samples: Samples, pictures: Sequence[int], *, tile: int, columns: int) -> str:
    """One picture with the middle of each of these, row by row, as a data URL; grey where one cannot be read.

    Args:
        samples: Where the pictures are.
        pictures: Their numbers; at least one.
        tile: Height and width of each, in pixels.
        columns: How many stand in a row.
    """
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * tile, rows * tile), (128, 128, 128))
    for number, image in enumerate(read_small(samples, pictures, 2 * tile)):
        if image is not None:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.resize((tile, tile), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
            sheet.paste(square, (number % columns * tile, number // columns * tile))
    return as_url(sheet, _SPRITE_QUALITY)


def as_url(image: Image.Image, quality: int) -> str:
    """A data URL of a JPEG without the tags of the file that it comes from."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def read_small(samples: Samples, pictures: Sequence[int], side: int) -> list[Image.Image | None]:
    """The pictures, at most side x side pixels, with their proportions; None for one that cannot be read."""

    def small(picture: int) -> Image.Image | None:
        try:
            return _small(samples, picture, side)
        except (ImageError, MemoryError):
            return None

    with ThreadPoolExecutor(_THREADS) as threads:  # Pillow decodes without Python's lock
        return list(threads.map(small, pictures))


def _small(samples: Samples, picture: int, side: int) -> Image.Image:
    path = Path(samples.name(picture))
    if path.is_file():
        photo = read_photo(path, cover=(side, side))  # a large JPEG is not decoded as a whole
        image, box = photo.image, photo.box
    else:  # within a tar file
        image = samples.read(picture)
        box = (0.0, 0.0, float(image.width), float(image.height))
    width, height = box[2] - box[0], box[3] - box[1]
    shrink = min(1.0, side / max(width, height))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return image.resize(size, Image.Resampling.LANCZOS, box=box)
