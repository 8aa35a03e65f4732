"""``birder predict`` from the command line: rows, summary, exit codes."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.cli.progress import printable, reading_processes
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.signature import rgb_stats

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(birder: Callable[..., tuple[int, str, str]]) -> Run:
    """Run a command line; exit code, lines of the output, and what went to the error stream."""

    def call(*words: object) -> tuple[int, list[str], str]:
        code, out, err = birder("predict", *words)
        return code, out.splitlines(), err

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes the streams for a terminal of 160 columns."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = create_network("convnext_v2_atto", 3, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(net.classifier.weight)
    path = tmp_path / "model.safetensors"
    save_model(path, net, class_to_idx={"Wren": 0, "Great [Tit]": 1, "Größe": 2}, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b [bold].png", "deep/ü.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").touch()
    return folder


def test_lines_without_a_terminal(run: Run, model: Path, photos: Path) -> None:
    code, lines, errors = run(model, photos)
    assert code == 0
    cells = [line.split("\t") for line in lines]
    assert [row[0] for row in cells] == [str(photos / name) for name in ("a.png", "b [bold].png", "deep/ü.png")]
    info = load_model(model)[1]
    for _, species, probability, error in cells:
        assert species in info.class_to_idx and error == ""
        assert 1 / 3 < float(probability) < 1
    assert errors.startswith("3 pictures, 0 could not be read, ") and "images/s" in errors
    assert "passed over: 1 .txt" in errors


def test_some_that_cannot_be_read(run: Run, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, photos, photos / "notes.txt", photos / "gone.jpg")
    assert code == 1
    assert lines[2] == f"{photos / 'c.jpg'}\t\t\tnot a picture"
    assert lines[4] == f"{photos / 'notes.txt'}\t\t\tthe file is empty"
    assert lines[5] == f"{photos / 'gone.jpg'}\t\t\tno such file"
    assert "6 pictures, 3 could not be read" in errors


def test_none_that_can_be_read(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "c.jpg").touch()
    code, lines, _ = run(model, tmp_path / "c.jpg")
    assert (code, lines) == (1, [f"{tmp_path / 'c.jpg'}\t\t\tthe file is empty"])


def test_a_table_on_a_terminal(run: Run, terminal: None, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, photos)
    text = "\n".join(lines)
    assert code == 1
    assert f"in {photos}" in text
    assert "│ b [bold].png │" in text  # no mark-up of rich
    assert "not read: not a picture" in text
    assert "%" in text and "next best" in text
    assert "not read: not a picture" not in errors  # it stands in the table
    assert "4 pictures, 1 could not be read" in errors


def test_a_long_table_is_cut(run: Run, terminal: None, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, *([photos / "a.png"] * 60), photos / "c.jpg")
    assert code == 1
    assert sum("a.png" in line for line in lines) == 50
    assert lines[-1] == "and 11 more; --output results.csv keeps them all"
    assert f"not read: {photos / 'c.jpg'}: not a picture" in errors


def test_output_to_a_file(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    output = tmp_path / "x.csv"
    code, lines, errors = run(model, photos, "--output", output, "--top", 2, "--batch-size", 2, "--workers", 1)
    assert (code, lines) == (1, [])
    assert f"not read: {photos / 'c.jpg'}: not a picture" in errors
    assert f"results in {output}" in errors
    with open(output, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "species", "probability", "species_2", "probability_2", "error"]
    assert [Path(row["file"]).name for row in rows] == ["a.png", "b [bold].png", "c.jpg", "ü.png"]
    assert [row["error"] for row in rows] == ["", "", "not a picture", ""]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"]) > 0


def test_more_species_than_there_are(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    assert run(model, photos, "--output", tmp_path / "x.csv", "--top", 9)[0] == 0
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()[0].endswith("species_3,probability_3,error")


def test_many_failures_are_counted(run: Run, model: Path, tmp_path: Path) -> None:
    code, _, errors = run(
        model, *(tmp_path / f"{number}.jpg" for number in range(14)), "--output", tmp_path / "x.jsonl"
    )
    assert code == 1
    assert errors.count("no such file") == 10
    assert "not read: 4 more" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "EMPTY"], "no pictures in"),
        (["MODEL", "PHOTOS", "--output", "x.xlsx"], "ends in .csv, .jsonl, .parquet"),
        (["MODEL", "PHOTOS", "--output", "none/x.csv"], "does not exist; create it first"),
        (["nothing.pt", "PHOTOS"], "nothing.pt: no such file"),
        (["MODEL", "PHOTOS", "--network", "convnext_v2_ato"], "did you mean convnext_v2_atto"),
        (["MODEL", "PHOTOS", "--device", "moon"], "moon"),
        (["MODEL", "PHOTOS", "--top", "0"], "Must be >= 1"),
        (["MODEL", "PHOTOS", "--topp", "3"], "Did you mean --top?"),
        (["MODEL"], "paths"),
    ],
)
def test_wrong_use(run: Run, model: Path, photos: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "film.mp4").touch()
    known = {"MODEL": model, "PHOTOS": photos, "EMPTY": tmp_path / "empty"}
    code, _, errors = run(*(known.get(word, word) for word in words))
    assert code == 2
    assert message.lower() in " ".join(errors.split()).lower()
    assert "Traceback" not in errors
    if words[-1] == "EMPTY":
        assert "1 .mp4" in errors


def test_file_names_that_are_no_text(run: Run, terminal: None, model: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"odd\xff\x1b[31m\n.png")
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    except OSError:
        pytest.skip("this file system only takes names in UTF-8")
    code, lines, _ = run(model, tmp_path / name)
    assert code == 0
    assert any("odd\\udcff\\x1b[31m\\n.png" in line for line in lines)


def test_printable() -> None:
    assert printable(Path("Größe 鳥/a.jpg")) == "Größe 鳥/a.jpg"
    assert printable("a\tb\x1b") == "a\\tb\\x1b"


def test_few_pictures_need_no_other_process() -> None:
    assert reading_processes(32, 32) == 0
    assert 1 <= reading_processes(33, 32) <= 8


def test_torch_is_imported_only_when_the_command_runs() -> None:
    code = (
        "import sys, birder.cli.predict, birder.cli.evaluate;"
        "print([name for name in ('torch', 'numpy', 'PIL', 'rich.console') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in result.stdout and "numpy" not in result.stdout and "PIL" not in result.stdout


def test_the_hard_pictures(run: Run, model: Path, shared: Path, tmp_path: Path) -> None:
    code, _, _ = run(model, shared / "hard_images", "--output", tmp_path / "x.csv")
    assert code == 1
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        found = {Path(row["file"]).relative_to(shared / "hard_images").as_posix(): row for row in csv.DictReader(file)}
    with open(shared / "hard_images" / "manifest.csv", encoding="utf-8", newline="") as file:
        expected = {row["file"]: row["expected"] for row in csv.DictReader(file)}
    assert set(expected) - set(found) == {"variants/no_extension"}
    for name, row in found.items():
        assert bool(row["error"]) != bool(row["species"])
        if expected[name].startswith("decodes") and "refused" not in expected[name]:
            assert row["error"] == "", name
        if expected[name].startswith("refused"):
            assert row["species"] == "", name
