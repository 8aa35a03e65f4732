"""``birder pretrain`` from the command line: methods and their options, mistakes, recipes, and what comes of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from birder.cli.pretrain import METHODS
from birder.data.drawn import DrawnBirds, write_folder
from birder.objectives.configs import DINOConfig, MAEConfig, MMCRConfig
from birder.training.recipe import Optim, Recipe, Run, read_recipe, write_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),  # sys.argv is set here
    pytest.mark.usefixtures("elsewhere"),
]

Birder = Callable[..., tuple[int, str, str]]
NAMES = [method.name for method in METHODS]  # type: ignore[attr-defined]
HERE = Run(device="cpu", dtype="float32", threads=1, workers=0)
SMALL_VIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 32}

# Runs command lines in one fresh interpreter: for each exit code, all it shows, and whether torch is loaded afterwards.
SCRIPT = """
import contextlib, io, json, sys
from birder.cli.__main__ import main
for line in json.loads(sys.argv[1]):
    sys.argv, shown, code = ["birder", "pretrain", *line], io.StringIO(), None
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, " ".join(shown.getvalue().replace("│", " ").split()), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    birds = DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40))
    write_folder(birds, folder / "train", 4)
    write_folder(birds, folder / "val", 3, split="val")
    return folder


def answers(root: Path, lines: list[list[str]]) -> list[tuple[int, str, bool]]:
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [(code, shown, loaded) for code, shown, loaded in map(json.loads, result.stdout.splitlines())]


def test_help_names_the_methods_and_their_options_without_torch(root: Path) -> None:
    overview, *helps = answers(root, [["--help"], *([name, "--help"] for name in NAMES)])
    for name, method, (code, shown, loaded) in zip(NAMES, METHODS, helps, strict=True):
        assert (code, loaded) == (0, False)
        assert shown.startswith(f"Usage: birder pretrain {name} "), shown[:80]
        options = {f"--objective.{field.name.replace('_', '-')}" for field in fields(method)} - {"--objective.name"}
        assert options <= set(shown.split()), name
        assert f" {name} " in overview[1]
        assert (method.__doc__ or "").split("(")[0].strip() in shown and (method.__doc__ or "").split("(")[
            0
        ] in overview[1]
    assert (overview[0], overview[2]) == (0, False)
    assert "--objective.smoothing" not in helps[0][1], "that is one of labels"
    assert "Most that is hidden, as a share of the patches" in dict(zip(NAMES, helps, strict=True))["data2vec"][1]


