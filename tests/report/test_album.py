"""Pictures of a report: small, without what is in their files, and no error if they are gone."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from birder.data.samples import Files, Samples
from birder.report.album import Album, sprite


def picture_of(url: str) -> Image.Image:
    kind, _, text = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def samples_of(*paths: Path) -> Samples:
    return Samples(Files.at(paths), np.zeros(len(paths)), {"Wren": 0})


def test_a_picture_is_kept_once(pictures: Callable[..., Samples]) -> None:
    album = Album(pictures(("Wren", "Emu")))
    assert album.add([5, 3, 5]) == [0, 1, 0]
    assert album.add(np.array([3, 7])) == [1, 2]
    assert album.pictures == [5, 3, 7] and len(album.thumbnails(16)) == 3


def test_thumbnails_are_upright_small_and_say_nothing_else(tmp_path: Path) -> None:
    large = Image.new("RGB", (1200, 800), (200, 0, 0))
    large.paste((0, 0, 200), (0, 0, 600, 800))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn right to view: blue, at the left, comes to the top
    exif[ExifTags.Base.Artist] = "Somebody"
    large.save(tmp_path / "a.jpg", exif=exif)
    album = Album(samples_of(tmp_path / "a.jpg"))
    album.add([0])
    (url,) = album.thumbnails(120)
    found = picture_of(url)
    assert found.size == (80, 120) and not found.getexif()
    assert b"Somebody" not in base64.b64decode(url.partition(",")[2])
    top, bottom = (found.convert("RGB").getpixel((40, row)) for row in (20, 100))
    assert top[2] > 180 > 60 > top[0] and bottom[0] > 180 > 60 > bottom[2]


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_text("no picture")
    album = Album(samples_of(tmp_path / "b.jpg", tmp_path / "gone.jpg"))
    album.add([0, 1])
    assert album.thumbnails(16) == ["", ""]


def test_a_sprite_has_its_tiles_in_order(tmp_path: Path) -> None:
    shades = (0, 80, 160, 240)
    for shade in shades:
        Image.new("RGB", (60, 30), (shade,) * 3).save(tmp_path / f"{shade}.png")
    samples = samples_of(*(tmp_path / f"{shade}.png" for shade in shades), tmp_path / "gone.png")
    sheet = picture_of(sprite(samples, [0, 1, 2, 3, 4], tile=16, columns=3)).convert("L")
    assert sheet.size == (48, 32)
    for number, shade in enumerate((*shades, 128)):
        assert abs(sheet.getpixel((number % 3 * 16 + 8, number // 3 * 16 + 8)) - shade) < 12
