"""Recipes for one's own photographs: the command that each names gives the same run, and each trains."""

import inspect
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from birder.cli.__main__ import main
from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.recipes.photographs import fine_tune, from_scratch, linear_probe
from birder.signature import rgb_stats
from birder.training import fit as fit_module
from birder.training.fit import Fitted, fit
from birder.training.machine import resolve
from birder.training.recipe import Recipe, Run, read_recipe, write_recipe

HERE = Run(device="cpu", dtype="float32", threads=1, workers=0)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here
@pytest.mark.parametrize(
    ("function", "recipe"),
    [
        (from_scratch, from_scratch("data/train", "data/val")),
        (linear_probe, linear_probe("data/train", "MODEL", "data/val")),
    ],
)
def test_the_command_that_is_named_is_the_recipe(
    function: Callable[..., Recipe], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Recipe] = []

    def spy(recipe: Recipe, out: Path | None, *, console: object) -> Fitted:
        given.append(recipe)
        return Fitted(folder=Path("run"), model=Path("run/best.safetensors"), top1=None)

    monkeypatch.setattr(fit_module, "fit", spy)
    command = re.search(r"Command: ``(.*?)``", inspect.getdoc(function) or "", re.DOTALL)
    assert command is not None
    monkeypatch.setattr(sys, "argv", shlex.split(command[1]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    device = torch.device("cpu")
    assert [resolve(recipe, device) for recipe in given] == [resolve(recipe, device)]


def test_a_recipe_that_is_named_as_a_file_comes_back_from_one(tmp_path: Path) -> None:
    recipe = fine_tune("data/train", "MODEL", "data/val")
    write_recipe(tmp_path / "recipe.toml", recipe)
    assert read_recipe(tmp_path / "recipe.toml") == recipe


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    drawn = DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40))
    write_folder(drawn, folder / "train", 12)
    write_folder(drawn, folder / "val", 4, split="val")
    network = create_network("convnext_v2_atto", 3, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    classes = {"x": 0, "y": 1, "z": 2}
    save_model(folder / "start.safetensors", network, class_to_idx=classes, rgb_stats=rgb_stats("birder"))
    return folder


@pytest.mark.parametrize("function", [from_scratch, linear_probe, fine_tune])
def test_it_trains(function: Callable[..., Recipe], birds: Path, tmp_path: Path) -> None:
    """Two epochs of few pictures, with all else as it is; what should stand still does, and the rest moves."""
    start = [] if function is from_scratch else [str(birds / "start.safetensors")]
    recipe = function(str(birds / "train"), *start, val=str(birds / "val"))
    ramp = replace(recipe.schedule, warmup_epochs=0.5)
    recipe = replace(recipe, epochs=2, schedule=ramp, size=(32, 32), run=replace(HERE, validate_every=2))
    fitted = fit(recipe, tmp_path / "run")
    network, info = load_model(fitted.model)
    assert sorted(info.class_to_idx) == sorted(path.name for path in (birds / "train").iterdir() if path.is_dir())
    assert fitted.top1 is not None
    if not start:
        return
    before, _ = load_model(birds / "start.safetensors")
    same = {name for name, weight in before.state_dict().items() if torch.equal(weight, network.state_dict()[name])}
    body = {name for name in before.state_dict() if not name.startswith("classifier.")}
    assert same == body if function is linear_probe else not same