def test_mistakes_are_named_before_torch_is_loaded(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mmcr.toml").write_text("data = 'd'\n[objective]\nname = 'mmcr'\n")
    (tmp_path / "labels.toml").write_text("data = 'd'\n[objective]\nname = 'classification'\n")
    (tmp_path / "wrong.toml").write_text("data = 'd'\n[objective]\nname = 'mea'\n")
    (tmp_path / "option.toml").write_text("data = 'd'\n[objective]\nname = 'mae'\nmask_ration = 0.5\n")
    cases: list[tuple[list[str], str]] = [
        (["mea", "--data", "d"], 'Unknown command "mea". Did you mean "mae"?'),
        (["mae"], "--data"),
        (["mae", "--data", "d", "--objective.mask-ration", "0.5"], "Did you mean --objective.mask-ratio?"),
        (["mae", "--data", "d", "--objective.mask-ratio", "1.5"], "mask_ratio: must be above 0 and below 1, not 1.5"),
        (["mae", "--data", "d", "--objective.num-views", "2"], "Unknown option: --objective.num-views."),
        (["mmcr", "--data", "d", "--objective.num-views", "1"], "num_views: must be 2 or more, not 1"),
        (["mae", "--data", "d", "--network", "vit_b61"], "no network is called 'vit_b61'"),
        (["mae", "--recipe", "mmcr.toml"], "mmcr.toml is for another command: birder pretrain mmcr --recipe mmcr.toml"),
        (["mae", "--recipe", "labels.toml"], "labels.toml is for another command: birder train --recipe labels.toml"),
        (["mae", "--recipe", "wrong.toml"], "objective.name: 'mea' is not one of"),
        (["mae", "--recipe", "wrong.toml"], "did you mean mae"),
        (["mae", "--recipe", "option.toml"], "objective.mask_ration: no such option; did you mean mask_ratio"),
        (["mae", "--recipe", "gone.toml"], "gone.toml: No such file or directory"),
    ]
    lines = [[str(tmp_path / word) if word.endswith(".toml") else word for word in line] for line, _ in cases]
    for (line, message), (code, shown, loaded) in zip(cases, answers(root, lines), strict=True):
        assert message in shown.replace(f"{tmp_path}/", ""), (line, shown)
        assert (code, loaded) == (2, False), line


def test_a_recipe_of_a_method_is_sent_on_from_train(birder: Birder, tmp_path: Path) -> None:
    write_recipe(tmp_path / "mae.toml", Recipe(data="d", objective=MAEConfig()))
    assert birder("train", "--recipe", "mae.toml") == (
        2,
        "",
        "birder: mae.toml is for another command: birder pretrain mae --recipe mae.toml\n",
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_comes_back_as_it_was_written(name: str, birder: Birder, given: list[Recipe], tmp_path: Path) -> None:
    (method,) = (each for each in METHODS if each.name == name)  # type: ignore[attr-defined]
    recipe = Recipe(data="d", network="vit_b16", objective=method(), epochs=7, optim=Optim(lr=0.1), run=HERE)
    write_recipe(tmp_path / "my.toml", recipe)
    code, _, errors = birder("pretrain", name, "--recipe", "my.toml")
    assert (code, given) == (0, [recipe])
    assert (
        errors.splitlines()[-1] == "birder train --start run/last.safetensors --data LABELLED learns species from here"
    )


def test_options_replace_those_of_the_file(birder: Birder, given: list[Recipe], tmp_path: Path) -> None:
    write_recipe(tmp_path / "my.toml", Recipe(data="d", objective=DINOConfig(small_views=4, hidden=64)))
    words = ["--objective.small-scale", 0.05, 0.25, "--objective.hidden", 32, "--epochs", 3, "--augment.policy", "none"]
    assert birder("pretrain", "dino", "--recipe", "my.toml", *words)[0] == 0
    assert given[0].objective == DINOConfig(small_views=4, hidden=32, small_scale=(0.05, 0.25))
    assert (given[0].epochs, given[0].augment.policy) == (3, "none")
    assert (
        birder("pretrain", "mmcr", "--data", "d", "--objective.projector", 64, 32, "--objective.num-views", 4)[0] == 0
    )
    assert given[1].objective == MMCRConfig(projector=(64, 32), num_views=4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mae", "--network", "convnext_v2_atto"], "mae needs a network that can drop tokens; convnext_v2_atto cannot"),
        (["simclr", "--run.accumulate", "2"], "run.accumulate: simclr compares all pictures of a batch"),
        (["dino", "--average.decay", "0.9"], "average.decay: what dino leaves is an average"),
        (["mmcr", "--balance", "0.5"], "balance: mmcr knows no species; leave it out"),
        (["rotation", "--freeze", "network"], "freeze: rotation has nothing to learn but the network"),
    ],
)
def test_what_does_not_go_together_is_found_before_training(
    words: list[str], message: str, birder: Birder, data: Path, tmp_path: Path
) -> None:
    code, out, errors = birder("pretrain", *words, "--data", data / "train", "--size", 64, "--run.threads", 1)
    assert (code, out) == (2, "")
    assert errors.startswith(f"birder: {message}") and errors.count("\n") == 1
    assert words[0] != "mae" or "These can: vit_" in errors
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_not_there(birder: Birder, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["--data", "gone"], "gone: no such file or folder"),
        (["--data", "empty"], "empty holds no pictures"),
        (["--data", data / "train", "--val", "gone"], "gone: no such file or folder"),
    ):
        assert birder("pretrain", "rotation", *words) == (2, "", f"birder: {message}\n")
    assert not (tmp_path / "runs").exists()


def test_pretrain_then_train_then_predict(birder: Birder, data: Path, tmp_path: Path) -> None:
    """The whole way; the recipe that a run wrote runs again, and a finished run is left as it is."""
    recipe = Recipe(
        data=str(data / "train"),
        val=str(data / "val"),
        network="vit_t16",
        network_options=dict(SMALL_VIT),
        size=(32,),
        epochs=2,
        batch_size=4,
        objective=MAEConfig(decoder_depth=1, decoder_width=16),
        run=HERE,
    )
    write_recipe(tmp_path / "my.toml", recipe)
    code, out, errors = birder("pretrain", "mae", "--recipe", "my.toml")
    assert (code, out) == (0, "")
    lines = errors.splitlines()
    assert lines[0].endswith("mae, 8 pictures at 32 x 32, on cpu in float32")
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/2", "2/2"]
    assert "neighbours" in lines[1] and "rank" in lines[1]
    assert lines[-2:] == [
        "runs/vit_t16/last.safetensors",
        "birder train --start runs/vit_t16/last.safetensors --data LABELLED learns species from here",
    ]
    written = read_recipe(tmp_path / "runs" / "vit_t16" / "recipe.toml")
    assert (written.augment.policy, written.augment.min_scale, written.augment.erase) == ("none", 0.3, 0.0)
    again = ["pretrain", "mae", "--recipe", "runs/vit_t16/recipe.toml", "--out"]
    assert birder(*again, "again")[0] == 0
    assert read_recipe(tmp_path / "again" / "recipe.toml") == written
    code, _, errors = birder(*again, "runs/vit_t16")
    assert code == 0 and errors.splitlines()[1] == "runs/vit_t16 is finished: nothing to do"
    assert "vit_t16" in (shown := birder("runs")[1]) and "finished" in shown and "%" in shown

    code, _, errors = birder(
        "train", "--start", "runs/vit_t16/last.safetensors", "--data", data / "train", "--epochs", 1,
        "--batch-size", 4, "--run.threads", 1, "--run.workers", 0, "--out", "tuned",
    )  # fmt: skip
    assert code == 0, errors
    assert "a new classifier, for 2 species" in errors
    code, out, _ = birder("predict", "tuned/best.safetensors", next((data / "val").glob("*/*.jpg")))
    assert code == 0 and out
