"""Whatever lies in a folder of pictures is a picture, or a refusal with a code: never another error, never a change."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from birder.data.images import CODES, read_photo
from birder.errors import ImageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # saving leaves options behind in the image
    return file.getvalue()


def animated(kind: str) -> bytes:
    others = [Image.new("RGB", PICTURE.size, colour) for colour in ("black", "white")]
    return saved(PICTURE, kind, save_all=True, append_images=others)


def with_exif(exif: bytes) -> bytes:
    """A JPEG with these bytes as its tags."""
    segment = b"Exif\x00\x00" + exif
    start = saved(PICTURE, "JPEG")
    return start[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + start[2:]


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, count, value)


def directory(*entries: bytes, following: int = 0) -> bytes:
    """Little-endian tags whose first directory has these entries."""
    head = b"II*\x00" + struct.pack("<I", 8)
    return head + struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def tiff(width: int, height: int, *more: bytes, compression: int = 1) -> bytes:
    """A TIFF of one grey strip of 100 bytes, whatever size it claims."""
    entries = [
        entry(256, 4, 1, width),
        entry(257, 4, 1, height),
        entry(258, 3, 1, 8),
        entry(259, 3, 1, compression),
        entry(262, 3, 1, 1),
        *more,
    ]
    return directory(*entries) + bytes(100)


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(saved(PICTURE, "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def adobe(content: bytes, transform: int) -> bytes:
    """The same JPEG, whose marker of Adobe says how its colours were stored."""
    place = content.index(b"Adobe")
    return content[: place + 11] + bytes([transform]) + content[place + 12 :]


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(PICTURE, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("bird.jpg", saved(PICTURE, "JPEG"))
    return file.getvalue()


def readable() -> dict[str, bytes]:
    """What gives a picture."""
    grey, values = PICTURE.convert("L"), np.arange(40 * 56, dtype=np.uint16).reshape(40, 56)
    cmyk = saved(PICTURE.convert("CMYK"), "JPEG")
    clear = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "a jpeg": saved(PICTURE, "JPEG"),
        "a progressive jpeg": saved(PICTURE, "JPEG", progressive=True),
        "a jpeg with restarts": saved(PICTURE, "JPEG", restart_marker_blocks=1),
        "a jpeg with more behind its end": saved(PICTURE, "JPEG") + b"more" * 1000,
        "a cmyk jpeg": cmyk,
        "an inverted cmyk jpeg": adobe(cmyk, 0),
        "a ycck jpeg": adobe(cmyk, 2),
        "a grey jpeg": saved(grey, "JPEG"),
        "an mpo": animated("MPO"),
        "an animated png": animated("PNG"),
        "an animated gif": animated("GIF"),
        "an animated webp": animated("WEBP"),
        "a tiff of several pages": animated("TIFF"),
        "a bit per pixel": saved(PICTURE.convert("1"), "PNG"),
        "a clear colour": saved(clear, "PNG", transparency=3),
        "clear colours": saved(clear, "PNG", transparency=bytes(range(256))),
        "grey and alpha": saved(PICTURE.convert("LA"), "PNG"),
        "16 bits": saved(Image.fromarray(values), "PNG"),
        "16 bits, big end first": saved(Image.frombytes("I;16B", (56, 40), values.astype(">u2").tobytes()), "TIFF"),
        "32 bits": saved(Image.fromarray(values.astype(np.int32) * 1000), "TIFF"),
        "floats": saved(Image.fromarray(values.astype(np.float32) / 10), "TIFF"),
        "floats that are none": saved(Image.fromarray(np.full((40, 56), np.nan, np.float32)), "TIFF"),
        "cmyk tiff": saved(PICTURE.convert("CMYK"), "TIFF"),
        "ycbcr tiff": saved(PICTURE.convert("YCbCr"), "TIFF"),
        "lab tiff": saved(lab(), "TIFF"),
        **{f"{way} tiff": saved(PICTURE, "TIFF", compression=way) for way in ("tiff_lzw", "tiff_adobe_deflate")},
        **{f"{way} tiff": saved(PICTURE, "TIFF", compression=way) for way in ("packbits", "jpeg", "zstd", "lzma")},
        "group 4 tiff": saved(PICTURE.convert("1"), "TIFF", compression="group4"),
        "a row per strip": saved(PICTURE, "TIFF", compression="tiff_lzw", strip_size=56 * 3),
        "jpeg 2000": saved(PICTURE, "JPEG2000"),
        "avif": saved(PICTURE, "AVIF"),
        "an icon": saved(PICTURE, "ICO"),
        "bitmap": saved(PICTURE, "BMP"),
        "targa": saved(PICTURE, "TGA"),
        "one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
        "a strip": saved(Image.new("RGB", (5000, 1)), "PNG"),
        "a garbled profile": saved(PICTURE, "JPEG", icc_profile=bytes(range(256)) * 20),
        **{f"orientation {number}": with_exif(directory(entry(0x0112, 3, 1, number))) for number in (0, 9, 65535)},
        "an orientation in letters": with_exif(directory(entry(0x0112, 2, 4, 0x41414141))),
        "tags in a circle": with_exif(directory(entry(0x8769, 4, 1, 8), following=8)),
        "tags that point to nowhere": with_exif(directory(entry(0x8769, 4, 1, 0xFFFFFFF0))),
        "four milliard tags": with_exif(directory(entry(0x010F, 2, 0xFFFFFFFF, 8), entry(0x9003, 2, 0xFFFFFFFF, 8))),
        "65535 entries": with_exif(b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(40)),
        "the wrong end first": with_exif(directory(entry(0x0112, 3, 1, 6)).replace(b"II*\x00", b"MM\x00*")),
        "tags cut off": with_exif(directory(entry(0x0112, 3, 1, 6))[:13]),
        "tags that are none": with_exif(b"\xff" * 300),
        "no tags at all": with_exif(b""),
    }


def refused() -> dict[str, tuple[bytes, str]]:
    """What gives none, and with which code."""
    noise = Image.effect_noise((90, 80), 80).convert("RGB")
    kinds = {kind: saved(noise, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")}
    cut = {
        f"{kind}, {part:.0%} of it": (content[: int(len(content) * part)], "truncated damaged")
        for kind, content in kinds.items()
        for part in (0.02, 0.3, 0.7, 0.97 if kind == "TIFF" else 0.99)
    }
    flipped = bytearray(kinds["PNG"])
    flipped[len(flipped) // 2] ^= 255
    return {
        **cut,
        "nothing": (b"", "empty"),
        "one byte": (b"\xff", "not_an_image"),
        "zeros": (bytes(5000), "not_an_image"),
        "text": (b"Dear diary, today I saw no bird at all.", "not_an_image"),
        "html": (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        "a pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj", "not_an_image"),
        "a zip": (zipped(), "not_an_image"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not_an_image"),
        "heic": (b"\x00\x00\x00\x18ftypheic" + bytes(40), "needs_plugin damaged not_an_image"),
        "jpeg's first three bytes": (b"\xff\xd8\xff", "damaged"),
        "png's first line": (b"\x89PNG\r\n\x1a\n", "damaged"),
        "a png's first line before a jpeg": (b"\x89PNG\r\n\x1a\n" + kinds["JPEG"], "damaged"),
        "a flipped byte in a png": (bytes(flipped), "damaged truncated"),
        "a png without pixels": (png_chunks((b"IHDR", png_header(9, 9)), (b"IEND", b"")), "truncated damaged"),
        "a png of size 0": (png_chunks((b"IHDR", png_header(0, 9)), (b"IDAT", b"")), "damaged no_pixels"),
        "a png bomb": (png_chunks((b"IHDR", png_header(60000, 60000)), (b"IDAT", b"")), "too_large"),
        "a png beyond all numbers": (png_chunks((b"IHDR", png_header(2**31, 2**31)), (b"IDAT", b"")), "too_large"),
        "a jpeg bomb": (jpeg_of_size(65500, 65500), "too_large"),
        "a tiff bomb": (tiff(60000, 60000, entry(273, 4, 1, 150), entry(279, 4, 1, 100)), "too_large"),
        "a gif bomb": (kinds["GIF"][:6] + struct.pack("<HH", 65500, 65500) + kinds["GIF"][10:], "too_large"),
        "a tiff that ends": (tiff(500, 500, entry(273, 4, 1, 150), entry(279, 4, 1, 100)), "truncated damaged"),
        "a tiff without strips": (tiff(10, 10), "damaged truncated"),
        "strips beyond the file": (tiff(10, 10, entry(273, 4, 1, 2**31), entry(279, 4, 1, 100)), "truncated damaged"),
        "a tiff in no known way": (
            tiff(10, 10, entry(273, 4, 1, 150), entry(279, 4, 1, 100), compression=4711),
            "damaged",
        ),
    }


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return readable()


@pytest.fixture(scope="module")
def others() -> dict[str, tuple[bytes, str]]:
    return refused()


ALL_WAYS = [{}, {"cover": (8, 8)}, {"truncated": True}, {"cover": (8, 8), "truncated": True}]


def outcome(path: Path, content: bytes, options: dict) -> str:
    """``read``, or the code of the refusal; the file is as it was."""
    path.write_bytes(content)
    before = path.stat()
    try:
        photo = read_photo(path, **options)
        assert photo.image.mode == "RGB"
        assert photo.stamp == (before.st_size, before.st_mtime_ns)
        result = "read" if not photo.reason else f"read, {photo.reason.partition(':')[0]}"
    except ImageError as error:
        assert error.code in CODES
        assert 0 < len(str(error)) < 200 and str(error).isprintable()
        result = error.code
    assert path.read_bytes() == content
    assert path.stat() == before or path.stat().st_mtime_ns == before.st_mtime_ns
    return result


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", ALL_WAYS, ids=str)
def test_odd_pictures_are_read(pictures: dict[str, bytes], tmp_path: Path, options: dict) -> None:
    assert len(pictures) >= 45
    results = {name: outcome(tmp_path / "a.jpg", content, options) for name, content in pictures.items()}
    assert {name: result for name, result in results.items() if result != "read"} == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", ALL_WAYS, ids=str)
def test_damaged_files_are_refused_with_their_code(
    others: dict[str, tuple[bytes, str]], tmp_path: Path, options: dict
) -> None:
    assert len(others) >= 45
    wrong = {}
    for name, (content, codes) in others.items():
        result = outcome(tmp_path / "a.jpg", content, options)
        allowed = [*codes.split(), "read, truncated"] if options.get("truncated") else codes.split()
        if result not in allowed:
            wrong[name] = (result, codes)
    assert wrong == {}


def test_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        pytest.fail("reading a picture started a process")

    for name in ("Popen", "call", "check_call", "check_output", "run"):
        monkeypatch.setattr(subprocess, name, started)
    content = saved(PICTURE, "EPS")
    assert outcome(tmp_path / "a.jpg", content, {}) == "not_an_image"
    preview = (
        b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 32, len(content), 0, 0, 0, 0, 0xFFFF) + b"\x00\x00" + content
    )
    assert outcome(tmp_path / "a.jpg", preview, {}) == "not_an_image"


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "missing"),
    "a folder": (Path.mkdir, "folder"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "missing"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "link_loop"),
    "a link to a folder": (lambda path: path.symlink_to("."), "folder"),
    "a pipe": (os.mkfifo, "not_a_file"),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    make, code = PLACES[name]
    make(tmp_path / "a.jpg")
    with pytest.raises(ImageError) as caught:
        read_photo(tmp_path / "a.jpg")
    assert caught.value.code == code


def test_names_that_hardly_are(tmp_path: Path) -> None:
    content = saved(PICTURE, "PNG")
    for name in ("two\nlines.jpg", os.fsdecode(b"not \xff utf-8.jpg"), " ", "-rf", "a" * 250 + ".jpg", "鳥\u202e.jpg"):
        assert outcome(tmp_path / name, content, {}) == "read"
    for name, code in {"a" * 300: "unreadable", "null\0byte": "missing", "a.jpg/b.jpg": "missing"}.items():
        with pytest.raises(ImageError) as caught:
            read_photo(str(tmp_path / name))
        assert caught.value.code == code


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(PICTURE, "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # nothing is forbidden to root
        monkeypatch.setattr("builtins.open", _forbidden)
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    assert caught.value.code == "permission"


def _forbidden(*arguments: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("count", [1500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_headers(count: int) -> None:
    script = Path(__file__).with_name("mutated_headers.py")
    # A hang ends here; a crash of a decoder ends the process with a signal.
    command = [sys.executable, str(script), "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + count / 20, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert sum(result["outcomes"].values()) == count
    assert {"read", "damaged", "truncated", "not_an_image", "too_large"} <= result["outcomes"].keys()
    assert result["slowest"] < 5
    assert result["grown"] < 2**30
