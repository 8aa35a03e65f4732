"""The field guide: one plate that shows every species once."""

from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from birder.data.drawn.birds import DrawnBirds
from birder.data.drawn.chance import generator
from birder.data.drawn.colours import Colour
from birder.data.drawn.plumage import paint
from birder.data.drawn.pose import Pose
from birder.data.drawn.species import Species

_PAPER: Colour = (240, 230, 206)
_INK: Colour = (62, 54, 46)
_FADED: Colour = (124, 110, 92)
_WASH: Colour = (206, 198, 158)
_CELL = (250, 270)
"""Height and width of one species on the plate, in pixels."""


def field_guide(birds: DrawnBirds) -> Image.Image:
    """A plate on cream paper with every species from the side, its names beneath; families follow each other."""
    columns = 4 if birds.species <= 24 else 6
    columns = min(columns, birds.species)
    height, width = _CELL
    margin = 30
    rows = -(-birds.species // columns)
    plate = Image.new("RGB", (columns * width + 2 * margin, rows * height + 2 * margin), _PAPER)
    draw = ImageDraw.Draw(plate)
    draw.rectangle((12, 12, plate.width - 13, plate.height - 13), outline=_FADED)
    for label, species in enumerate(birds.species_list):
        left, top = margin + label % columns * width, margin + label // columns * height
        _portrait(plate, species, (left, top), generator(birds.seed, "guide", label))
        middle = left + width / 2
        draw.text((middle, top + height - 44), species.name, _INK, ImageFont.load_default(17), anchor="mm")
        draw.text((middle, top + height - 24), species.scientific_name, _FADED, ImageFont.load_default(12), anchor="mm")
    return plate


def _portrait(plate: Image.Image, species: Species, corner: tuple[int, int], rng: Generator) -> None:
    """Paint one bird into its cell, before a faint wash of colour."""
    height, width = _CELL[0] - 66, _CELL[1] - 40
    support = species.shape.supports[0]
    bird = paint(species, Pose(support="ground" if support == "shallows" else support), (height - 14, width), rng)
    left = corner[0] + (_CELL[1] - bird.image.width) // 2
    top = corner[1] + height - bird.image.height
    wash = Image.new("L", plate.size)
    x, y, wide = left + bird.feet[0], top + bird.feet[1], bird.unit * 0.7
    ImageDraw.Draw(wash).ellipse((x - wide, y - wide * 0.08, x + wide, y + wide * 0.1), fill=200)
    wash = wash.filter(ImageFilter.BoxBlur(5))
    if support not in ("air", "trunk"):
        plate.paste(Image.new("RGB", plate.size, _WASH), mask=wash)
    plate.paste(bird.image, (left, top), bird.image)
