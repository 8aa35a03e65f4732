"""What goes into a run: paths cut into batches, shared out among machines, and recognised when they come again.

All of it follows from where a path stands among the inputs, and none of it is kept, so there may be millions.
"""

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import cycle, islice
from typing import Any, TypeAlias, TypeVar

import numpy as np

from birder.errors import ConfigError, DataError
from birder.inference.rows import BLOCK

T = TypeVar("T")

Stamp: TypeAlias = tuple[int, int]
"""Size of a file in bytes, and time of its last change in nanoseconds."""
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

NO_STAMP: Stamp = (0, 0)
"""Of what is no file, or cannot be looked at."""


def blocks(items: Iterable[T]) -> Iterator[list[T]]:
    """All items, 64 at a time; only the last block may have fewer."""
    rest = iter(items)
    while block := list(islice(rest, BLOCK)):
        yield block


def batches(paths: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Paths as a network takes them: no batch reaches over the end of a block of 64, so 7 gives 7, 7, …, 7, 1.

    Raises:
        ConfigError: A batch of no pictures.
    """
    check_batch_size(batch_size)
    return (block[start : start + batch_size] for block in blocks(paths) for start in range(0, len(block), batch_size))


def check_batch_size(batch_size: int) -> None:
    """Raise a ``ConfigError`` for a batch of no pictures."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, not {batch_size}")


def shard(paths: Iterable[T], part: int, parts: int) -> Iterator[T]:
    """One of several parts of the inputs: every so manieth block of 64, beginning with the block of that number.

    Args:
        paths: All inputs, in an order that is the same for every part.
        part: Which one, 1 to ``parts``.
        parts: How many there are.

    Raises:
        ConfigError: There is no such part.
    """
    if not 1 <= part <= parts:
        raise ConfigError(f"part {part} of {parts} does not exist: the first is 1/{parts}, the last {parts}/{parts}")
    return (path for number, block in enumerate(blocks(paths)) if number % parts == part - 1 for path in block)


def interleave(parts: Sequence[Iterable[T]]) -> Iterator[T]:
    """What was worked through by ``shard``, in the order of all inputs.

    Args:
        parts: What belongs to each input of part 1, of part 2 and so on; all of them.

    Raises:
        DataError: While running: these are not all parts of one whole, or not in their order.
    """
    rests = [iter(part) for part in parts]
    for rest in cycle(rests):
        block = list(islice(rest, BLOCK))
        yield from block
        if len(block) < BLOCK:
            break
    for part, rest in enumerate(rests, start=1):
        if next(rest, None) is not None:
            raise DataError(
                f"part {part} of {len(parts)} has rows left when another is at its end: give all parts of one run, "
                f"each whole, in the order of their numbers"
            )


def stamp_of(path: str) -> Stamp:
    """Size and time of a file; ``NO_STAMP`` for what is none, or cannot be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a NUL in the path
        return NO_STAMP
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else NO_STAMP


def opens(path: str) -> bool:
    """Whether the first byte of a file, if it has one, can be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.read(1)
    except (OSError, ValueError):
        return False
    return True


def keys(paths: Sequence[str], stamps: Sequence[Stamp]) -> tuple[Numbers, Numbers]:
    """What inputs are recognised by: (N,) of the path alone, and (N,) of path and stamp, 64 bits each."""
    whole = b"".join(_key(path, stamp) for path, stamp in zip(paths, stamps, strict=True))
    pairs = np.frombuffer(whole, np.dtype("<u8")).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _key(path: str, stamp: Stamp) -> bytes:
    hashed = blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8)
    name = hashed.digest()
    hashed.update(struct.pack("<Qq", *stamp))
    return name + hashed.digest()
