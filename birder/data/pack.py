"""A data set made ready for training: pictures made smaller and packed into tar files."""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from birder.data.processes import Progress
from birder.data.samples import Samples, read_samples
from birder.data.shards import Packed, write_shards
from birder.data.tables import check_folder, write_csv
from birder.errors import ConfigError, ImageError

Format = Literal["jpeg", "webp", "png", "keep"]

_TRIED = 32  # pictures from which the need of space is estimated
_TAR_BYTES = 2560  # of a sample beside its picture: two headers, the label, what fills up the blocks
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Makes a picture smaller and the bytes of a file of it; can be pickled."""

    size: int
    """The shorter side is made so many pixels long; smaller pictures stay as they are."""
    format: Literal["jpeg", "webp", "png"]
    """Of the file."""
    quality: int = 90
    """Of JPEG and WebP, 1 to 100; more is better and larger."""

    def __call__(self, image: Image.Image) -> bytes:
        """An RGB picture as the bytes of a file."""
        scale = self.size / min(image.size)
        if scale < 1:
            width, height = (max(self.size, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        file = io.BytesIO()
        options = {} if self.format == "png" else {"quality": self.quality}
        image.save(file, self.format, **options)
        return file.getvalue()


def pack(
    source: str | Path,
    output: str | Path,
    *,
    size: int = 512,
    format: Format = "jpeg",
    quality: int = 90,
    shard_size: int = 10_000,
    shard_mib: int = 1000,
    split_name: str = "training",
    workers: int = 0,
    progress: Progress | None = None,
) -> Packed:
    """Pack labelled pictures into ``output/birds-SPLIT_NAME-000000.tar`` and so on; see ``birder.data.shards``.

    The originals are left as they are. What could not be read is listed in ``output/failures.csv``.

    Args:
        source: What ``read_samples`` takes.
        output: A folder that is empty or not there.
        size: The shorter side of larger pictures afterwards, in pixels; they keep their proportions.
        format: Of the packed pictures; ``keep`` stores the files as they are, of any size.
        quality: Of JPEG and WebP, 1 to 100.
        shard_size: Pictures in a tar file at most.
        shard_mib: A tar file is closed when it has so many MiB.
        split_name: What the set is for, a part of the file names.
        workers: Processes that read and encode; 0 does it in this one. The files do not depend on it.
        progress: Called after every picture with the number of those that are done, and of all.

    Raises:
        ConfigError: A number that makes no sense, an output that is not empty, or too little space on the disk.
        DataError: The source cannot be used, or not one picture can be read.
    """
    if min(size, shard_size, shard_mib) < 1 or not 1 <= quality <= 100:
        raise ConfigError("size, shard_size and shard_mib must be 1 or more, quality 1 to 100")
    output = Path(output)
    check_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty: choose another folder, or take away what is in it")
    samples = read_samples(source)
    encode = None if format == "keep" else Encoded(size=size, format=format, quality=quality)
    _check_space(samples, output, encode)
    packed = write_shards(
        samples,
        output,
        prefix=f"birds-{split_name}",
        samples_per_shard=shard_size,
        bytes_per_shard=shard_mib * _MIB,
        encode=encode,
        workers=workers,
        progress=None if progress is None else lambda done: progress(done, len(samples)),
    )
    write_csv(output / "failures.csv", ["path", "reason"], packed.unreadable)
    return packed


def _check_space(samples: Samples, output: Path, encode: Encoded | None) -> None:
    """Compare the space on the disk with what some of the pictures let expect."""
    sizes = []
    for index in np.linspace(0, len(samples) - 1, min(_TRIED, len(samples))).astype(int).tolist():
        try:
            sizes.append(len(samples.content(index) if encode is None else encode(samples.read(index))))
        except (ImageError, OSError, ValueError):  # the packing says why
            continue
    needed = (float(np.mean(sizes or [0])) + _TAR_BYTES) * len(samples)
    existing = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigError(
            f"{output}: {len(samples)} pictures will need about {needed / _MIB:.0f} MiB, and {free / _MIB:.0f} MiB are "
            "free: make space, or pack smaller pictures"
        )
