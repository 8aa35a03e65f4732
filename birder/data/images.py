"""Pictures from files, bytes and arrays: upright, in RGB, or a short reason why not.

What becomes of pictures that are not plain RGB:

- A tag of the camera (EXIF or XMP orientation) turns the picture upright and is then gone from the result.
- Transparent places show white.
- 16-bit grey is scaled to 8 bits, never clipped. Grey of 32 bits (``I``, ``F``) is taken by its values: 0-1 in floats,
  0-255 or 0-65535 as what they look like, anything else is stretched from its darkest to its brightest.
- CMYK, YCbCr, HSV and LAB are converted; embedded colour profiles are not applied, as in training.
- An animation gives its first frame.

How large a picture may be is Pillow's decision, and its limit is never raised: above twice ``Image.MAX_IMAGE_PIXELS``
(179 megapixels) it is refused before anything is decoded. Between one and two times the limit, where cameras of today
have arrived, it is read, and Pillow gives a ``DecompressionBombWarning``; who turns that warning into an error has
such pictures refused as well.
"""

import contextlib
import errno
import importlib
import io
import os
import re
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from birder.errors import ImageError

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any]
"""What ``read_image`` takes."""

_SUFFIXES = "apng avif bmp gif heic heif hif j2k jfif jp2 jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{word}" for word in _SUFFIXES.split())
"""Endings of file names, in lower case, that are taken for pictures when a folder is searched."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_BEGINNINGS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\x00": "TIFF", b"MM\x00*": "TIFF"}
_HEAD_BYTES = 16


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
        return _decode(io.BytesIO(source))
    if isinstance(source, str | os.PathLike):
        with open_file(Path(source)) as file:
            return _decode(file)
    raise ImageError(f"a picture is a path, bytes, a Pillow image or an array, not {type(source).__name__}")


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, white behind what is transparent; an RGB picture itself."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(np.asarray(image)).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def open_file(path: Path) -> BinaryIO:
    """Open an ordinary file.

    Raises:
        ImageError: It is not there, may not be read, or is something else.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            readable = os.access(path, os.R_OK | os.X_OK)
            raise ImageError("a folder, not a picture" if readable else "a folder that may not be read")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise ImageError("not an ordinary file")
        return open(path, "rb")
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(_file_reason(error)) from error


def _file_reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if error.errno == errno.ELOOP:
        return "a link that leads to itself"
    return f"the file cannot be read: {error.strerror or error}"


def _decode(file: BinaryIO) -> Image.Image:
    head = b""
    try:
        head = file.read(_HEAD_BYTES)
        if not head:
            raise ImageError("the file is empty")
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC and "HEIF" not in Image.OPEN:
            _add_heif()
        file.seek(0)
        with Image.open(file) as image:
            return _finished(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything for damaged files
        raise ImageError(_picture_reason(error, head)) from error


def _guarded(image: Image.Image) -> Image.Image:
    try:
        return _finished(image)
    except ImageError:
        raise
    except Exception as error:  # a picture that was opened but not decoded yet
        raise ImageError(_picture_reason(error, b"")) from error


def _finished(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError("a picture without pixels")
    image.load()
    turn = _turn(image)
    result = to_rgb(image)
    if turn is not None:
        result = result.transpose(turn)
        result.info = {}  # the tag is in there, and would turn the picture again
    return result


def _turn(image: Image.Image) -> Image.Transpose | None:
    # A TIFF has been turned by Pillow when it was loaded, so this comes after that.
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # damaged tags cost the orientation, not the picture
        return None


def _picture_reason(error: Exception, head: bytes) -> str:
    text = (str(error).splitlines() or [""])[0][:120]
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        pixels, limit = (int(number) / 1e6 for number in re.findall(r"(\d+) pixels", text)[:2])
        return f"a picture of {pixels:.0f} megapixels: more than the limit of {limit:.0f}"
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    if isinstance(error, UnidentifiedImageError):
        return _unknown_format(head)
    if isinstance(error, EOFError | struct.error) or re.search("truncated|incomplete", text, re.IGNORECASE):
        return "truncated: the file ends before the picture does"
    if isinstance(error, OSError) and error.errno is not None:
        return _file_reason(error)
    if isinstance(error, zlib.error) or not text:
        return "damaged"
    return f"damaged: {text}"


def _unknown_format(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "HEIC needs a plug-in: pip install pillow-heif"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF needs Pillow 11.3 or newer: pip install --upgrade Pillow"
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return f"damaged: it begins like a {name} but has no readable picture"
    return "not a picture"


def _add_heif() -> None:
    with contextlib.suppress(ImportError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("pillow_heif").register_heif_opener()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    colours = image.convert("RGBA")
    alpha = colours.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return colours.convert("RGB")
    result = Image.new("RGB", image.size, "white")
    result.paste(colours, mask=alpha)
    return result


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # loads a library of its own, which hardly any picture needs

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(*profiles, "LAB", "RGB")
    result = ImageCms.applyTransform(image, transform)
    assert result is not None, "only with inPlace=True there is no result"
    return result


def _grey(values: np.ndarray[Any, Any]) -> Image.Image:
    if values.dtype.itemsize == 2:
        return Image.fromarray((values >> 8).astype(np.uint8))
    floats = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255 / max(high - low, 1e-30))
    elif floats and high <= 1:
        values = values * 255
    elif high > 255:
        values = values / 257
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}")
    if array.size == 0:
        raise ImageError("a picture without pixels")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also false for NaN
            raise ImageError("an array of floats must be from 0 to 1; for 0 to 255 give uint8")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"an array must be uint8, or floats from 0 to 1, not {array.dtype}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
