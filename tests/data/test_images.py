"""Every picture that exists in the wild is read right, or refused with a reason that helps."""

import csv
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from birder.data.colours import to_rgb
from birder.data.drawn.folder import STORED
from birder.data.images import IMAGE_SUFFIXES, read_image
from birder.errors import ImageError

RED, GREEN, BLUE, GREY = (200, 40, 40), (30, 160, 60), (40, 60, 190), (120, 120, 120)


def quarters(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A picture whose four quarters are red, green, blue and grey: a turn or a wrong colour shows."""
    image = Image.new("RGB", size, GREY)
    width, height = size
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def distance(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two pictures of one size, in levels of 255."""
    assert first.size == second.size
    return float(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).mean())


def reason(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source)
    return str(caught.value)


def test_a_picture_is_the_same_from_path_bytes_image_and_array(tmp_path: Path) -> None:
    picture = quarters()
    path = tmp_path / "name with spaces, ümläut and 鳥"
    path.write_bytes(saved(picture, "PNG"))
    for source in (path, str(path), path.read_bytes(), Image.open(path), picture, np.asarray(picture)):
        result = read_image(source)
        assert result.mode == "RGB" and distance(result, picture) == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_colour_modes_keep_their_colours(mode: str) -> None:
    picture = quarters()
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(picture, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    elif mode == "RGBa":
        image = picture.convert("RGBA").convert("RGBa")
    elif mode == "PA":
        image = picture.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    else:
        image = picture.convert(mode, palette=Image.Palette.ADAPTIVE) if mode == "P" else picture.convert(mode)
    assert image.mode == mode
    result = read_image(image)
    assert result.mode == "RGB"
    assert distance(result, picture) < 2
    assert image.mode == mode  # what was given is as it was


@pytest.mark.parametrize("mode", ["L", "LA", "La", "1"])
def test_grey_modes_become_three_equal_channels(mode: str) -> None:
    picture = Image.linear_gradient("L")
    image = picture.convert("LA").convert("La") if mode == "La" else picture.convert(mode, dither=Image.Dither.NONE)
    red, green, blue = (np.asarray(channel) for channel in read_image(image).split())
    assert (red == green).all() and (green == blue).all()
    wanted = np.where(np.asarray(picture) > 127, 255, 0) if mode == "1" else np.asarray(picture)
    assert np.abs(red.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("brightest", [65535, 4095])
def test_16_bit_grey_is_scaled_not_clipped(dtype: str, brightest: int) -> None:
    values = np.linspace(0, brightest, 256 * 4).reshape(4, 256).astype(dtype)
    mode = "I;16B" if dtype == ">u2" else "I;16"
    image = Image.frombytes(mode, (256, 4), values.tobytes())
    result = np.asarray(read_image(image))[..., 0]
    assert np.abs(result - values.astype(float) / 257).max() <= 1
    assert result.max() == brightest // 256


def test_16_bit_png_is_read_like_its_8_bit_twin() -> None:
    twin = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    image = Image.fromarray(twin.astype(np.uint16) * 257)
    assert (np.asarray(read_image(saved(image, "PNG")))[..., 1] == twin).all()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 257.0, 65535.0]], np.float32), [0, 1, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0, 0, 0]], np.int32), [0, 0, 0]),
    ],
)
def test_grey_of_32_bits_is_taken_by_its_values(values: np.ndarray, wanted: list[int]) -> None:
    result = np.asarray(read_image(Image.fromarray(values)))
    assert result.shape == (1, 3, 3)
    assert np.abs(result[0, :, 0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "palette bytes", "RGB key", "L key"])
def test_transparent_places_are_white(kind: str) -> None:
    picture = Image.new("RGB", (20, 10), (0, 0, 0))
    if kind in ("RGBA", "LA"):
        image = picture.convert(kind)
        image.paste((0, 0, 0, 0) if kind == "RGBA" else (0, 0), (10, 0, 20, 10))
    elif kind.startswith("palette"):
        image = Image.new("P", (20, 10), 0)
        image.putpalette([0, 0, 0, 90, 90, 90])
        image.paste(1, (10, 0, 20, 10))
        image.info["transparency"] = 1 if kind == "palette" else b"\xff\x00"
    else:
        image = Image.new(kind[:-4], (20, 10))
        image.paste((90, 90, 90) if kind == "RGB key" else 90, (10, 0, 20, 10))
        image.info["transparency"] = (90, 90, 90) if kind == "RGB key" else 90
    for source in (image, saved(image, "PNG")):
        result = np.asarray(read_image(source))
        assert (result[:, :10] == 0).all()
        assert (result[:, 10:] == 255).all()


