"""Small pictures whose first bytes were changed, read in a process of its own that says how it went.

python tests/data/mutated_headers.py FIRST COUNT

Prints JSON: how many were refused with which code, what was raised beside ``ImageError``, the slowest in seconds of
computing, and by how many bytes the process has grown at most.
"""

import collections
import io
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from birder.data.images import CODES, read_photo
from birder.errors import ImageError

KINDS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
HEADER = 600
EXTREMES = (
    b"\x00" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x40\x00",
    b"\x30\x00\x00\x00",
    b"\x20\x20\x20\x20",
)
ADDRESS_SPACE = 6 * 2**30


def originals() -> list[bytes]:
    """One picture of each kind, with tags where the kind has them."""
    values = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    image, exif = Image.fromarray(values), Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2026:05:17 06:12:44"
    contents = []
    for kind in KINDS:
        file = io.BytesIO()
        image.save(file, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
        contents.append(file.getvalue())
    return contents


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """A few changes in the header: bytes replaced, put in, or cut out; or the end cut off."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(0, min(HEADER, len(changed)) or 1))
        kind = random.integers(0, 8)
        if kind < 3:
            changed[place : place + 1] = random.bytes(1)
        elif kind < 5:  # sizes, offsets and counts have 2 or 4 bytes, and are most dangerous at their ends
            changed[place : place + 4] = EXTREMES[random.integers(0, len(EXTREMES))]
        elif kind == 5:
            changed[place:place] = random.bytes(int(random.integers(1, 20)))
        elif kind == 6:
            del changed[place : place + int(random.integers(1, 20))]
        else:
            del changed[place + int(random.integers(0, 3 * HEADER)) :]
    return bytes(changed)


def main() -> None:
    first, count = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    contents = originals()
    outcomes: collections.Counter[str] = collections.Counter()
    failures, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.jpg")
        read_photo(_written(path, contents[0]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for index in range(first, first + count):
            random = np.random.default_rng(index)
            _written(path, mutated(contents[index % len(contents)], random))
            began = time.process_time()
            try:
                photo = read_photo(path, cover=(16, 16) if index % 4 else None, truncated=bool(index & 8))
                outcomes["read"] += 1
                if photo.image.mode != "RGB" or (photo.reason and photo.reason.partition(":")[0] not in CODES):
                    failures.append(f"{index}: {photo}")
            except ImageError as error:
                outcomes[error.code] += 1
                if error.code not in CODES or not str(error).isprintable():
                    failures.append(f"{index}: {error.reason!r}")
            except BaseException as error:
                failures.append(f"{index}: {error!r}")
            slowest = max(slowest, time.process_time() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"outcomes": outcomes, "failures": failures, "slowest": slowest, "grown": grown}))


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    main()
