"""The contact sheet, read pixel by pixel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.errors import ImageError
from birder.evaluation.sheet import CAPTION, FAINT, GAP, INK, PAPER, RIGHT, WRONG, Tile, contact_sheet

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250), (10, 20, 30)]
SIDE = 176


@pytest.fixture
def tiles(tmp_path: Path) -> list[Tile]:
    """Seven pictures of one colour each, of different shapes."""
    found = []
    for number, colour in enumerate(COLOURS):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30 + 20 * number, 60), colour).save(path)
        found.append(Tile(path=path, species="Wren", probability=0.5))
    return found


def corner(number: int, *, columns: int = 6, side: int = SIDE, head: int = GAP) -> tuple[int, int]:
    """Left and top of a tile's picture."""
    return GAP + number % columns * (side + GAP), head + number // columns * (side + CAPTION + GAP)


def caption(sheet: Image.Image, number: int = 0, line: int = 0) -> np.ndarray:
    """Where one line below a picture is not paper, in all the width to the next picture's: (H, W)."""
    left, top = corner(number)
    first = top + SIDE + 4 + 20 * line
    box = (left, first, min(left + SIDE + GAP, sheet.width), first + 20)
    return (np.asarray(sheet.crop(box)) != PAPER).any(axis=2)


def width(ink: np.ndarray) -> int:
    return int(np.flatnonzero(ink.any(axis=0)).max(initial=-1)) + 1


def height(ink: np.ndarray) -> int:
    rows = np.flatnonzero(ink.any(axis=1))
    return int(rows[-1] - rows[0]) + 1


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (6, 6, 1), (7, 6, 2)])
def test_where_everything_is(tiles: list[Tile], count: int, columns: int, rows: int) -> None:
    sheet = contact_sheet(tiles[:count])
    assert (sheet.mode, sheet.size) == ("RGB", (GAP + columns * (SIDE + GAP), GAP + rows * (SIDE + CAPTION + GAP)))
    for number in range(count):
        left, top = corner(number, columns=columns)
        picture = np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE)))
        assert (picture == COLOURS[number]).all()
    pixels = np.asarray(sheet)
    assert (pixels[:GAP] == PAPER).all() and (pixels[:, :GAP] == PAPER).all() and (pixels[:, -GAP:] == PAPER).all()
    if count == 7:
        left, top = corner(1)
        assert (pixels[top + SIDE + CAPTION + GAP :, left:] == PAPER).all()


def test_columns_and_size_can_be_chosen(tiles: list[Tile]) -> None:
    sheet = contact_sheet(tiles[:3], columns=2, tile=40)
    assert sheet.size == (GAP + 2 * (40 + GAP), GAP + 2 * (40 + CAPTION + GAP))
    left, top = corner(2, columns=2, side=40)
    assert sheet.getpixel((left + 20, top + 20)) == COLOURS[2]


def test_pictures_are_cut_to_their_middle(tmp_path: Path) -> None:
    """A wide picture loses its ends and is not squeezed."""
    colours = np.zeros((100, 300, 3), np.uint8)
    colours[:, 100:200] = (0, 200, 0)
    Image.fromarray(colours).save(tmp_path / "wide.png")
    sheet = contact_sheet([Tile(path=tmp_path / "wide.png", species="", probability=1.0)])
    picture = np.asarray(sheet.crop((GAP + 6, GAP, GAP + SIDE - 6, GAP + SIDE)))
    assert (picture == (0, 200, 0)).all()


def test_a_title_makes_room(tiles: list[Tile]) -> None:
    plain, titled = contact_sheet(tiles[:1]), contact_sheet(tiles[:1], title="Wrens")
    assert titled.height - plain.height == 56 - GAP
    left, top = corner(0, head=56)
    assert titled.getpixel((left + 9, top + 9)) == COLOURS[0]
    head = np.asarray(titled)[:56]
    assert (head == INK).all(axis=2).any()
    assert (np.asarray(plain)[:GAP] == PAPER).all()


