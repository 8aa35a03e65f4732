"""``birder data``: what is printed, what is written, exit codes."""

import csv
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data.check import check
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.order import epoch_order
from birder.data.samples import read_samples
from birder.data.variants import variants_sheet
from birder.errors import ConfigError
from birder.training.recipe import Augment

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]
BIRDS = DrawnBirds(families=2, species=3, size=(80, 80))


@pytest.fixture
def run(birder: Run) -> Run:
    """Run a command line; exit code, output, and what went to the error stream."""
    return partial(birder, "data")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("val", 3)):
        write_folder(BIRDS, tmp_path / split, count, split=split)
    return tmp_path


def test_check_finds_nothing(run: Run, data: Path) -> None:
    code, out, errors = run("check", data / "train", data / "val", "--workers", 0)
    assert (code, out, errors) == (0, "33 pictures of 3 species in 2 sets\nnothing found\n", "")


def test_check_says_what_it_finds(run: Run, data: Path) -> None:
    species = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    (data / "train" / species[0] / "[b]\nad.jpg").touch()
    for number in range(12):
        shutil.copy(data / "train" / species[1] / "0001.jpg", data / "val" / species[1] / f"again {number:02}.jpg")
    output = data / "report"
    code, out, errors = run("check", data / "train", data / "val", "--few", 0, "--output", output, "--workers", 0)
    assert (code, errors) == (1, "")
    paragraphs = out.split("\n\n")
    assert paragraphs[0] == "46 pictures of 3 species in 2 sets"
    assert paragraphs[1] == f"files that cannot be read: 1\n  {data}/train/{species[0]}/[b]\\nad.jpg: the file is empty"
    leaks = paragraphs[2].splitlines()
    assert leaks[0] == "pictures that are in an earlier set as well, or nearly: 12"
    first, again = (f"{data}/{part}/{species[1]}/{name}.jpg" for part, name in (("train", "0001"), ("val", "again 00")))
    assert leaks[1] == f"  {again} is the same file as {first}"
    assert leaks[-1] == "  and 2 more; --output FOLDER lists them all"
    assert paragraphs[3].startswith("files that are the same as an earlier one: 11\n") and len(paragraphs) == 4
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["counts"] == check([data / "train", data / "val"]).counts() | {"few": 0}
    assert len(report["leaks"]) == 12


def test_check_that_cannot_be_done(run: Run, data: Path) -> None:
    assert run("check", data / "nothing") == (2, "", f"birder: {data / 'nothing'}: no such file or folder\n")
    (data / "file").touch()
    code, _, errors = run("check", data / "train", "--output", data / "file")
    assert (code, errors) == (2, f"birder: {data / 'file'}: a folder is needed, and {data / 'file'} is a file\n")


def test_split_writes_tables(run: Run, data: Path) -> None:
    code, out, errors = run("split", data / "train", "--output", data / "tables", "--val", 0.25, "--near-duplicates")
    assert (code, out) == (0, "")
    assert errors == f"18 pictures in {data}/tables/train.csv\n6 pictures in {data}/tables/val.csv\n"
    train = read_samples(data / "tables" / "train.csv")
    assert len(train) == 18 and len(read_samples(data / "tables" / "val.csv", train.class_to_idx)) == 6
    code, _, errors = run("split", data / "train", "--output", data / "tables")
    assert (code, errors.startswith(f"birder: {data}/tables has a train.csv already")) == (2, True)


def test_split_says_what_is_missing(run: Run, data: Path) -> None:
    species = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    for path in sorted((data / "train" / species[2]).iterdir())[2:]:
        path.unlink()
    code, _, errors = run("split", data / "train", "--output", data / "out", "--group", "day", "--workers", 0)
    assert code == 0
    assert errors.splitlines()[:2] == [
        "18 pictures have no day, and are not kept together with others",
        f"val: no pictures of 1 species, too few or too large groups: {species[2]}",
    ]


def test_pack(run: Run, data: Path) -> None:
    species = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    words = ("pack", data / "train", "--output", data / "packed", "--format", "keep", "--workers", 0)
    code, out, errors = run(*words)
    assert (code, out) == (0, "")
    assert errors == (
        f"pictures packed: 24; not read: 0; tar files: 1\nbirder train --data {data / 'packed'} learns from them\n"
    )
    packed, originals = read_samples(data / "packed"), read_samples(data / "train")
    assert [packed.content(index) for index in range(24)] == [originals.content(index) for index in range(24)]
    assert run(*words)[0] == 2
    (data / "train" / species[0] / "empty.jpg").touch()
    shutil.rmtree(data / "packed")
    code, _, errors = run(*words)
    assert code == 1
    assert errors.startswith(f"not read: {data}/train/{species[0]}/empty.jpg: the file is empty\npictures packed: 24;")
    with open(data / "packed" / "failures.csv", encoding="utf-8", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["the file is empty"]


def test_show(run: Run, data: Path) -> None:
    """The first tile is the picture itself, and without any change the others are too."""
    words = ("show", data / "train", "--pictures", 2, "--variants", 3, "--size", 80, "--output", data / "s.png")
    code, _, errors = run(*words, "--policy", "none", "--min-scale", 1, "--flip", 0)
    assert (code, errors) == (0, f"{data / 's.png'} shows 2 pictures\n")
    with Image.open(data / "s.png") as sheet:
        tiles = [np.asarray(sheet.crop((left, 38, left + 224, 262)), np.float64) for left in (12, 248, 484, 720)]
        second = np.asarray(sheet.crop((12, 300, 236, 524)), np.float64)
        assert sheet.size == (12 + 4 * 236, 12 + 2 * 262)
    samples = read_samples(data / "train")
    drawn = samples.read(int(epoch_order(24, 0, 0)[0])).resize((224, 224), Image.Resampling.LANCZOS)
    assert all((tile == np.asarray(drawn)).all() for tile in tiles)
    assert np.abs(second - tiles[0]).mean() > 5
    assert run(*words, "--policy", "birder", "--level", 5)[0] == 0
    expected = variants_sheet(samples, Augment(policy="birder", level=5), size=80, pictures=2, variants=3)
    with Image.open(data / "s.png") as sheet:
        assert (np.asarray(sheet) == np.asarray(expected)).all()
        assert (np.asarray(sheet.crop((12, 38, 236, 262))) == np.asarray(drawn)).all()
        assert (np.asarray(sheet.crop((720, 38, 944, 262))) != np.asarray(drawn)).any()


def test_show_passes_over_what_cannot_be_read(data: Path) -> None:
    samples = read_samples(data / "train")
    for index in epoch_order(24, 0, 0)[:23]:
        Path(samples.name(int(index))).write_bytes(b"")
    assert variants_sheet(samples, Augment(), pictures=5, variants=1).height == 12 + 262
    with pytest.raises(ConfigError, match="must be 1 or more"):
        variants_sheet(samples, Augment(), pictures=0)


def test_options_out_of_range(run: Run, data: Path) -> None:
    assert run("show", data / "train", "--level", 11)[0] == 2
    assert run("check", data / "train", "--distance", 13)[0] == 2
    assert run("pack", data / "train", "--output", data / "x", "--size", 1.5)[0] == 2
