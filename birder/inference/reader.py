"""A process that reads pictures for another one, without torch; ``reading`` starts it and looks after it.

It takes requests from its standard input, one line each, and answers them in their order on its standard output:

    request  a line of JSON: [path, [height, width], center_crop, simple_crop, exact, truncated, bytes], and then the
             file itself, so many bytes; null bytes of one that is to be read from its path
    answer   two whole numbers of 4 bytes (little-endian), how many bytes follow of
             JSON: [reason, taken, [bytes of the file, nanoseconds], [width, height]], and of
             pixels: height * width * 3, row by row; none of a picture that cannot be read

Nothing is unpickled, so an answer cannot be more than a picture. The process ends when its input does, so that no main
process that is killed leaves it behind, and by its own alarm if a decoder hangs.
"""

import contextlib
import json
import os
import signal
import struct
import sys
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from birder.data.fitting import Fit, Pixels
from birder.data.images import read_photo
from birder.errors import ImageError

READY = b"birder reads\n"
"""The line that a process says when it has started; what came before it are its troubles."""

_LENGTHS = struct.Struct("<II")


class Read(NamedTuple):
    """What became of one file."""

    path: str
    """The file, as it was given."""
    pixels: Pixels | None
    """(H, W, 3), ready for the network but for the normalising; None if it could not be read."""
    reason: str = ""
    """Why there are no pixels, or what is wrong with them: a code of ``birder.data.images.CODES`` and words."""
    taken: str = ""
    """When the picture was taken, as in ``Row``."""
    stamp: tuple[int, int] = (0, 0)
    """Bytes of the file and time of its last change in nanoseconds; zeros if that could not be learned."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright picture, in pixels; zeros if it could not be read."""


class Request(NamedTuple):
    """A file, and how it is to be read."""

    path: str
    """The file; of one whose content is given, only what it is called."""
    fit: Fit
    """What the pixels are made to fit."""
    exact: bool = False
    """Decode every pixel of large JPEGs, in place of a half, a quarter or an eighth of their height and width."""
    truncated: bool = False
    """Take what is there of a file that was cut off."""
    content: bytes | None = None
    """The bytes of the file, which is not opened then."""

    def encoded(self) -> bytes:
        """The line that asks a process for it; the content is sent behind it."""
        fit, count = self.fit, None if self.content is None else len(self.content)
        words = json.dumps(
            [self.path, fit.size, fit.center_crop, fit.simple_crop, self.exact, self.truncated, count],
            ensure_ascii=False,
        )
        return words.encode("utf-8", "surrogatepass") + b"\n"


def decoded(line: bytes, rest: IO[bytes]) -> Request:
    """The request that was encoded in a line, and whose content, if it has any, comes next."""
    path, (height, width), center_crop, simple_crop, exact, truncated, count = json.loads(
        line.decode("utf-8", "surrogatepass")
    )
    content = None if count is None else rest.read(count)
    return Request(path, Fit((height, width), center_crop, simple_crop), exact, truncated, content)


def read(request: Request) -> Read:
    """Read a file. Whatever is wrong with it is in the result; nothing is raised."""
    path, fit = request.path, request.fit
    try:
        photo = read_photo(
            path if request.content is None else request.content,
            cover=None if request.exact else fit.cover,
            truncated=request.truncated,
        )
        return Read(path, fit(photo.image, photo.box), photo.reason, photo.taken, photo.stamp, photo.size)
    except ImageError as error:
        reason = error.reason
    except MemoryError:
        reason = "memory: not enough memory to resize it"
    except Exception as error:  # not foreseen; still, one file must not end a run over a million
        reason = f"damaged: {type(error).__name__} {error}".splitlines()[0][:200]
    return Read(path, None, reason, stamp=_stamp(path) if request.content is None else (0, 0))


def _stamp(path: str) -> tuple[int, int]:
    """Of a file that could not be read, so that it is noticed when it has been repaired."""
    try:
        status = os.stat(path)
        return (status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return (0, 0)


def send(result: Read, connection: IO[bytes]) -> None:
    """Write an answer."""
    words = json.dumps(result[2:]).encode()
    pixels = b"" if result.pixels is None else np.ascontiguousarray(result.pixels).data.cast("B")
    connection.write(_LENGTHS.pack(len(words), len(pixels)) + words)
    connection.write(pixels)
    connection.flush()


def receive(path: str, size: tuple[int, int], connection: IO[bytes]) -> Read | None:
    """Read the answer to the request for a file at a size; None if the process has ended, even amidst it."""
    lengths = connection.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    length, count = _LENGTHS.unpack(lengths)
    words = connection.read(length)
    pixels = np.empty((*size, 3), np.uint8) if count else None
    if pixels is not None and connection.readinto(pixels.data.cast("B")) != count:  # type: ignore[attr-defined]
        return None
    if len(words) < length:
        return None
    reason, taken, (file_size, changed), (width, height) = json.loads(words)
    return Read(path, pixels, reason, taken, (file_size, changed), (width, height))


def main() -> None:
    """Answer requests until there are no more. Arguments: seconds for each, bytes of memory, pixels at most."""
    seconds, memory, most_pixels = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):  # sent to all processes of a terminal or a job: the main one answers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of Pillow, about the oddities of single files
    Image.MAX_IMAGE_PIXELS = most_pixels or None
    Image.preinit()  # the common formats, which would be loaded with the first picture
    _limit(memory)
    requests, answers = _connections()
    answers.write(READY)
    answers.flush()
    with contextlib.suppress(BrokenPipeError):
        for line in requests:
            request = decoded(line, requests)
            _alarm(seconds)
            result = read(request)
            _alarm(0)
            send(result, answers)
    os._exit(0)  # whatever a decoder has left behind


def _connections() -> tuple[IO[bytes], IO[bytes]]:
    """Input and output in private; a library that writes where it has always written writes into nothing."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return requests, answers


def _limit(memory: int) -> None:
    """Make a monster of a picture a reason, and this process the first to go if memory runs out all the same."""
    with contextlib.suppress(ImportError):  # on Windows
        import resource

        kinds = [(resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)]  # no picture of memory among the pictures
        for kind, value in kinds:
            _, highest = resource.getrlimit(kind)
            least = value if highest == resource.RLIM_INFINITY else min(value, highest)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (least, highest))
    with contextlib.suppress(OSError):  # Linux takes this process first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _alarm(seconds: float) -> None:
    """End this process if the next picture takes longer, wherever it hangs; 0: no longer. Windows has no such thing."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
