"""``birder demo``, made small; and, when asked for slow tests, as it is."""

import csv
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from birder.cli.__main__ import main
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.images import read_image
from birder.recipes import demo as recipes
from birder.training.recipe import Recipe, Run, read_recipe

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Demo = Callable[..., list[str]]
BIRDS = DrawnBirds(families=2, species=3, size=(40, 40))


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Demo:
    """Run ``birder demo`` and return the lines it showed."""

    def call(*words: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["birder", "demo", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert (ended.value.code or 0) == 0, captured.err
        assert captured.out.startswith(f"in {words[0] if words else 'demo'}/unseen\n")
        assert "next best" in captured.out and captured.out.count(".jpg") >= 6
        return captured.err.splitlines()

    return call


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Recipe]:
    """The recipe of the demo for three species, few pictures and one epoch."""
    whole = recipes.demo

    def recipe(data: Path) -> Recipe:
        network = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
        run = Run(device="cpu", dtype="float32", threads=1, workers=0)
        return replace(whole(data), network_options=network, size=(32, 32), epochs=1, batch_size=4, run=run)

    monkeypatch.setattr(recipes, "TRAINING_PICTURES", 4)
    monkeypatch.setattr(recipes, "UNSEEN_PICTURES", 3)
    monkeypatch.setattr(recipes, "birds", lambda: BIRDS)
    monkeypatch.setattr(recipes, "demo", recipe)
    return recipe


def predictions(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_what_the_demo_leaves(demo: Demo, small: Callable[[Path], Recipe], tmp_path: Path) -> None:
    folder = tmp_path / "a [b] demo"
    lines = demo(folder)
    found = {path.name for path in folder.iterdir()}
    assert found == {"train", "unseen", "field_guide.png", "run", "predictions.csv", "contact_sheet.png"}
    names = sorted(species.name for species in BIRDS.species_list)
    write_folder(BIRDS, tmp_path / "unseen", 3, split="unseen")
    pictures = sorted(path.relative_to(tmp_path / "unseen") for path in (tmp_path / "unseen").glob("*/*.jpg"))
    assert sorted({path.parent.name for path in pictures}) == names
    for path in pictures:
        assert (folder / "unseen" / path).read_bytes() == (tmp_path / "unseen" / path).read_bytes()
        if (folder / "train" / path).exists():
            assert (folder / "train" / path).read_bytes() != (folder / "unseen" / path).read_bytes()
    assert len(list((folder / "train").glob("*/*.jpg"))) == 12
    written = read_recipe(folder / "run" / "recipe.toml")
    assert (written.data, written.epochs) == (str(folder / "train"), 1)

    rows = predictions(folder / "predictions.csv")
    assert [Path(row["path"]) for row in rows] == [folder / "unseen" / path for path in pictures]
    assert all({row["label_1"], row["label_2"]} < set(names) and row["status"] == "ok" for row in rows)
    right = sum(row["label_1"] == Path(row["path"]).parent.name for row in rows)
    assert lines[-2] == f"{right / 9:.1%} of 9 unseen pictures named right"
    assert lines[-1].startswith(f"{folder / 'predictions.csv'} has all names")
    assert f"12 pictures of 3 species in {folder / 'train'}" in lines

    sheet = read_image(folder / "contact_sheet.png")
    shown = right + min(9 - right, 4)  # of what was named wrong, four at most
    columns, rows_of_tiles = min(shown, 6), -(-shown // 6)
    assert sheet.size == (14 + columns * 190, 56 + rows_of_tiles * 236)
    assert len(sheet.getcolors(2**20)) > 1000
    guide = read_image(folder / "field_guide.png")
    assert min(guide.size) > 100


def test_the_second_time_nothing_is_learned_again(
    demo: Demo, small: Callable[[Path], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = demo()
    kept = {path: path.stat().st_mtime_ns for path in Path("demo/run").glob("*.safetensors")}
    assert len(kept) == 2
    named = predictions(Path("demo/predictions.csv"))
    second = demo()
    assert "demo/run is finished: nothing to do" in second
    assert not any(line.startswith("epoch ") for line in second)
    assert {path: path.stat().st_mtime_ns for path in Path("demo/run").glob("*.safetensors")} == kept
    assert predictions(Path("demo/predictions.csv")) == named
    assert first[-2:] == second[-2:]


@pytest.mark.slow
def test_the_demo_names_unseen_birds(demo: Demo, tmp_path: Path) -> None:
    """What the user sees: 12 species, 180 unseen pictures; chance is one in twelve."""
    lines = demo(tmp_path / "demo")
    told = re.fullmatch(r"(.+)% of 180 unseen pictures named right", lines[-2])
    assert told is not None, lines
    rows = predictions(tmp_path / "demo" / "predictions.csv")
    right = sum(row["label_1"] == Path(row["path"]).parent.name for row in rows)
    assert len(rows) == 180
    assert right >= 0.95 * len(rows)
    assert told[1] == f"{right / len(rows):.1%}".removesuffix("%")
    with Image.open(tmp_path / "demo" / "contact_sheet.png") as sheet:
        assert sheet.width == 14 + 6 * 190
