"""The drawn birds: equal knobs give equal pictures, names tell the truth, boxes fit, and species can be learned."""

import csv
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageOps, ImageStat

from birder.data.drawn import DrawnBirds, field_guide, write_folder
from birder.data.drawn.chance import generator
from birder.data.drawn.colours import PALETTE, contrast
from birder.data.drawn.names import NOUNS
from birder.data.drawn.plumage import paint
from birder.data.drawn.pose import strike_pose
from birder.data.drawn.scene import cast, compose
from birder.data.drawn.shapes import PLANS
from birder.data.drawn.species import MOST_FAMILIES, MOST_PER_FAMILY, difference
from birder.errors import ConfigError

SMALL = DrawnBirds(size=(64, 64))
DIGEST = """
from zlib import crc32
from birder.data.drawn import DrawnBirds
birds = DrawnBirds(size=(64, 80), birds=(1, 3))
print([crc32(birds.draw(label, 5, "val").image.tobytes()) for label in (11, 0, 4)])
"""


def test_equal_arguments_give_equal_pictures_in_any_order() -> None:
    first = [DrawnBirds(size=(64, 64)).draw(label, 3) for label in range(4)]
    again = [SMALL.draw(label, 3) for label in reversed(range(4))][::-1]
    assert [drawing.image.tobytes() for drawing in first] == [drawing.image.tobytes() for drawing in again]
    assert [drawing.boxes for drawing in first] == [drawing.boxes for drawing in again]


def test_a_fresh_process_draws_the_same(root: Path) -> None:
    def digest(salt: str) -> str:
        environment = {"PYTHONHASHSEED": salt, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=root, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert digest("1") == digest("2")


def test_index_split_seed_and_species_all_count() -> None:
    other = DrawnBirds(size=(64, 64), seed=1)
    drawings = [SMALL.draw(0, 0), SMALL.draw(0, 1), SMALL.draw(0, 0, "val"), SMALL.draw(1, 0), other.draw(0, 0)]
    assert len({drawing.image.tobytes() for drawing in drawings}) == 5


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (97, 131), (224, 160)])
def test_pictures_have_the_asked_size(size: tuple[int, int]) -> None:
    image = DrawnBirds(size=size).draw(2, 0).image
    assert image.mode == "RGB"
    assert (image.height, image.width) == size


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    families=st.integers(1, 6),
    per_family=st.integers(1, 8),
    difficulty=st.floats(0, 1),
)
def test_names_are_unique_and_true(seed: int, families: int, per_family: int, difficulty: float) -> None:
    world = DrawnBirds(families=families, species=families * per_family, difficulty=difficulty, seed=seed)
    everyone = world.species_list
    assert len({species.name for species in everyone}) == len(everyone) == families * per_family
    assert len({species.scientific_name for species in everyone}) == len(everyone)
    for species in everyone:
        told = species.name.split("-")[0].lower()
        assert getattr(species.plumage, species.mark) == told
        assert species.plumage.shows(species.mark)
        behind = {"crown": "head", "wing": "back", "belly": "wing", "tail_tip": "tail"}.get(species.mark)
        if behind:
            assert contrast(PALETTE[told], species.plumage.colour(behind)) > 0.15


def test_few_siblings_could_bear_each_others_names() -> None:
    shared = total = 0
    for seed in range(12):
        everyone = DrawnBirds(families=4, species=16, seed=seed).species_list
        for one in everyone:
            siblings = [other for other in everyone if other.family == one.family]
            told = getattr(one.plumage, one.mark)
            shared += sum(getattr(other.plumage, one.mark) == told for other in siblings) - 1
            total += 1
    assert shared <= 0.02 * total


def test_species_are_spread_over_families_that_share_their_build() -> None:
    world = DrawnBirds(families=5, species=18)
    assert sorted(Counter(species.family for species in world.species_list).values()) == [3, 3, 4, 4, 4]
    for family in {species.family for species in world.species_list}:
        shapes = [species.shape for species in world.species_list if species.family == family]
        assert len({shape.plan for shape in shapes}) == 1
        assert len({shape.bill for shape in shapes}) == 1
        lengths = [shape.bill_length for shape in shapes]
        assert max(lengths) < 1.25 * min(lengths)


def test_the_largest_worlds_can_be_invented() -> None:
    assert len({s.name for s in DrawnBirds(families=1, species=MOST_PER_FAMILY).species_list}) == MOST_PER_FAMILY
    many = DrawnBirds(families=MOST_FAMILIES, species=2 * MOST_FAMILIES, difficulty=1).species_list
    assert len({species.family for species in many}) == MOST_FAMILIES
    assert len({s.name for s in DrawnBirds(families=8, species=50).species_list}) == 50
    assert NOUNS.keys() == PLANS.keys()


