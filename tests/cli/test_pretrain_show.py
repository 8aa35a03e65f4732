"""``birder pretrain show`` from the command line: sheets, messages, exit codes."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import save_model
from birder.networks import create_network
from birder.objectives.configs import MAEConfig
from birder.signature import rgb_stats
from birder.training.fit import fit
from birder.training.recipe import Recipe, Run
from birder.training.show import sheet_of_view, spread, view_of_run

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Show = Callable[..., tuple[int, str, str]]
VIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
HEAD, FOOT, GAP = 26, 20, 12


@pytest.fixture
def show(birder: Show) -> Show:
    """Run a command line; exit code, output, and what went to the error stream."""
    return partial(birder, "pretrain", "show")


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(DrawnBirds(families=1, species=2, size=(64, 64)), folder, 5)
    return folder


@pytest.fixture(scope="module")
def run(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(
        data=str(birds),
        network="vit_t16",
        network_options=VIT,
        size=(32,),
        epochs=1,
        batch_size=4,
        objective=MAEConfig(decoder_depth=1, decoder_width=32),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    return fit(recipe, tmp_path_factory.mktemp("runs") / "mae").folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = create_network("vit_t16", 0, size=(32, 32), **VIT)
    save_model(tmp_path / "net.pt", network, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    return tmp_path / "net.pt"


def test_a_run(show: Show, run: Path, birds: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "sheet.png"
    code, out, errors = show(run, birds, "--output", output, "--pictures", 3, "--seed", 4, "--device", "cpu")
    assert (code, out, errors) == (0, "", f"{output} shows 3 of 10 pictures\n")
    paths = spread(sorted(birds.rglob("*.jpg")), 3)
    expected, _ = sheet_of_view(view_of_run(run, seed=4), paths)
    with Image.open(output) as sheet:
        np.testing.assert_array_equal(np.asarray(sheet), np.asarray(expected))
        assert sheet.size == (GAP + 3 * (224 + GAP), GAP + 3 * (HEAD + 224 + FOOT + GAP))
    first = output.read_bytes()
    show(run, birds, "--output", output, "--pictures", 3, "--seed", 5)
    assert output.read_bytes() != first
    show(run, birds, "--output", output, "--pictures", 3, "--seed", 4)
    assert output.read_bytes() == first
    assert [path.name for path in output.parent.iterdir()] == ["sheet.png"]


def test_a_model(show: Show, model: Path, birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = show(model, birds, "--size", 64)
    assert (code, errors) == (0, "sheet.png shows 8 of 10 pictures\n")
    with Image.open("sheet.png") as sheet:
        assert sheet.width == GAP + 2 * (192 + GAP)


def test_what_cannot_be_read_is_told(show: Show, model: Path, birds: Path, tmp_path: Path) -> None:
    output, good, bad = tmp_path / "a.png", next(birds.rglob("*.jpg")), tmp_path / "bad.jpg"
    bad.write_text("no picture")
    code, _, errors = show(model, bad, good, "--output", output)
    assert (code, errors) == (1, f"not read: {bad}: not a picture\n{output} shows 1 of 2 pictures\n")
    output.unlink()
    code, _, errors = show(model, bad, "--output", output)
    assert (code, errors) == (2, f"birder: none of 1 pictures can be read; {bad}: not a picture\n")
    assert not output.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}", "{birds}"], "{tmp} is not the folder of a run: it has no recipe.toml"),
        (["{tmp}/none.pt", "{birds}"], "{tmp}/none.pt: no such file"),
        (["convnext_v2_ato", "{birds}"], "no published model is called 'convnext_v2_ato', and no file"),
        (["{run}", "{birds}", "--network", "vit_t16"], "network: the run in {run} knows its own; leave --network out"),
        (["{run}", "{birds}", "--size", "64"], "size: the run in {run} draws pictures of (32, 32) only"),
        (["{run}", "{tmp}"], "no pictures in {tmp}"),
        (["{run}", "{birds}", "--output", "{tmp}/sheet.txt"], "{tmp}/sheet.txt: a sheet goes to a picture file"),
        (["{run}", "{birds}", "--output", "{tmp}"], "{tmp}: a sheet goes to a picture file"),
        (["{run}", "{birds}", "--device", "abacus"], "this machine has no device 'abacus'"),
    ],
)
def test_bad_input(
    show: Show, run: Path, birds: Path, tmp_path: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a sheet would be written
    places = {"tmp": tmp_path, "run": run, "birds": birds}
    code, _, errors = show(*(word.format(**places) for word in words))
    assert code == 2
    assert errors.startswith(f"birder: {message.format(**places)}") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_too_many_pictures_are_refused(show: Show, run: Path, birds: Path) -> None:
    code, _, errors = show(run, birds, "--pictures", 65)
    assert code == 2 and "Must be <= 64" in errors


def test_the_help_loads_no_torch(root: Path) -> None:
    code = (
        "import sys\nfrom birder.cli.__main__ import app\nsys.argv = ['birder', 'pretrain', 'show', '--help']\n"
        "try:\n  app()\nexcept SystemExit:\n  pass\nprint('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "80"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Usage: birder pretrain show [OPTIONS] RUN PHOTOS")
    assert result.stdout.endswith("False\n")
