"""``birder train`` from the command line: options reach the recipe, mistakes are named, and a model comes out."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from birder.data.drawn import DrawnBirds, write_folder
from birder.objectives.configs import ClassificationConfig
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule, read_recipe, write_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),  # sys.argv is set here
    pytest.mark.usefixtures("elsewhere"),
]

Birder = Callable[..., tuple[int, str, str]]
TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
HERE = Run(device="cpu", dtype="float32", threads=1, workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    birds = DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40))
    write_folder(birds, folder / "train", 24)
    write_folder(birds, folder / "val", 12, split="val")
    return folder


def test_every_kind_of_option_reaches_the_recipe_that_is_written(birder: Birder, data: Path, tmp_path: Path) -> None:
    code, out, errors = birder(
        "train", "--data", data / "val", "--network-options.in_channels", "[8, 8, 16, 16]",
        "--network-options.num-layers", "[1, 1, 1, 1]", "--network-options.drop_path_rate", "0.1", "--size", 48, 32,
        "--rgb", "birder", "--epochs", 1, "--batch-size", 12, "--objective.mixup", 0.2, "--augment.policy", "none",
        "--augment.min-scale", 0.7, "--optim.name", "sgd", "--optim.lr", "1e-2", "--schedule.warmup-epochs", 0.5,
        "--run.seed", 7, "--run.device", "cpu", "--run.dtype", "float32", "--run.threads", 1, "--run.workers", 0,
    )  # fmt: skip
    assert (code, out) == (0, "")
    written = read_recipe(tmp_path / "runs" / "convnext_v2_atto" / "recipe.toml")
    assert written == Recipe(
        data=str(data / "val"),
        network="convnext_v2_atto",
        network_options={**TINY, "drop_path_rate": 0.1},
        size=(48, 32),
        rgb="birder",
        epochs=1,
        batch_size=12,
        objective=ClassificationConfig(mixup=0.2),
        augment=Augment(policy="none", min_scale=0.7),
        optim=Optim(name="sgd", lr=0.01),
        schedule=Schedule(warmup_epochs=0.5),
        run=replace(HERE, seed=7),
    )
    lines = errors.splitlines()
    assert lines[-2] == "runs/convnext_v2_atto/best.safetensors"
    assert lines[-1] == (
        "birder predict runs/convnext_v2_atto/best.safetensors PHOTOS names the species in your photographs"
    )


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {}),
        (["--size", "48"], {"size": (48, 48)}),
        (["--size", "48", "32"], {"size": (48, 32)}),
        (["--optim.name", "muon", "--optim.clip=0"], {"optim": Optim(name="muon", clip=0.0)}),
        (["--augment.policy", "randaugment"], {"augment": Augment(policy="randaugment")}),
        (["--objective.mix-probability", "0.5"], {"objective": ClassificationConfig(mix_probability=0.5)}),
        (["--objective.mix_probability", "0.5"], {"objective": ClassificationConfig(mix_probability=0.5)}),
        (["--val", "other", "--network", "convnext_v2_nano"], {"val": "other", "network": "convnext_v2_nano"}),
        (["--run.validate-every", "3"], {"run": Run(validate_every=3)}),
    ],
)
def test_what_is_left_out_is_the_default(
    birder: Birder, given: list[Recipe], words: list[str], changes: dict[str, object]
) -> None:
    assert birder("train", "--data", "d", *words)[0] == 0
    assert given == [replace(Recipe(data="d"), **changes)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1", 1),
        ("0", 0),
        ("1e-3", 0.001),
        ("true", True),
        ("false", False),
        ("[2, 2, 6, 2]", (2, 2, 6, 2)),
        ("relu", "relu"),
        ("'1'", "1"),
    ],
)
def test_options_of_the_network_keep_their_kind(birder: Birder, given: list[Recipe], text: str, value: object) -> None:
    assert birder("train", "--data", "d", "--network-options.some-option", text)[0] == 0
    found = given[0].network_options["some_option"]
    assert (found, type(found)) == (value, type(value))


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(
    birder: Birder, given: list[Recipe], tmp_path: Path
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        'data = "file"\nepochs = 7\nsize = 64\n[network_options]\ndrop_path_rate = 0.1\nnum_layers = [1, 1, 1, 1]\n'
        '[optim]\nname = "sgd"\nlr = 0.5\n'
    )
    words = ["--size", 48, 32, "--optim.lr", 0.25, "--network-options.drop_path_rate", 0.2, "--run.seed", 3]
    assert birder("train", "--recipe", path)[0] == 0
    assert birder("train", *words, "--recipe", path, "--data", "flag")[0] == 0
    options = {"drop_path_rate": 0.1, "num_layers": (1, 1, 1, 1)}
    optim = Optim(name="sgd", lr=0.5)
    of_file = Recipe(data="file", epochs=7, size=(64, 64), network_options=options, optim=optim)
    assert given == [
        of_file,
        replace(
            of_file,
            data="flag",
            size=(48, 32),
            optim=replace(optim, lr=0.25),
            network_options={**options, "drop_path_rate": 0.2},
            run=Run(seed=3),
        ),
    ]


def test_what_was_written_comes_back_from_the_command_line(birder: Birder, given: list[Recipe], tmp_path: Path) -> None:
    """Every kind of value, and none at its default."""
    recipe = Recipe(
        data="a [b]/ü",
        val="v",
        network="convnext_v2_pico",
        network_options={"drop_path_rate": 0.1, "drop_path_uniform": True, "one": 1, "zero": 0, "name": "1", **TINY},
        size=(48, 32),
        rgb="clip",
        epochs=3,
        batch_size=5,
        objective=ClassificationConfig(smoothing=0.0, mixup=0.1, cutmix=0.2, mix_probability=0.3),
        augment=Augment(min_scale=1.0, flip=0.0, policy="randaugment", operations=3, magnitude=4, erase=0.1),
        optim=Optim(name="sgd", lr=1e-05, weight_decay=0.0, momentum=0.5, clip=0.0),
        schedule=Schedule(warmup_epochs=0.0, final_lr=0.01),
        run=Run(seed=2**53 + 1, device="cpu", dtype="bfloat16", threads=3, workers=0, validate_every=2),
    )
    write_recipe(tmp_path / "recipe.toml", recipe)
    assert birder("train", "--recipe", tmp_path / "recipe.toml")[0] == 0
    assert given == [recipe]
    assert {type(value) for value in given[0].network_options.values()} == {float, bool, int, str, tuple}


TYPOS: list[tuple[list[str], str]] = [
    (["--optim.nam", "sgd"], "Unknown option: --optim.nam. Did you mean --optim.name?"),
    (["--optim.name", "sgdd"], 'Invalid value "sgdd" for --optim.name. Choose from: "adamw", "adam", "nadam", '
                               '"rmsprop", "sgd", "lamb", "lars", "muon".'),
    (["--sise", "48"], "Unknown option: --sise. Did you mean --size?"),
    (["--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
    (["--bacth-size", "3"], "Unknown option: --bacth-size. Did you mean --batch-size?"),
    (["--objective.mixupp", "0.1"], "Unknown option: --objective.mixupp. Did you mean --objective.mixup?"),
    (["--augment.policy", "randaug"], 'for --augment.policy. Choose from: "none", "birder", "autoaugment", '
                                      '"randaugment", "trivialaugment", "augmix", "3augment", "clip".'),
    (["--run.sed", "3"], "Unknown option: --run.sed. Did you mean --run.seed?"),
    (["--schedule.warmup", "3"], "Unknown option: --schedule.warmup. Did you mean --schedule.warmup-epochs?"),
    (["--rgb", "imagnet"], 'for --rgb. Choose from: "birder", "imagenet", "clip", "neutral", "centered", '
                           '"start". Did you mean "imagenet"?'),
    (["--network-option.drop_path_rate", "0.1"], "--network-option.drop_path_rate. Did you mean --network-options?"),
    (["--recipee", "x"], "Unknown option: --recipee. Did you mean --recipe?"),
]  # fmt: skip

VALUES: list[tuple[list[str], str]] = [
    (["--size", "large"], 'Invalid value for --size: unable to convert "large" into int.'),
    (["--size", "33.6"], 'Invalid value for --size: unable to convert "33.6" into int.'),
    (["--size", "1", "2", "3"], "size: must be height and width in pixels, not (1, 2, 3)"),
    (["--epochs", "1.5"], 'Invalid value for --epochs: unable to convert "1.5" into int.'),
    (["--epochs", "0"], "epochs: must be 1 or more, not 0"),
    (["--optim.lr", "fast"], 'Invalid value for --optim.lr: unable to convert "fast" into float.'),
    (["--optim.lr", "-1"], "lr: must be in 0 to 1e+06, not -1.0"),
    (["--augment.flip", "2"], "flip: must be in 0 to 1, not 2.0"),
    (["--run.seed", "1.0"], 'Invalid value for --run.seed: unable to convert "1.0" into int.'),
    (["--network-options", "3"], "network_options: give each by its name, as in --network-options.drop_path_rate 0.1"),
    (["--network-options.a", "[[1]]"], "network_options.a: expected"),
    (["--network-options.a", "1979-05-27"], "network_options.a: expected"),
    (["--data", "twice"], "Parameter --data specified multiple times."),
    (["stray"], "Unused Tokens: ['stray']."),
    (["--recipe", "nothing.toml"], "nothing.toml: No such file or directory"),
    (["--recipe", "/"], "/: Is a directory"),
]

OF_FILES: list[tuple[str, str]] = [
    ("sise = 48", "sise: no such option; did you mean size?"),
    ("bacth_size = 3", "bacth_size: no such option; did you mean batch_size?"),
    ("[optim]\nnam = 'sgd'", "optim.nam: no such option; did you mean name?"),
    ("[optim]\nname = 'sgdd'", "optim.name: 'sgdd' is not one of adamw, adam, nadam, rmsprop, sgd, lamb, lars, muon; "
     "did you mean sgd?"),
    ("[optm]\nlr = 1", "optm: no such option; did you mean optim?"),
    ("[augment]\npolicy = 'randaug'", "augment.policy: 'randaug' is not one of none, birder, autoaugment, "
     "randaugment, trivialaugment, augmix, 3augment, clip; did you mean randaugment"),
    ("[objective]\nmixupp = 0.1", "objective.mixupp: no such option; did you mean mixup"),
    ("[run]\nsed = 3", "run.sed: no such option; did you mean seed?"),
    ("[schedule]\nwarmup_epoch = 3", "schedule.warmup_epoch: no such option; did you mean warmup_epochs"),
    ("rgb = 'imagnet'", "is not one of birder, imagenet, clip, neutral, centered, start; did you mean imagenet"),
    ("netwrok = 'x'", "netwrok: no such option; did you mean network?"),
    ("epochs = '3'", "epochs: expected a whole number, got '3'"),
    ("epochs = 1.5", "epochs: expected a whole number, got 1.5"),
    ("batch_size = true", "batch_size: expected a whole number, got True"),
    ("optim = 3", "optim: expected a table of options, got 3"),
    ("[optim]\nlr = -1\n[run]\nsed = 1", "optim.lr: must be in 0 to 1e+06, not -1.0 run.sed: no such option"),
    ("epochs =", "file.toml is no TOML file: Invalid value"),
]  # fmt: skip

# Runs command lines in one fresh interpreter: for each exit code, messages, and whether torch is loaded afterwards.
SCRIPT = """
import contextlib, io, json, sys
from birder.cli.__main__ import main
for line in json.loads(sys.argv[1]):
    sys.argv, errors, code = ["birder", "train", "--data", "d", *line], io.StringIO(), None
    with contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, errors.getvalue(), "torch" in sys.modules]))
