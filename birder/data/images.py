"""Pictures from files, bytes and arrays: upright, in RGB, or a short reason why not.

A tag of the camera (EXIF or XMP orientation) turns the picture upright and is then gone from the result; an animation
gives its first frame; what becomes of other modes than RGB stands in ``colours``. Nothing here needs torch.

How large a picture may be is Pillow's decision, and its limit is never raised: above twice ``Image.MAX_IMAGE_PIXELS``
(179 megapixels) it is refused before anything is decoded. Between one and two times the limit, where cameras of today
have arrived, it is read, and Pillow gives a ``DecompressionBombWarning``; who turns that warning into an error has
such pictures refused as well.
"""

import contextlib
import datetime
import errno
import importlib
import io
import math
import os
import re
import stat
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from birder.data.colours import BAND_PIXELS, to_rgb
from birder.errors import ImageError

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any]
"""What ``read_image`` takes."""

_SUFFIXES = "apng avif bmp gif heic heif hif j2k jfif jp2 jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{word}" for word in _SUFFIXES.split())
"""Endings of file names, in lower case, that are taken for pictures when a folder is searched."""

CODES = {
    "missing": "there is no such file (any more), or its name cannot be one",
    "permission": "the file may not be read",
    "folder": "it is a folder, whatever its name ends in",
    "not_a_file": "it is a pipe, a socket or a device",
    "link_loop": "a link that leads to itself",
    "unreadable": "the disk, the network or the system failed while the file was read",
    "empty": "the file has no bytes",
    "not_an_image": "the content is not a picture of any known format",
    "needs_plugin": "a picture in a format that needs another package, which the words name",
    "truncated": "the file ends before the picture does",
    "damaged": "it begins like a picture and cannot be decoded",
    "no_pixels": "a picture whose height or width is 0",
    "too_large": "more pixels than Pillow's limit, which is never raised; or more bytes than a server takes",
    "memory": "there was not enough memory to decode it",
    "crashed": "decoding it ended the process that read it",
    "timeout": "decoding it took longer than allowed",
    "not_finite": "the network's answer has values that are not numbers",
}
"""Why a picture has no answer: what ``ImageError.code``, and the first word of a reason in a table, can be. A code
never changes its meaning; the words behind it may."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THE_SIDE, _FROM_THE_RIGHT, _FROM_BELOW = {5, 6, 7, 8}, {2, 3, 6, 7}, {3, 4, 7, 8}  # orientations
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_BEGINNINGS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")  # a program, which Pillow would have run by an interpreter
_HEAD_BYTES = 16
_DATES = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized)
_DATE = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)", re.ASCII)
_END_OF_JPEG = b"\xff\xd9"
_FIRST_ROWS = 32
_CUT_OFF = "truncated: the file ends before the picture does; the rest is blank"
SPARE = 1.95
"""A picture that is read for a smaller one has at least so many times its height and width. With 2, pixels differ by a
third of a level of 255 in the mean from those of the whole picture, and probabilities by about 0.002 (at most 0.012 of
272 pictures); with 1, by thrice and twice as much. ``benchmarks/reduced_decoding.py`` measures it. It is a little less
than 2 for the commonest camera and the commonest size: a quarter of 4000 x 3000 is 1.953 times 384 x 384."""


Box: TypeAlias = tuple[float, float, float, float]


class _Wanted(NamedTuple):
    """What is to be made of a file; by itself, what ``read_image`` gives."""

    cover: tuple[int, int] | None = None
    truncated: bool = False
    date: bool = False


_PLAIN = _Wanted()


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A picture that was read from a file, and what else the file tells."""

    image: Image.Image
    """The picture: upright, RGB, 8 bits."""
    box: Box
    """Left, top, right and bottom of the picture in ``image``. At reduced scale, the last column or row may stand for
    less than a whole one of its pixels: half of a picture of 909 pixels has 454.5 of 455."""
    taken: str = ""
    """When it was taken, by its EXIF data, as ``2026-05-17T06:12:44``, the camera's local time; empty if that is not
    noted or no date."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright picture, before any reduction, in pixels."""
    stamp: tuple[int, int] = (0, 0)
    """Size of the file in bytes and time of its last change in nanoseconds, when it was opened; zeros for bytes."""
    reason: str = ""
    """What is wrong with the picture although it was read, as ``truncated: ...``; empty for most."""


