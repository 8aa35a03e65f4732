"""``birder probe`` from the command line: numbers, files, exit codes."""

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.samples import read_samples
from birder.evaluation.probe import probe
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.signature import rgb_stats

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]
COLOURS = {"Emu": (20, 60, 200), "Great [Tit]": (200, 60, 20), "Wren": (90, 200, 90)}


@pytest.fixture
def run(birder: Run) -> Run:
    """Run a command line; exit code, output, and what went to the error stream."""
    return partial(birder, "probe")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Pretrained without labels: it has no classifier."""
    net = create_network("convnext_v2_atto", 0, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    save_model(tmp_path / "model.pt", net, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    return tmp_path / "model.pt"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 4)):
        for name, colour in COLOURS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + random.integers(0, 40, (20, 20, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / part / name / f"{number}.png")
    return tmp_path / "train", tmp_path / "val"


def rows(out: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def test_the_numbers_are_those_of_the_library(run: Run, model: Path, folders: tuple[Path, Path]) -> None:
    data, val = folders
    code, out, errors = run(model, "--data", data, "--val", val, "--shots", 1, 2, "--k", 3)
    assert code == 0
    net, info = load_model(model)
    training = read_samples(data)
    result = probe(net, info.rgb_stats, training, read_samples(val, training.class_to_idx), k=3, shots=(1, 2))
    lines = out.splitlines()
    assert lines[:3] == [
        f"{model}, pictures of 32 x 32",
        "learned from 30 pictures of 3 species",
        f"asked about  12 pictures: {val}",
    ]
    wanted = [result.knn, result.linear, result.linear_top3, *(row.accuracy for row in result.few_shot)]
    table = rows(out)
    assert [row[0] for row in table] == [
        "3 nearest neighbours, top-1",
        "linear probe, top-1",
        "linear probe, top-3",
        "nearest mean, 1 picture each",
        "nearest mean, 2 pictures each",
    ]
    assert [row[1:3] for row in table] == [
        [f"{one.value:.1%}", f"{one.interval[0]:.1%} to {one.interval[1]:.1%}"] for one in wanted
    ]
    assert table[1][1] == "100.0%" and table[3][3] == f"± {result.few_shot[0].spread:.1%}"
    assert f"effective rank  {result.diagnosis['rank']:.1f} of 16 dimensions" in lines
    assert errors.endswith("images/s\n") and "42 pictures, 0 could not be read" in errors


def test_a_part_is_held_out(run: Run, model: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "numbers.json"
    code, out, _ = run(model, "--data", folders[0], "--output", output, "--size", 64)
    assert code == 0
    assert "pictures of 64 x 64\nlearned from 24 pictures of 3 species\n" in out
    assert f"asked about  6 pictures: 20% of {folders[0]}, held out" in out
    read = json.loads(output.read_text(encoding="utf-8"))
    assert (read["model"], read["network"], read["untrained"]) == (str(model), "convnext_v2_atto", False)
    assert (read["training"], read["validation"], read["size"]) == (24, 6, [64, 64])
    assert [row["shots"] for row in read["few_shot"]] == [1, 2, 5]  # a species has 8


def test_species_with_few_pictures_are_counted(run: Run, model: Path, folders: tuple[Path, Path]) -> None:
    for number in range(6):
        (folders[0] / "Wren" / f"{number}.png").unlink()
    out = run(model, "--data", folders[0], "--val", folders[1])[1]
    assert "1 of 3 species have fewer than 5 pictures\n1 of 3 species have fewer than 10 pictures\neffective" in out


def test_random_weights(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    def numbers(seed: int) -> str:
        output = tmp_path / "a.csv"
        words = ("--data", folders[0], "--val", folders[1], "--size", 32, "--seed", seed, "--output", output)
        code, out, _ = run("convnext_v2_atto", "--untrained", *words)
        assert code == 0 and out.startswith("convnext_v2_atto with random weights, pictures of 32 x 32\n")
        return output.read_text(encoding="utf-8")

    first = numbers(0)
    assert next(csv.DictReader(first.splitlines()))["measure"] == "knn"
    torch.manual_seed(5)
    assert numbers(0) == first != numbers(1)


def test_what_cannot_be_read_is_counted(run: Run, model: Path, folders: tuple[Path, Path]) -> None:
    (folders[1] / "Emu" / "9.jpg").write_text("no picture")
    code, out, errors = run(model, "--data", folders[0], "--val", folders[1])
    assert code == 1
    assert "asked about  12 pictures" in out
    assert f"not read: {folders[1] / 'Emu' / '9.jpg'}: not_an_image: not a picture" in errors
    assert "43 pictures, 1 could not be read" in errors


def test_the_steps_of_the_linear_probe_are_shown(
    run: Run, model: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (model, "--data", folders[0], "--val", folders[1])
    assert "linear probe" not in run(*words)[2]  # where no one looks, a line a minute
    monkeypatch.setattr("birder.cli.probe._LINE_EVERY_S", -1.0)
    code, _, errors = run(*words)
    assert code == 0 and "linear probe: weight decay 10, 1 of 13 to choose from\n" in errors
    assert "linear probe: of all 30 pictures, weight decay" in errors
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setattr("rich.status.Status.update", lambda status, text: seen.append(text))
    seen: list[str] = []
    assert run(*words)[0] == 0 and len(seen) == 14


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL"], "--data"),
        (["MODEL", "--data", "nothing"], "nothing: no such file or folder"),
        (["nothing.pt", "--data", "DATA"], "nothing.pt: no such file"),
        (["MODEL", "--data", "DATA", "--val", "DATA"], "30 of 30 pictures to ask about are learned from"),
        (["MODEL", "--data", "DATA", "--output", "a.txt"], "ends in .json or .csv"),
        (["MODEL", "--data", "DATA", "--shots", "0"], "Must be >= 1"),
        (["MODEL", "--data", "DATA", "--k", "0"], "Must be >= 1"),
        (["MODEL", "--data", "DATA", "--size", "7"], "size must be"),
        (["MODEL", "--data", "DATA", "--untrained"], "no network is called"),
        (["convnext_v2_ato", "--data", "DATA", "--untrained"], "did you mean convnext_v2_atto"),
        (["convnext_v2_atto", "--data", "DATA", "--untrained", "--network", "x"], "leave --network out"),
    ],
)
def test_wrong_use(run: Run, model: Path, folders: tuple[Path, Path], words: list[str], message: str) -> None:
    known = {"MODEL": model, "DATA": folders[0]}
    code, out, errors = run(*(known.get(word, word) for word in words))
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert "linear probe" not in out


def test_other_species_and_damaged_weights(run: Run, model: Path, folders: tuple[Path, Path]) -> None:
    (folders[1] / "Emu").rename(folders[1] / "Emus")
    code, _, errors = run(model, "--data", folders[0], "--val", folders[1])
    assert code == 2 and "Emus (4 pictures); did you mean Emu?" in errors
    net, _ = load_model(model, inference=False)
    torch.nn.init.constant_(net.stem[0].weight, torch.nan)  # type: ignore[index,arg-type]
    save_model(model, net, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    code, _, errors = run(model, "--data", folders[0])
    assert code == 2 and "infinite or no numbers" in errors
