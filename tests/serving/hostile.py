"""Pictures that harm whoever reads them: of some bytes that say they are more, or that kill, hang or hold a decoder.

Some need the decoders of ``tests.decoders``.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image


def waiting_for(path: Path) -> bytes:
    """A picture that takes until there is a file."""
    return f"WAIT {path}".encode()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, pixels: bytes = b"") -> bytes:
    """A PNG in black and white; ``more`` are chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def black_png(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that is all there, and black; a thousandth of its pixels in bytes."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    return png(width, height, *more, pixels=b"".join(packer.compress(line) for _ in range(height)) + packer.flush())


def webp(width: int, height: int) -> bytes:
    """A whole lossless WebP of one colour, for which its format needs no bits at all."""
    bits = f"{0x2F:08b}"[::-1] + f"{width - 1:014b}"[::-1] + f"{height - 1:014b}"[::-1] + "0" + "000"
    bits += "000" + "1000" * 5  # no transform, cache or groups; five alphabets of one letter each
    content = bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))
    content += bytes(len(content) % 2)
    data = b"WEBPVP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(data)) + data


def tiff(width: int, height: int) -> bytes:
    """A TIFF with the numbers of a picture and none of its pixels."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG that says it has another size."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "JPEG")
    data = file.getvalue()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """A GIF with frames of one pixel."""
    frame = b"\x21\xf9\x04\x00\x00\x00\x00\x00\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\x00\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    return head + frame * frames + b";"


def packed(kind: bytes, head: bytes) -> bytes:
    """A small PNG with 64 MiB of zeros in a chunk beside the picture."""
    return png(8, 8, chunk(kind, head + b"\0\0" + zlib.compress(bytes(64 << 20), 9)))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "pixels.png": (partial(black_png, 30_000, 20_000), "too_large"),
    "sizes.png": (partial(png, 2**31 - 1, 2**31 - 1), "too_large"),
    "text.png": (partial(packed, b"zTXt", b"Comment"), "damaged"),
    "profile.png": (partial(packed, b"iCCP", b"profile"), "damaged"),
    "colour.webp": (partial(webp, 16_384, 16_384), "too_large"),
    "numbers.tif": (partial(tiff, 100_000, 100_000), "too_large"),
    "numbers.jpg": (partial(jpeg, 65_500, 65_500), "too_large"),
    "screen.gif": (partial(gif, 65_535, 65_535), "too_large"),
    "words.ppm": (lambda: b"P6 1000000 1000000 255 ", "too_large"),
    "nothing.png": (partial(png, 0, 8), "damaged"),
    "program.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", "not_an_image"),
    "drawing.svg": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
        "not_an_image",
    ),
}
"""By a name: what makes the file, and the code that its row must have."""
