"""A contact sheet: pictures with what they were taken for, and what they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from birder.data.images import read_image

PAPER, INK, FAINT = (250, 248, 242), (40, 40, 44), (120, 118, 112)
RIGHT, WRONG = (64, 130, 84), (190, 66, 52)
GAP, CAPTION = 14, 46


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a sheet."""

    path: Path
    """The file."""
    species: str
    """What it was taken for."""
    probability: float
    """How surely, 0-1."""
    truth: str | None = None
    """What it is, None when nobody knows."""


def contact_sheet(tiles: Sequence[Tile], *, title: str = "", columns: int = 6, tile: int = 176) -> Image.Image:
    """An RGB picture of all tiles, row by row; those whose truth is known are framed green or red.

    Args:
        tiles: What to show; at least one.
        title: A line above.
        columns: Tiles in a row.
        tile: Width and height of a picture, in pixels.
    """
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    head = 56 if title else GAP
    size = (GAP + columns * (tile + GAP), head + rows * (tile + CAPTION + GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP, 16), title, fill=INK, font=ImageFont.load_default(24))
    for number, item in enumerate(tiles):
        left = GAP + number % columns * (tile + GAP)
        top = head + number // columns * (tile + CAPTION + GAP)
        sheet.paste(ImageOps.fit(read_image(item.path), (tile, tile), Image.Resampling.LANCZOS), (left, top))
        _caption(draw, item, left, top, tile)
    return sheet


def _caption(draw: ImageDraw.ImageDraw, item: Tile, left: int, top: int, tile: int) -> None:
    right = item.truth is None or item.truth == item.species
    if item.truth is not None:
        box = (left - 2, top - 2, left + tile + 1, top + tile + 1)
        draw.rectangle(box, outline=RIGHT if right else WRONG, width=3)
    name = f"{item.species}  {item.probability:.0%}"
    _line(draw, name, (left, top + tile + 6), tile, INK if right else WRONG)
    if not right:
        _line(draw, f"is {item.truth}", (left, top + tile + 25), tile, FAINT)


def _line(draw: ImageDraw.ImageDraw, text: str, position: tuple[int, int], width: int, colour: tuple[int, ...]) -> None:
    """Write one line, in letters small enough to fit; what is too long even then is cut."""
    text, size = " ".join(text.splitlines()), 15
    while size > 8 and draw.textlength(text, font=ImageFont.load_default(size)) > width:
        size -= 1
    font, written = ImageFont.load_default(size), text
    while len(text) > 1 and draw.textlength(written, font=font) > width:
        text = text[:-1]
        written = f"{text}…"
    draw.text(position, written, fill=colour, font=font)
