"""A sheet of pictures in rows, with words above each row and below each picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from birder.data.images import IMAGE_SUFFIXES
from birder.data.tables import check_folder
from birder.errors import ConfigError
from birder.files import atomic

PAPER, INK, FAINT = (250, 248, 242), (40, 40, 44), (120, 118, 112)
_GAP, _HEAD, _CAPTION, _LETTERS = 12, 26, 20, 14


@dataclass(frozen=True, kw_only=True)
class Row:
    """Pictures side by side."""

    title: str
    """The line above."""
    pictures: Sequence[Image.Image]
    """RGB, of any sizes."""
    captions: Sequence[str] = ()
    """A line below each; none for some or all."""


def sheet_of_rows(rows: Sequence[Row], *, tile: int = 224) -> Image.Image:
    """An RGB picture of the rows, one below the other.

    Args:
        rows: What to show; at least one.
        tile: Height and width that each picture is fitted into, in pixels.
    """
    columns = max(len(row.pictures) for row in rows)
    height = _HEAD + tile + (_CAPTION if any(row.captions for row in rows) else 0) + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (tile + _GAP), _GAP + len(rows) * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = _GAP + number * height
        _write(draw, row.title, (_GAP, top), sheet.width - 2 * _GAP, INK)
        for column, picture in enumerate(row.pictures):
            left = _GAP + column * (tile + _GAP)
            fitted = ImageOps.contain(picture, (tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(fitted, (left + (tile - fitted.width) // 2, top + _HEAD + (tile - fitted.height) // 2))
            if column < len(row.captions):
                _write(draw, row.captions[column], (left, top + _HEAD + tile + 3), tile, FAINT)
    return sheet


def check_sheet(path: Path) -> None:
    """Say now what would keep ``write_sheet`` from writing when the work is done.

    Raises:
        ConfigError: A suffix that is not one of a picture, or a folder that cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES or Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise ConfigError(f"{path}: a sheet goes to a picture file, such as sheet.png")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; a sheet goes to a file")
    check_folder(path.parent)


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet atomically, in the format that the suffix names; folders that are not there are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        sheet.save(temporary)


def _write(draw: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, colour: tuple[int, ...]) -> None:
    """Write one line; what is too long loses its beginning, as the end of a path says most."""
    font = ImageFont.load_default(_LETTERS)
    shown = text = "".join(letter if letter.isprintable() else " " for letter in text)
    while len(text) > 1 and draw.textlength(shown, font=font) > width:
        text = text[1:]
        shown = f"…{text}"
    draw.text(place, shown, fill=colour, font=font)