def read_image(source: Picture) -> Image.Image:
    """Read a picture: upright, RGB, 8 bits.

    Args:
        source: A path, the bytes of a file, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of
            uint8, or of floats from 0 to 1. It is not changed; a Pillow image that is upright RGB already is returned
            itself.

    Raises:
        ImageError: It cannot be read; the message is a short reason without the path.
    """
    if isinstance(source, Image.Image):
        return _guarded(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source)).image
    if isinstance(source, str | os.PathLike):
        with open_file(Path(source)) as file:
            return _decode(file).image
    what = type(source).__name__
    raise ImageError(f"a picture is a path, bytes, a Pillow image or an array, not {what}", code="not_an_image")


def read_photo(
    source: str | os.PathLike[str] | bytes, *, cover: tuple[int, int] | None = None, truncated: bool = False
) -> Photo:
    """Read a file as ``read_image`` does, with what a table of many pictures wants to know.

    Args:
        source: An ordinary file, which is not changed, or the bytes of one.
        cover: (height, width) that the picture will be resized to. A JPEG that is much larger is then decoded at a
            half, a quarter or an eighth of its height and width, such that at least ``SPARE`` times ``cover`` is left;
            other formats are averaged down to that if they are very large, which saves memory. None: all pixels, the
            same to the last bit as from ``read_image``.
        truncated: Of a file that was cut off, take what is there, the rest grey or black, and say so in ``reason``.

    Raises:
        ImageError: It cannot be read; the message is a short reason without the path, ``code`` one of ``CODES``.
    """
    wanted = _Wanted(cover, truncated, date=True)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), wanted)
    with open_file(Path(source)) as file:
        status = os.fstat(file.fileno())
        photo = _decode(file, wanted)
    return replace(photo, stamp=(status.st_size, status.st_mtime_ns))


def open_file(path: Path) -> BinaryIO:
    """Open an ordinary file.

    Raises:
        ImageError: It is not there, may not be read, or is something else.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            readable = os.access(path, os.R_OK | os.X_OK)
            words = "a folder, not a picture" if readable else "a folder that may not be read"
            raise ImageError(words, code="folder")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise ImageError("not an ordinary file", code="not_a_file")
        return open(path, "rb")
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _file_refused(error) from error


def _file_refused(error: OSError | ValueError) -> ImageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return ImageError("no such file", code="missing")
    if isinstance(error, PermissionError):
        return ImageError("no permission to read it", code="permission")
    if error.errno == errno.ELOOP:
        return ImageError("a link that leads to itself", code="link_loop")
    return ImageError(f"the file cannot be read: {error.strerror or error}", code="unreadable")


def _decode(file: BinaryIO, wanted: _Wanted = _PLAIN) -> Photo:
    head = b""
    try:
        head = file.read(_HEAD_BYTES)
        if not head:
            raise ImageError("the file is empty", code="empty")
        if head.startswith(_POSTSCRIPT):
            raise ImageError("not a picture", code="not_an_image")
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC and "HEIF" not in Image.OPEN:
            _add_heif()
        file.seek(0)
        with Image.open(file) as image:
            return _finished(image, wanted)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything for damaged files
        raise _picture_refused(error, head) from error


def _guarded(image: Image.Image) -> Image.Image:
    try:
        return _finished(image, _PLAIN).image
    except ImageError:
        raise
    except Exception as error:  # a picture that was opened but not decoded yet
        raise _picture_refused(error, b"") from error


def _finished(image: Image.Image, wanted: _Wanted) -> Photo:
    if 0 in image.size:
        raise ImageError("a picture without pixels", code="no_pixels")
    # The tags of a TIFF are out of reach once it is loaded; those of a PNG may stand behind its pixels.
    dated_last = image.format == "PNG"
    taken = _taken(image) if wanted.date and not dated_last else ""
    drafted, whole = None, image.size
    if wanted.cover and isinstance(image, JpegImagePlugin.JpegImageFile):
        drafted = image.draft(None, _spared(wanted.cover, _orientation(image)))
    cut_off = _load(image, wanted.truncated)
    orientation = _orientation(image)  # a TIFF has been turned by Pillow when it was loaded
    width, height = drafted[1][2:] if drafted else image.size
    columns, rows = whole if drafted else image.size
    shrink = 1
    if wanted.cover and image.width * image.height > BAND_PIXELS:
        least_width, least_height = _spared(wanted.cover, orientation)
        shrink = max(min(image.width // least_width, image.height // least_height), 1)
    result = to_rgb(image, shrink)
    if cut_off and _blank(result):
        raise ImageError("truncated: the file ends before the picture begins", code="truncated")
    if orientation in _TURNS:
        result = result.transpose(_TURNS[orientation])
        result.info = {}  # the tag is in there, and would turn the picture again
    return Photo(
        image=result,
        box=_box(width / shrink, height / shrink, result.size, orientation),
        taken=_taken(image) if wanted.date and dated_last else taken,
        size=(rows, columns) if orientation in _ON_THE_SIDE else (columns, rows),
        reason=_CUT_OFF if cut_off else "",
    )


def _blank(image: Image.Image) -> bool:
    """Whether there is one colour everywhere but in the first rows, into which a decoder without data may put noise."""
    first = min(_FIRST_ROWS, image.height // 2)
    return image.crop((0, first, *image.size)).getcolors(1) is not None


def _spared(cover: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Least (width, height) of the picture as it is stored."""
    height, width = cover if orientation not in _ON_THE_SIDE else reversed(cover)
    return (math.ceil(SPARE * width), math.ceil(SPARE * height))


