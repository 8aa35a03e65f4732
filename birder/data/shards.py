"""Packing pictures into tar files: few large files in the place of many small ones.

A data set of a million files is slow to copy, to list and to read over a network; a thousand tar files are not. The
format is that of WebDataset, so that its library, the standard library and ``tar`` read them as well:

    shards/
    ├── _info.json              which tar files belong together, and how many samples each has
    ├── classes.txt             class names, one per line, in the order of the labels
    ├── birds-000000.tar        sample000000000.jpg, sample000000000.cls, sample000000001.jpg …
    └── birds-000001.tar

``read_samples`` reads them back, in any order. Readers that go through tar files from one end to the other see the
samples as they lie there: pack them shuffled (``samples.select``) if they are meant for such readers.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from birder.data.images import read_image
from birder.data.loader import guarded, start_worker
from birder.data.members import CLASSES, INFO, read_info, split_of
from birder.data.samples import Samples
from birder.errors import ConfigError, DataError, ImageError
from birder.files import atomic, write_text

Encode = Callable[[Image.Image], bytes]
_BEGINNINGS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What became of pictures that were packed."""

    shards: list[Path] = field(default_factory=list)
    """The tar files."""
    lengths: list[int] = field(default_factory=list)
    """How many pictures are in each."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of those that are in none, as they cannot be read."""

    @property
    def pictures(self) -> int:
        """How many pictures were packed."""
        return sum(self.lengths)