"""


def test_mistakes_are_named_before_torch_is_loaded(root: Path, tmp_path: Path) -> None:
    lines, messages = map(list, zip(*TYPOS, *VALUES, strict=True))
    for number, (text, message) in enumerate(OF_FILES):
        path = tmp_path / str(number) / "file.toml"
        path.parent.mkdir()
        path.write_text(text)
        lines.append(["--recipe", str(path)])
        messages.append(message)
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "160"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(lines)
    for line, message, (code, shown, torch_loaded) in zip(lines, messages, answers, strict=True):
        text = " ".join(shown.replace("│", " ").split())
        assert message in text, (line, text)
        assert code == 2, line
        assert not torch_loaded, line
        assert "file.toml" in text or "file.toml" not in line[-1], line
    assert not (tmp_path / "runs").exists()


def test_pictures_are_needed(birder: Birder) -> None:
    code, _, errors = birder("train", "--epochs", 3)
    assert code == 2
    assert "--data requires an argument" in " ".join(errors.split())


def test_pictures_that_cannot_be_learned_from(birder: Birder, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "Wren").mkdir(parents=True)
    (tmp_path / "one").mkdir()
    species = next(path for path in (data / "train").iterdir() if path.is_dir())
    (tmp_path / "one" / "Wren").symlink_to(species)
    for folder, message in (
        ("empty", "empty holds no pictures"),
        ("one", "one has only one class, 'Wren': there is nothing to tell apart"),
        ("gone", "gone: no such file or folder"),
    ):
        assert birder("train", "--data", folder) == (2, "", f"birder: {message}\n")
    assert birder("train", "--data", data / "train", "--val", "empty") == (2, "", "birder: empty holds no pictures\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "convnext_v2_ato"], "no network is called 'convnext_v2_ato'; did you mean convnext_v2_atto"),
        (["--network-options.drop_path", "0.1"], "drop_path: no such option; did you mean drop_path_rate"),
        (["--network-options.drop_path_rate", "much"], "drop_path_rate: expected a number, got 'much'"),
        (["--network-options.num_layers", "[1]"], "num_layers: expected 4 values, got 1"),
        (["--run.device", "gpu"], "this machine has no device 'gpu'; cpu is always there"),
        (["--out", "file/run"], "file/run: Not a directory"),
        (["--out", "file"], "file holds something else than this run"),
    ],
)
def test_mistakes_that_need_torch_are_found_before_training(
    birder: Birder, data: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("important")
    code, out, errors = birder("train", "--data", data / "val", "--run.threads", 1, *words)
    assert (code, out) == (2, "")
    assert errors.startswith("birder: ") and message in errors and errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "important"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(birder: Birder, data: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, errors = birder("train", "--data", data / "val", "--run.threads", 1, "--out", "locked/run")
    assert (code, errors) == (2, "birder: locked/run: Permission denied\n")


def test_train_predict_evaluate(birder: Birder, data: Path, tmp_path: Path) -> None:
    """Two species, so chance is one half; the three commands must agree on every picture."""
    recipe = Recipe(
        data=str(data / "train"),
        val=str(data / "val"),
        network_options={"in_channels": (16, 24, 32, 48), "num_layers": (1, 1, 1, 1)},
        size=(32,),
        epochs=12,
        batch_size=8,
        augment=Augment(min_scale=0.7, policy="none"),
        optim=Optim(name="muon", lr=4e-3),
        run=HERE,
    )
    write_recipe(tmp_path / "my.toml", recipe)
    out = tmp_path / "a [b] run"
    code, _, errors = birder("train", "--recipe", "my.toml", "--out", out)
    assert code == 0
    lines = errors.splitlines()
    assert lines[0].endswith("2 species, 48 pictures at 32 x 32, on cpu in float32")
    assert sum(line.startswith("epoch ") for line in lines) == 12
    model = out / "best.safetensors"
    told = lines[-2].removeprefix(f"{model}, ").removesuffix(" of the validation pictures right")
    assert float(told.removesuffix("%")) >= 90

    code, shown, _ = birder("evaluate", model, "--data", data / "val")
    assert code == 0
    assert shown.startswith(f"top-1     {told}  (95 % interval ")
    code, _, _ = birder(
        "predict", model, data / "val", "--output", "rows.csv", "--backend", "torch", "--precision", "fp32"
    )
    assert code == 0
    with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    right = [row["label_1"] == Path(row["path"]).parent.name for row in rows]
    assert f"{sum(right) / 24:.1%}" == told

    code, _, errors = birder("train", "--recipe", out / "recipe.toml", "--out", out)
    assert code == 0
    assert errors.splitlines()[1] == f"{out} is finished: nothing to do"
    assert errors.splitlines()[2:] == lines[-2:]