@pytest.mark.parametrize("number", [1, 4])
def test_boxes_are_around_the_birds(number: int) -> None:
    size = (96, 120)
    everyone = DrawnBirds(families=11, species=11).species_list
    for label in range(11):
        rng = generator(0, "test", label)
        birds = [(everyone[i], support) for i, support in cast(label, number, everyone, rng)]
        image, actors = compose(birds, size, 0.5, rng)
        assert birds[0][0] is everyone[label]
        assert len(actors) == number
        for actor in actors:
            left, top, right, bottom = actor.box()
            assert 0 <= left < right <= image.width
            assert 0 <= top < bottom <= image.height
            assert (right - left) * (bottom - top) > 0.01 * image.width * image.height
            solid = np.zeros(size, dtype=bool)
            alpha = np.asarray(actor.tile.getchannel("A")) >= 64
            solid[actor.top : actor.top + alpha.shape[0], actor.left : actor.left + alpha.shape[1]] = alpha
            rows, columns = np.nonzero(solid)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_every_plan_can_be_painted_on_all_its_supports() -> None:
    for species in DrawnBirds(families=11, species=11).species_list:
        for support in set(species.shape.supports):
            rng = generator(1, species.name, support)
            bird = paint(species, strike_pose(species.shape, support, rng), (90, 90), rng)
            solid = np.asarray(bird.image.getchannel("A")) > 128
            assert max(bird.image.size) <= 96
            assert 0.08 < solid.mean() < 0.8
            # Nothing is cut off at the rim of the tile.
            assert not solid[0].any() and not solid[-1].any() and not solid[:, 0].any() and not solid[:, -1].any()


def test_several_birds_share_a_picture() -> None:
    world = DrawnBirds(size=(64, 64), birds=(2, 4))
    drawings = [world.draw(label, 0) for label in range(12)]
    assert {len(drawing.boxes) for drawing in drawings} == {2, 3, 4}
    for label, drawing in enumerate(drawings):
        assert drawing.label == drawing.boxes[0].label == label
        assert drawing.name == world.species_list[label].name
    assert any(box.label != drawing.label for drawing in drawings for box in drawing.boxes)