def write_shards(
    samples: Samples,
    folder: str | Path,
    *,
    prefix: str,
    samples_per_shard: int = 10_000,
    bytes_per_shard: int = 1_000_000_000,
    encode: Encode | None = None,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Packed:
    """Pack pictures, in their order, into ``folder/PREFIX-000000.tar`` and so on; the originals are left as they are.

    Every picture is decoded once, so that none is packed that cannot be read. JPEG, PNG and WebP are stored as they
    are, anything else upright as PNG. Equal arguments give equal bytes. A set that was not finished is not taken for
    one; packing it again begins anew.

    Args:
        samples: What to pack.
        folder: Made when it is not there. Several sets of the same classes may share a folder.
        prefix: What the names of the tar files begin with, such as ``birds-training``.
        samples_per_shard: A tar file has at most so many pictures,
        bytes_per_shard: and is closed when it has so many bytes.
        encode: Makes the bytes of a JPEG, PNG or WebP file of an upright RGB picture; None keeps the files.
        workers: Processes that read and encode; 0 does it in this one.
        progress: Called after every picture with the number of those that are done.

    Raises:
        ConfigError: A number or a name that makes no sense.
        DataError: There are shards of that name, or of other classes; not one picture can be read; or the folder cannot
            be written to.
    """
    folder = Path(folder)
    if min(samples_per_shard, bytes_per_shard) < 1 or workers < 0:
        raise ConfigError("samples_per_shard and bytes_per_shard must be 1 or more, workers 0 or more")
    if Path(prefix).name != prefix or prefix[:1] in ("", ".", "_"):
        raise ConfigError(f"prefix: must be a name such as birds-training, not {prefix!r}")
    try:
        info, split = _prepare(folder, prefix, samples)
        packed = Packed()
        contents = _contents(samples, encode, workers, packed, progress or (lambda done: None))
        while (first := next(contents, None)) is not None:
            path = folder / f"{prefix}-{len(packed.shards):06d}.tar"
            limits = (samples_per_shard, bytes_per_shard)
            packed.lengths.append(_write_shard(path, chain([first], contents), packed.pictures, limits))
            packed.shards.append(path)
        if not packed.shards:
            reason = ": ".join(packed.unreadable[0]) if packed.unreadable else "there are none"
            raise DataError(f"none of the {len(samples)} pictures can be read; {reason}")
        info["splits"][split] |= {
            "filenames": [path.name for path in packed.shards],
            "shard_lengths": packed.lengths,
            "num_samples": packed.pictures,
        }
        _write_info(folder, info)
    except OSError as error:
        raise DataError(f"{folder}: shards cannot be written: {error.strerror or error}") from error
    return packed


def _prepare(folder: Path, prefix: str, samples: Samples) -> tuple[dict[str, Any], str]:
    """Make room for a set, and note that it has begun; what ``_info.json`` says, and its name there."""
    folder.mkdir(parents=True, exist_ok=True)
    info = read_info(folder)
    split = split_of(info, prefix)
    existing = sorted(path for path in folder.glob("*.tar") if path.name.startswith(f"{prefix}-"))
    existing = [path for path in existing if path.stem.removeprefix(f"{prefix}-").isdigit()]
    if split is not None and not info["splits"][split]["filenames"]:
        for path in existing:  # of a packing that was broken off
            path.unlink()
    elif existing or split is not None:
        raise DataError(f"{folder} has shards {prefix}-*.tar already: choose another prefix, or take them away")
    names = sorted(samples.class_to_idx, key=samples.class_to_idx.__getitem__)
    if sorted(samples.class_to_idx.values()) != list(range(len(names))):
        raise DataError("classes of shards must have the labels 0, 1, 2 …, as the lines of classes.txt")
    for name in names:
        if name.strip().splitlines() != [name]:
            raise DataError(f"the class {name!r} cannot be a line of classes.txt: rename it")
    lines = "".join(f"{name}\n" for name in names)
    path = folder / CLASSES
    if not path.exists():
        write_text(path, lines)
    elif path.read_text(encoding="utf-8").splitlines() != lines.splitlines():
        raise DataError(f"{path} names other classes: give the shards of {prefix} a folder of their own")
    name, _, rest = prefix.rpartition("-")
    info.setdefault("name", name or prefix)
    info.setdefault("splits", {})
    split = split or (rest if info["name"] == name else prefix)
    info["splits"][split] = {"name": split, "filenames": [], "shard_lengths": [], "num_samples": 0}
    _write_info(folder, info)
    return info, split


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    write_text(folder / INFO, json.dumps(info, indent=2, ensure_ascii=False) + "\n")


def _write_shard(path: Path, contents: Iterator["_Content"], first: int, limits: tuple[int, int]) -> int:
    """Write one tar file until it is full; how many pictures it took."""
    with atomic(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for length, content in enumerate(contents, start=1):
            for suffix, data in ((content.suffix, content.data), ("cls", str(content.label).encode())):
                member = tarfile.TarInfo(f"sample{first + length - 1:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            if length >= limits[0] or tar.offset >= limits[1]:
                break
    return length


@dataclass(frozen=True, slots=True)
class _Content:
    data: bytes
    suffix: str
    label: int


def _contents(
    samples: Samples, encode: Encode | None, workers: int, packed: Packed, progress: Callable[[int], None]
) -> Iterator[_Content]:
    """What is packed, in order; what cannot be read is noted."""
    loader = DataLoader(
        _Encoded(samples, encode),
        batch_size=16,
        num_workers=workers,
        collate_fn=_as_they_are,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # or it would take a number from torch's own
    )
    done = 0
    for batch in guarded(loader):
        for content in batch:
            if isinstance(content, _Content):
                yield content
            else:
                packed.unreadable.append(content)
            done += 1
            progress(done)


def _as_they_are(items: Sequence[Any]) -> list[Any]:
    return list(items)


class _Encoded(Dataset[_Content | tuple[str, str]]):
    """Sample by number: what is stored of it, or (name, reason)."""

    def __init__(self, samples: Samples, encode: Encode | None) -> None:
        self.samples = samples
        self.encode = encode

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> _Content | tuple[str, str]:
        try:
            data = self.samples.content(index)
            image = read_image(data)
        except ImageError as error:
            return self.samples.name(index), str(error)
        try:
            if self.encode is not None:
                data = self.encode(image)
            elif _suffix(data) is None:
                data = _as_png(image)
        except (OSError, ValueError, MemoryError) as error:
            return self.samples.name(index), f"it cannot be encoded: {error}"
        suffix = _suffix(data)
        if suffix is None:
            raise DataError("encode must give the bytes of a JPEG, PNG or WebP file")
        return _Content(data, suffix, int(self.samples.labels[index]))


def _suffix(data: bytes) -> str | None:
    for beginning, suffix in _BEGINNINGS:
        if data.startswith(beginning):
            return suffix
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