def _box(width: float, height: float, size: tuple[int, int], orientation: int) -> Box:
    """Where in an upright picture of (width, height) ``size`` that is which was stored with this width and height."""
    if orientation in _ON_THE_SIDE:
        width, height = height, width
    left = size[0] - width if orientation in _FROM_THE_RIGHT else 0.0
    top = size[1] - height if orientation in _FROM_BELOW else 0.0
    return (left, top, left + width, top + height)


def _load(image: Image.Image, truncated: bool) -> bool:
    """Decode; whether the file ends before the picture does, which is an error unless it was asked for."""
    if not truncated or not isinstance(image, ImageFile.ImageFile):
        image.load()
        return False
    tail = _Tail(image.fp)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.load_read = tail  # type: ignore[method-assign, assignment]
    try:
        image.load()
        return tail.used
    except Exception as error:
        if _picture_refused(error, b"").code != "truncated":
            raise
        image.tile = []  # what has been decoded is in the picture, and nothing else is asked for
        image.load()
        return True


class _Tail:
    """Ends a JPEG where its file ends, so that the decoder gives all it has.

    Pillow can do so by itself, but only for all pictures of all threads at once.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.used = False

    def __call__(self, size: int) -> bytes:
        content: bytes = self.file.read(size)
        if content or self.used:
            return content
        self.used = True
        return _END_OF_JPEG


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # damaged tags cost the orientation, not the picture
        return 1


def _taken(image: Image.Image) -> str:
    """When the picture was taken; the time of its last change only if no other is noted."""
    try:
        exif = image.getexif()
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        noted = [*(camera.get(tag) for tag in _DATES), exif.get(ExifTags.Base.DateTime)]
    except MemoryError:
        raise
    except Exception:
        return ""
    for date in filter(None, (_DATE.match(str(value)) for value in noted)):
        with contextlib.suppress(ValueError):  # a month 0, an hour 25
            return datetime.datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*date.groups())).isoformat()
    return ""


def _picture_refused(error: Exception, head: bytes) -> ImageError:
    text = "".join(letter for letter in (str(error).splitlines() or [""])[0][:120] if letter.isprintable())
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        pixels, limit = (int(number) / 1e6 for number in re.findall(r"(\d+) pixels", text)[:2])
        words = f"a picture of {pixels:.0f} megapixels: more than the limit of {limit:.0f}"
        return ImageError(words, code="too_large")
    if isinstance(error, MemoryError):
        return ImageError("not enough memory to read it", code="memory")
    if isinstance(error, UnidentifiedImageError):
        return _unknown_format(head)
    if isinstance(error, EOFError | struct.error) or re.search("truncated|incomplete", text, re.IGNORECASE):
        return ImageError("truncated: the file ends before the picture does", code="truncated")
    if isinstance(error, OSError) and error.errno is not None:
        return _file_refused(error)
    if isinstance(error, zlib.error) or not text:
        return ImageError("damaged", code="damaged")
    return ImageError(f"damaged: {text}", code="damaged")


def _unknown_format(head: bytes) -> ImageError:
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return ImageError("HEIC needs a plug-in: pip install pillow-heif", code="needs_plugin")
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return ImageError("AVIF needs Pillow 11.3 or newer: pip install --upgrade Pillow", code="needs_plugin")
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return ImageError(f"damaged: it begins like a {name} but has no readable picture", code="damaged")
    return ImageError("not a picture", code="not_an_image")


def _add_heif() -> None:
    with contextlib.suppress(ImportError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("pillow_heif").register_heif_opener()


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(
            f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}", code="not_an_image"
        )
    if array.size == 0:
        raise ImageError("a picture without pixels", code="no_pixels")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also false for NaN
            raise ImageError("an array of floats must be from 0 to 1; for 0 to 255 give uint8", code="not_an_image")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"an array must be uint8, or floats from 0 to 1, not {array.dtype}", code="not_an_image")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