def test_half_transparent_is_mixed_with_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 51))
    assert np.asarray(read_image(image)).tolist() == np.full((4, 4, 3), 204).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright_once(kind: str, orientation: int) -> None:
    picture = quarters((64, 32))
    stored = picture.transpose(STORED[orientation]) if orientation > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    content = saved(stored, kind, exif=exif, **options)

    upright = read_image(content)
    assert distance(upright, picture) < 2
    assert distance(read_image(upright), upright) == 0  # the tag is gone with the turn
    assert distance(read_image(Image.open(io.BytesIO(content))), picture) < 2


def test_a_given_image_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    given = Image.open(io.BytesIO(saved(quarters(), "PNG", exif=exif)))
    before = given.copy()
    assert read_image(given).size == (40, 60)
    assert given.size == (60, 40) and given.getexif()[0x0112] == 6
    assert given.tobytes() == before.tobytes()
    plain = quarters()
    assert read_image(plain) is plain


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_tags_cost_only_the_orientation() -> None:
    content = saved(quarters(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f" + b"\xff" * 40)
    assert read_image(content).size == (60, 40)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    others = [Image.new("RGB", (60, 40), colour) for colour in ("black", "white")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(quarters(), kind, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert distance(read_image(content), quarters()) < 2


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 3), 7, np.uint8), 7),
        (np.full((2, 3, 4), 255, np.uint8), 255),
        (np.full((2, 3, 3), 0.2, np.float64), 51),
        (np.full((4, 6, 3), 9, np.uint8)[::2, ::2], 9),
    ],
)
def test_arrays(array: np.ndarray, wanted: int) -> None:
    result = np.asarray(read_image(array))
    assert result.shape == (2, 3, 3) and (result == wanted).all()