def test_frames_are_green_or_red_and_only_where_the_truth_is_known(tiles: list[Tile]) -> None:
    three = [replace(tiles[0], truth="Wren"), replace(tiles[1], truth="Robin"), tiles[2]]
    sheet = contact_sheet(three)
    for number, colour in enumerate((RIGHT, WRONG, PAPER)):
        left, top = corner(number)
        right, bottom = left + SIDE, top + SIDE
        middle = SIDE // 2
        outside = [(left - 2, top - 2), (right + 1, bottom + 1), (left - 1, top + middle), (right, top + middle)]
        outside += [(left + middle, top - 1), (left + middle, bottom)]
        assert {sheet.getpixel(point) for point in outside} == {colour}
        inside = [(left + 1, top + 1), (right - 2, bottom - 2), (left + middle, top + middle)]
        assert {sheet.getpixel(point) for point in inside} == {COLOURS[number]}
        innermost = [(left, top + middle), (left + middle, top), (right - 1, top + middle), (left + middle, bottom - 1)]
        assert {sheet.getpixel(point) for point in innermost} == {COLOURS[number] if colour == PAPER else colour}
        beyond = [(left - 3, top - 3), (right + 2, top + middle), (left + middle, bottom + 2)]
        assert {sheet.getpixel(point) for point in beyond} == {PAPER}


def test_a_mistake_is_written_in_red_with_the_truth_below(tiles: list[Tile]) -> None:
    sheet = contact_sheet([replace(tiles[0], truth="Wren"), replace(tiles[0], truth="Robin"), tiles[0]])
    below = []
    for number, colour in enumerate((INK, WRONG, INK)):
        left, top = corner(number)
        words = np.asarray(sheet.crop((left, top + SIDE + 4, left + SIDE, top + SIDE + 24)))
        assert (words == colour).all(axis=2).sum() > 20
        assert not (words == ({INK, WRONG} - {colour}).pop()).all(axis=2).any()
        truth = np.asarray(sheet.crop((left, top + SIDE + 24, left + SIDE, top + SIDE + CAPTION)))
        below.append((truth == FAINT).all(axis=2).sum())
    assert below[0] == below[2] == 0 and below[1] > 20


def test_the_probability_is_in_the_caption(tiles: list[Tile]) -> None:
    images = [
        contact_sheet([replace(tiles[0], probability=probability)]).tobytes() for probability in (0.5, 0.501, 0.99)
    ]
    assert images[0] == images[1] != images[2]


def test_long_names_shrink_and_stay_below_their_picture(tiles: list[Tile]) -> None:
    names = ["Wren", "Northern Beardless-Tyrannulet", "Sri Lanka Wood-pigeon of the High Forest", "Mm" * 60]
    sheet = contact_sheet([replace(tiles[0], species=name, truth=name * 2) for name in names])
    sizes = []
    for number in range(len(names)):
        name, truth = caption(sheet, number), caption(sheet, number, line=1)
        assert 0 < width(name) <= SIDE and 0 < width(truth) <= SIDE
        sizes.append(height(name))
    assert sizes[0] > sizes[2] >= 5
    assert width(caption(sheet, 3)) > 0.9 * SIDE


def test_names_in_unicode(tiles: list[Tile]) -> None:
    words = ["Grasmucke", "Grasmücke", "Ægir", "Łąka"]
    drawn = [caption(contact_sheet([replace(tiles[0], species=word)])) for word in words]
    dots = drawn[1] & ~drawn[0]
    assert dots.any() and not (drawn[0] & ~drawn[1])[:, : width(drawn[0]) // 3].any()
    for word in ("鳥", "עפרוני", "🦉", "a\nb"):
        assert contact_sheet([replace(tiles[0], species=word, truth="x")]).size == (GAP + SIDE + GAP, 250)


def test_a_file_that_cannot_be_read_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("no picture")
    with pytest.raises(ImageError, match="not a picture"):
        contact_sheet([Tile(path=tmp_path / "no.jpg", species="Wren", probability=1.0)])
