"""Writing drawn birds as a folder of photographs: one folder per species, and a table of boxes."""

import csv
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

from numpy.random import Generator
from PIL import ExifTags, Image

from birder.data.drawn.birds import DrawnBirds
from birder.data.drawn.chance import between, chosen, generator
from birder.errors import ConfigError
from birder.files import write_text

STORED = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
)
"""EXIF orientation -> how the upright picture is turned to be stored; a reader turns it back."""

_CAMERAS = (("Halden", "Fieldmaster II"), ("Halden", "Trailwatch 4"), ("Norrvik", "Auriga 70"))
_Row = tuple[str, int, str, int, int, int, int]


def write_folder(
    birds: DrawnBirds,
    folder: Path,
    per_species: int,
    *,
    split: str = "train",
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write ``folder/<species name>/<0001>.jpg`` and so on, and ``folder/boxes.csv``.

    The table has the columns path, label, name, left, top, right, bottom: one row per bird, the main bird first, paths
    relative to the folder and boxes in the upright picture. Equal arguments give equal bytes, whatever the workers.

    Args:
        birds: What to draw.
        folder: Made when it is not there; files of the same names are replaced.
        per_species: How many pictures of each species.
        split: Pictures of different splits are different.
        workers: How many processes draw.
        progress: Called after every picture with the number of pictures written.

    Returns:
        The pictures, by species and number.

    Raises:
        ConfigError: There is nothing to write, or nobody to write it.
    """
    if per_species < 1 or workers < 1:
        raise ConfigError(
            f"drawn birds: per_species is {per_species} and workers is {workers}; both are 1 or more (in write_folder)"
        )
    for species in birds.species_list:
        (folder / species.name).mkdir(parents=True, exist_ok=True)
    tasks = [(label, index) for label in range(birds.species) for index in range(per_species)]
    rows: list[_Row] = []
    for done, found in enumerate(_written(partial(_write, birds, folder, split), tasks, workers), start=1):
        rows += found
        if progress is not None:
            progress(done)
    _write_boxes(folder / "boxes.csv", rows)
    return [folder / _relative(birds, label, index) for label, index in tasks]


def _written(
    write: Callable[[tuple[int, int]], list[_Row]], tasks: list[tuple[int, int]], workers: int
) -> Iterator[list[_Row]]:
    """The boxes of every task, in order."""
    if workers == 1:
        yield from map(write, tasks)
        return
    # Processes that start afresh do not inherit the locks of a parent that has threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, tasks, chunksize=16)


def _relative(birds: DrawnBirds, label: int, index: int) -> str:
    """The path of a picture below its folder, with slashes."""
    return f"{birds.species_list[label].name}/{index + 1:04d}.jpg"


def _write(birds: DrawnBirds, folder: Path, split: str, task: tuple[int, int]) -> list[_Row]:
    """Write one picture; the rows of its boxes."""
    label, index = task
    drawing = birds.draw(label, index, split)
    path = _relative(birds, label, index)
    image, exif = drawing.image, Image.Exif()
    if birds.metadata:
        image, exif = _as_taken(image, generator(birds.seed, "camera", split, label, index))
    # What can be drawn again need not be flushed to the disk, which takes longer than drawing it.
    temporary = folder / f"{path}.tmp"
    image.save(temporary, "JPEG", quality=92, exif=exif)
    temporary.replace(folder / path)
    names = [species.name for species in birds.species_list]
    return [(path, box.label, names[box.label], box.left, box.top, box.right, box.bottom) for box in drawing.boxes]


def _as_taken(image: Image.Image, rng: Generator) -> tuple[Image.Image, Image.Exif]:
    """A picture as a hand-held camera stores it, with the camera's notes."""
    orientation = int(rng.integers(1, 9))
    dawn = datetime(2024, 1, 1, 5, 30) + timedelta(days=int(rng.integers(0, 366)))
    taken = dawn + timedelta(seconds=round(between(rng, 0, 15 * 3600)))
    make, model = chosen(rng, _CAMERAS)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = make
    exif[ExifTags.Base.Model] = model
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
    return (image.transpose(STORED[orientation]) if orientation in STORED else image), exif


def _write_boxes(path: Path, rows: list[_Row]) -> None:
    """Write the table of boxes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "name", "left", "top", "right", "bottom"))
    table.writerows(rows)
    write_text(path, text.getvalue())