def test_a_transparent_array_is_white() -> None:
    assert np.asarray(read_image(np.zeros((2, 2, 4), np.uint8))).min() == 255


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "the file is empty"),
        (b"Dear diary, today I saw no bird at all.", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "begins like a PNG"),
        (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40, "pip install pillow-heif"),
        (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.full((8, 8, 3), 200.0), "for 0 to 255 give uint8"),
        (np.full((8, 8, 3), np.nan), "from 0 to 1"),
        (np.zeros((0, 8, 3), np.uint8), "without pixels"),
        (Image.new("RGB", (0, 8)), "without pixels"),
        (17, "not int"),
        ([1, 2], "not list"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_is_refused_with_a_reason(source: object, words: str) -> None:
    assert words in reason(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_refused(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8))
    content = saved(noise, kind)
    text = reason(content[: int(part * len(content))])
    assert "truncated" in text or "damaged" in text
    if kind in ("JPEG", "PNG", "BMP"):
        assert text == "truncated: the file ends before the picture does"


def test_a_lazy_image_that_cannot_be_decoded_is_refused() -> None:
    content = saved(Image.effect_noise((80, 90), 50), "PNG")
    assert "truncated" in reason(Image.open(io.BytesIO(content[: len(content) // 2])))


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_never_raise_anything_else(seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO"][seed % 10]
    content = bytearray(saved(Image.effect_noise((48, 48), 50).convert("RGB"), kind))
    for place in random.integers(0, len(content), 12):
        content[place] = random.integers(0, 256)
    try:
        assert read_image(bytes(content)).mode == "RGB"
    except ImageError as error:
        assert 0 < len(str(error)) < 200 and "\n" not in str(error)


def bomb(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims to be that large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    assert reason(bomb(20000, 20000)) == "a picture of 400 megapixels: more than the limit of 179"


def test_between_the_limits_a_picture_is_read_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(quarters(), "PNG")  # 2400 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.warns(Image.DecompressionBombWarning):
        assert distance(read_image(content), quarters()) == 0
    assert "more than the limit" in reason(content)  # with warnings as errors, as in these tests
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "more than the limit" in reason(content)


def test_a_text_bomb_in_a_png_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    assert "damaged" in reason(saved(quarters(), "PNG", pnginfo=info))


def test_no_memory_is_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise MemoryError

    content = saved(quarters(), "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert reason(content) == "not enough memory to read it"


def test_paths_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(tmp_path / "nothing.jpg") == "no such file"
    assert reason("null\0byte.jpg") == "no such file"
    assert reason(tmp_path) == "a folder, not a picture"
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    assert reason(tmp_path / "empty.jpg" / "below.jpg") == "no such file"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert reason(tmp_path / "loop.jpg") == "a link that leads to itself"

    def refused(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)  # the tests may run as root, whom nothing is forbidden
    assert reason(tmp_path / "empty.jpg") == "no permission to read it"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not an ordinary file"


def test_suffixes_are_lower_case_and_hold_the_common_ones() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".heic", ".tif", ".avif", ".gif", ".bmp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_to_rgb_returns_rgb_itself() -> None:
    picture = quarters()
    assert to_rgb(picture) is picture


@pytest.fixture(scope="module")
def manifest(shared: Path) -> dict[Path, str]:
    with open(shared / "hard_images" / "manifest.csv", encoding="utf-8", newline="") as file:
        return {shared / "hard_images" / row["file"]: row["expected"] for row in csv.DictReader(file)}


SMALL_ENOUGH = 700_000  # bytes; camera originals of many megapixels take seconds


def test_hard_pictures_do_what_their_manifest_says(manifest: dict[Path, str]) -> None:
    wrong = []
    for path, expected in manifest.items():
        if path.stat().st_size > SMALL_ENOUGH:
            continue
        try:
            read_image(path)
            outcome = "decodes"
        except ImageError as error:
            outcome = f"refused: {error}"
        allowed = {
            "decodes": outcome == "decodes",
            "refused": outcome.startswith("refused"),
            "no crash": True,
        }
        optional = "refused cleanly" in expected or "passed over" in expected
        if not (optional or next(fits for start, fits in allowed.items() if expected.startswith(start))):
            wrong.append((path.name, expected, outcome))
    assert wrong == []


# Mean absolute difference from the base photo, both as 64 x 64, in levels of 255. The GIF has 256 colours; quality_8 is
# what its name says.
FORMS = {
    "cmyk.jpg": 2.0,
    "progressive.jpg": 2.0,
    "quality_8.jpg": 6.0,
    "palette.png": 4.0,
    "palette_transparent.gif": 7.0,
    "lossy.webp": 2.0,
    "photo.avif": 2.0,
    "photo.bmp": 2.0,
    "photo.tif": 2.0,
    "png_named.jpg": 2.0,
    "animated.webp": 4.0,
}
GREY_FORMS = {"grey.jpg": 2.0, "grey16.png": 2.0}


@pytest.mark.parametrize("bird", ["woodpecker", "hummingbird"])
def test_all_forms_of_a_photo_look_like_it(shared: Path, bird: str) -> None:
    folder = shared / "hard_images" / "variants"

    def small(name: str) -> Image.Image:
        return read_image(folder / f"{bird}_{name}").resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=3)

    base = small("base.jpg")
    grey = base.convert("L").convert("RGB")
    far = {name: distance(small(name), base) for name in FORMS} | {
        name: distance(small(name), grey) for name in GREY_FORMS
    }
    assert {name: value for name, value in far.items() if value > (FORMS | GREY_FORMS)[name]} == {}
    for orientation in range(1, 9):
        assert distance(small(f"exif_orientation_{orientation}.jpg"), base) < 2.0


@pytest.mark.parametrize("bird", ["woodpecker", "hummingbird"])
@pytest.mark.parametrize("name", ["alpha.png", "alpha.webp", "grey_alpha.png"])
def test_masked_photos_are_themselves_inside_and_white_outside(shared: Path, bird: str, name: str) -> None:
    folder = shared / "hard_images" / "variants"
    result = read_image(folder / f"{bird}_{name}")
    base = read_image(folder / f"{bird}_base.jpg").resize(result.size, Image.Resampling.BICUBIC, reducing_gap=3)
    base = base.convert("L").convert("RGB") if "grey" in name else base
    width, height = result.size
    middle = (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
    assert distance(result.crop(middle), base.crop(middle)) < 5
    assert np.asarray(result.crop((0, 0, 3, 3))).min() > 250