@pytest.mark.parametrize(
    ("knobs", "problem"),
    [
        ({"families": 0}, "families is 0"),
        ({"families": MOST_FAMILIES + 1, "species": 99}, "families is"),
        ({"species": 3}, "species is 3; use 4"),
        ({"species": 4 * MOST_PER_FAMILY + 1}, "species is"),
        ({"difficulty": -0.1}, "difficulty is -0.1; use 0"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"size": (8, 128)}, r"size is \(8, 128\)"),
        ({"size": (128,)}, "two numbers"),
        ({"seed": -1}, "seed is -1"),
        ({"birds": (0, 1)}, r"birds is \(0, 1\)"),
        ({"birds": (3, 2)}, r"birds is \(3, 2\)"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        DrawnBirds(**knobs)  # type: ignore[arg-type]


def test_pictures_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no label 12; use 0 to 11"):
        SMALL.draw(12, 0)
    with pytest.raises(ConfigError, match="no picture -1"):
        SMALL.draw(0, -1)
    with pytest.raises(ConfigError, match="per_species is 0"):
        write_folder(SMALL, tmp_path, 0)
    with pytest.raises(ConfigError, match="workers is 0"):
        write_folder(SMALL, tmp_path, 1, workers=0)


def read_boxes(folder: Path) -> list[dict[str, str]]:
    with open(folder / "boxes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_has_every_picture_and_its_boxes(tmp_path: Path) -> None:
    world = DrawnBirds(size=(48, 64), birds=(1, 2))
    done: list[int] = []
    paths = write_folder(world, tmp_path, 2, split="val", progress=done.append)
    assert done == list(range(1, 25))
    assert [path.relative_to(tmp_path).as_posix() for path in paths[:3]] == [
        f"{world.species_list[0].name}/0001.jpg",
        f"{world.species_list[0].name}/0002.jpg",
        f"{world.species_list[1].name}/0001.jpg",
    ]
    assert sorted(tmp_path.rglob("*.jpg")) == sorted(paths)
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in (".jpg", ".csv", "")]
    rows = read_boxes(tmp_path)
    assert {row["path"] for row in rows} == {path.relative_to(tmp_path).as_posix() for path in paths}
    drawing = world.draw(0, 1, "val")
    mine = [row for row in rows if row["path"].endswith(f"{drawing.name}/0002.jpg")]
    assert [(int(row["label"]), int(row["left"]), int(row["bottom"])) for row in mine] == [
        (box.label, box.left, box.bottom) for box in drawing.boxes
    ]
    assert all(row["name"] == world.species_list[int(row["label"])].name for row in rows)
    with Image.open(paths[1]) as image:
        assert ImageStat.Stat(ImageChops.difference(image, drawing.image)).mean[1] < 4
        assert not image.getexif()


def test_workers_change_nothing(tmp_path: Path) -> None:
    world = DrawnBirds(families=1, species=2, size=(48, 48), metadata=True)
    alone = write_folder(world, tmp_path / "alone", 2)
    together = write_folder(world, tmp_path / "together", 2, workers=2)
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]
    assert (tmp_path / "alone/boxes.csv").read_bytes() == (tmp_path / "together/boxes.csv").read_bytes()


def test_metadata_is_as_from_a_camera_and_turns_the_picture_upright(tmp_path: Path) -> None:
    world = DrawnBirds(size=(56, 80), metadata=True)
    orientations = set()
    for number, path in enumerate(write_folder(world, tmp_path, 2)):
        with Image.open(path) as image:
            exif = image.getexif()
            upright = ImageOps.exif_transpose(image)
        orientations.add(exif[ExifTags.Base.Orientation])
        taken = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]
        assert "05:30:00" <= taken.split()[1] <= "20:30:00"
        assert exif[ExifTags.Base.Make] and exif[ExifTags.Base.Model]
        drawn = world.draw(number // 2, number % 2).image
        assert upright.size == drawn.size
        assert ImageStat.Stat(ImageChops.difference(upright, drawn)).mean[1] < 5
    assert orientations == set(range(1, 9))


def test_difficulty_makes_siblings_alike_birds_small_and_backdrops_busy() -> None:
    alike, area, busy = [], [], []
    for difficulty in (0.0, 0.5, 1.0):
        gaps, areas, edges = [], [], []
        for seed in range(4):
            world = DrawnBirds(difficulty=difficulty, size=(64, 64), seed=seed)
            for one, other in pairwise(world.species_list):
                if one.family == other.family:
                    gaps.append(difference(one.plumage, other.plumage))
            for label in range(0, 12, 2):
                drawing = world.draw(label, 0)
                box = drawing.boxes[0]
                areas.append((box.right - box.left) * (box.bottom - box.top))
                edges.append(np.abs(np.diff(np.asarray(drawing.image, dtype=float)[:12], axis=1)).mean())
        alike.append(np.mean(gaps))
        area.append(np.mean(areas))
        busy.append(np.mean(edges))
    assert alike[0] > 1.15 * alike[1] > 1.3 * alike[2]
    assert area[0] > area[1] > area[2]
    assert busy[0] < busy[1] < busy[2]


def portraits(world: DrawnBirds, split: str, per_species: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels of the birds alone, cut out by their boxes and turned to both sides, (N, 2, D), and their labels."""
    rows = []
    for label in range(world.species):
        for index in range(per_species):
            drawing = world.draw(label, index, split)
            box = drawing.boxes[0]
            bird = drawing.image.crop((box.left, box.top, box.right, box.bottom)).resize((12, 12))
            pixels = np.asarray(bird, dtype=np.float64) - np.mean(bird)
            rows.append([pixels.ravel(), pixels[:, ::-1].ravel()])
    return np.array(rows), np.repeat(np.arange(world.species), per_species)


def nearest_right(difficulty: float) -> float:
    """How often the most similar known portrait is of the same species; chance is 1 in 12."""
    world = DrawnBirds(size=(64, 64), difficulty=difficulty)
    known, labels = portraits(world, "train", 12)
    asked, truth = portraits(world, "val", 5)
    distances = ((asked[:, None, None, 0] - known) ** 2).sum(axis=-1).min(axis=-1)
    return float((labels[distances.argmin(axis=1)] == truth).mean())


def test_species_can_be_learned_and_the_difficulty_counts() -> None:
    easy, default, hard = (nearest_right(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy > 0.95
    assert default > 0.8
    assert 3 / 12 < hard < 0.85


def test_the_field_guide_shows_every_species() -> None:
    plate = field_guide(DrawnBirds(families=3, species=5))
    assert plate.mode == "RGB"
    paper = plate.getpixel((20, 20))
    cells = [plate.crop((30 + x * 270, 30 + y * 250, 300 + x * 270, 280 + y * 250)) for y in range(2) for x in range(4)]
    inked = [ImageChops.difference(cell, Image.new("RGB", cell.size, paper)).getbbox() is not None for cell in cells]
    assert inked == [True] * 5 + [False] * 3
