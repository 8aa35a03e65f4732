"""``birder drawn``: what lies in the folder, and what is refused."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data.drawn import DrawnBirds, field_guide, write_folder
from birder.data.images import read_image

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str]]
SMALL = ("--families", 2, "--species", 3, "--size", 32, 40)
BIRDS = DrawnBirds(families=2, species=3, size=(32, 40))


@pytest.fixture
def run(birder: Callable[..., tuple[int, str, str]]) -> Run:
    """Run a command line; exit code, and what went to the error stream."""

    def call(*words: object) -> tuple[int, str]:
        code, out, err = birder("drawn", *words)
        assert out == ""
        return code, err

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_draws_what_the_library_draws(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "[bold]birds"
    assert run(out, "--per-species", 2, *SMALL) == (0, f"6 pictures of 3 species in {out}\n")
    write_folder(BIRDS, tmp_path / "library", 2)
    assert files(out) == files(tmp_path / "library")
    pictures = sorted(out.glob("*/*.jpg"))
    assert sorted({path.parent.name for path in pictures}) == sorted(species.name for species in BIRDS.species_list)
    assert {path.name for path in pictures} == {"0001.jpg", "0002.jpg"}
    assert {read_image(path).size for path in pictures} == {(40, 32)}
    with open(out / "boxes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(out / row["path"] for row in rows) == pictures


@pytest.mark.parametrize(
    ("words", "birds", "split"),
    [
        (["--split", "unseen"], BIRDS, "unseen"),
        (["--seed", 5], DrawnBirds(families=2, species=3, size=(32, 40), seed=5), "train"),
        (["--difficulty", 0.9], DrawnBirds(families=2, species=3, size=(32, 40), difficulty=0.9), "train"),
        (["--birds", 2, 3], DrawnBirds(families=2, species=3, size=(32, 40), birds=(2, 3)), "train"),
        (["--metadata"], DrawnBirds(families=2, species=3, size=(32, 40), metadata=True), "train"),
    ],
    ids=["split", "seed", "difficulty", "birds", "metadata"],
)
def test_options_reach_the_birds(run: Run, tmp_path: Path, words: list[object], birds: DrawnBirds, split: str) -> None:
    assert run(tmp_path / "drawn", "--per-species", 1, *SMALL, *words)[0] == 0
    write_folder(birds, tmp_path / "library", 1, split=split)
    write_folder(BIRDS, tmp_path / "plain", 1)
    assert files(tmp_path / "drawn") == files(tmp_path / "library") != files(tmp_path / "plain")


def test_the_guide_is_a_plate_of_the_species(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "drawn", "--per-species", 1, *SMALL, "--guide", tmp_path / "guide.png")[0] == 0
    with Image.open(tmp_path / "guide.png") as plate:
        assert np.array_equal(np.asarray(plate), np.asarray(field_guide(BIRDS)))
    assert not list(tmp_path.glob(".guide*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--per-species", 0], "per_species is 0"),
        (["--per-species", 1.5], 'Invalid value for --per-species: unable to convert "1.5" into int'),
        (["--species", 1], "species is 1; use 4 (one per family) to 160"),
        (["--families", 0], "families is 0"),
        (["--difficulty", 2], "difficulty is 2.0; use 0 (easy) to 1 (hard)"),
        (["--difficulty", "hard"], 'Invalid value for --difficulty: unable to convert "hard" into float'),
        (["--size", 8, 8], "size is (8, 8); use (height, width) of 32 to 4096"),
        (["--size", 40], "--size requires 2"),
        (["--size", 40.5, 40], 'Invalid value for --size: unable to convert "40.5" into int'),
        (["--birds", 3, 2], "birds is (3, 2)"),
        (["--seed", -1], "seed is -1; use 0 or more"),
        (["--spices", 3], "Did you mean --species?"),
    ],
)
def test_bad_values_draw_nothing(run: Run, tmp_path: Path, words: list[object], message: str) -> None:
    code, errors = run(tmp_path / "drawn", *words)
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors
    assert not (tmp_path / "drawn").exists()


def test_a_folder_is_needed(run: Run) -> None:
    code, errors = run()
    assert code == 2 and "--folder requires an argument" in errors
