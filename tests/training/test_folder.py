"""Which folder a run gets: a new one, its own where it was stopped, never another's."""

from dataclasses import replace
from pathlib import Path

import pytest

from birder.errors import ConfigError
from birder.training.folder import RunFolder, open_folder
from birder.training.logbook import Logbook
from birder.training.recipe import Optim, Recipe, Run, read_recipe, write_recipe

RECIPE = Recipe(data="birds", epochs=5, network="convnext_v2_atto")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(path: str, epoch: int, recipe: Recipe = RECIPE) -> RunFolder:
    """The folder of a run that has come so far."""
    folder = open_folder(recipe, Path(path))
    for number in range(1, epoch + 1):
        Logbook(folder.metrics).write("epoch", 10 * number, epoch=number, loss=1.0)
    folder.checkpoints(keep=2).write(10 * epoch, {"epoch": epoch})
    return folder


def test_the_names_of_the_files() -> None:
    folder = RunFolder(Path("a"))
    found = [path.as_posix() for path in (folder.recipe, folder.metrics, folder.best, folder.last)]
    assert found == ["a/recipe.toml", "a/metrics.jsonl", "a/best.safetensors", "a/last.safetensors"]
    assert folder.checkpoints(keep=1).folder == Path("a/checkpoints")


def test_a_new_folder_gets_the_recipe() -> None:
    folder = open_folder(RECIPE, Path("deep/down/run"))
    assert folder.path == Path("deep/down/run")
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "recipe.toml"]
    assert read_recipe(folder.recipe) == RECIPE


def test_an_empty_folder_is_free() -> None:
    Path("run").mkdir()
    assert open_folder(RECIPE, Path("run")).recipe.exists()


def test_the_same_run_goes_on_wherever_it_runs() -> None:
    trained("run", 3)
    elsewhere = replace(RECIPE, run=Run(device="cuda", dtype="bfloat16", threads=7, workers=5))
    folder = open_folder(elsewhere, Path("run"))
    assert folder.checkpoints(keep=2).newest(print) == Path("run/checkpoints/00000030.pt")
    assert read_recipe(folder.recipe) == elsewhere


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, epochs=6),
        replace(RECIPE, data="fish"),
        replace(RECIPE, optim=Optim(lr=0.1)),
        replace(RECIPE, network_options={"drop_path_rate": 0.1}),
        replace(RECIPE, run=Run(seed=1)),
        replace(RECIPE, run=Run(validate_every=2)),
    ],
    ids=["epochs", "data", "optim", "options", "seed", "validate_every"],
)
def test_another_run_is_refused_and_left_alone(other: Recipe) -> None:
    trained("run", 3)
    with pytest.raises(ConfigError, match=r"run holds something else than this run \(it has .*\): name another folder"):
        open_folder(other, Path("run"))
    assert read_recipe(Path("run/recipe.toml")) == RECIPE


def test_the_message_says_in_what_it_differs() -> None:
    trained("run", 3)
    other = replace(RECIPE, epochs=6, optim=Optim(lr=0.5), run=Run(threads=3))
    with pytest.raises(ConfigError, match=r"\(it has epochs 5, not 6, optim\.lr 0\.001, not 0\.5\)"):
        open_folder(other, Path("run"))


@pytest.mark.parametrize("text", [None, "", "epochs = 'three'", "this is no TOML"])
def test_other_files_are_refused_and_left_alone(text: str | None) -> None:
    Path("run").mkdir()
    Path("run/thesis.txt").write_text("important")
    if text is not None:
        Path("run/recipe.toml").write_text(text)
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(ConfigError, match="holds something else"):
        open_folder(RECIPE, Path("run"))
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_file_in_the_way_is_refused() -> None:
    Path("run").write_text("important")
    with pytest.raises(ConfigError, match="run holds something else"):
        open_folder(RECIPE, Path("run"))
    assert Path("run").read_text() == "important"


@pytest.mark.parametrize(
    ("epochs_done", "expected"),
    [
        ([], "runs/convnext_v2_atto"),
        ([5], "runs/convnext_v2_atto-2"),
        ([5, 5], "runs/convnext_v2_atto-3"),
        ([5, 2], "runs/convnext_v2_atto-2"),
        ([0], "runs/convnext_v2_atto"),
    ],
    ids=["new", "after a finished one", "after two", "goes on with the second", "goes on with the first"],
)
def test_without_a_name_it_goes_on_or_takes_the_next(epochs_done: list[int], expected: str) -> None:
    for number, epoch in enumerate(epochs_done, start=1):
        trained("runs/convnext_v2_atto" + (f"-{number}" if number > 1 else ""), epoch)
    assert open_folder(RECIPE, None).path == Path(expected)


def test_without_a_name_what_others_left_is_passed_over() -> None:
    trained("runs/convnext_v2_atto", 2, replace(RECIPE, epochs=9))
    Path("runs/convnext_v2_atto-2").write_text("a file")
    open_folder(RECIPE, Path("runs/convnext_v2_atto-3"))  # stopped before its first epoch ended
    assert open_folder(RECIPE, None).path == Path("runs/convnext_v2_atto-3")
    assert open_folder(replace(RECIPE, network="convnext_v2_nano"), None).path == Path("runs/convnext_v2_nano")


def test_a_recipe_from_before_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Lists of TOML are the tuples of the recipe: the same run, not another."""
    recipe = replace(RECIPE, network_options={"num_layers": (1, 1, 1, 1), "drop_path_rate": 0.1}, size=(64,))
    Path("run").mkdir()
    write_recipe(Path("run/recipe.toml"), recipe)
    assert open_folder(recipe, Path("run")).path == Path("run")
