"""``birder distill``: a student learns from a teacher that was trained here, and mistakes are named."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import load_model
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.training import fit as fit_module
from birder.training.checkpoints import Checkpoints
from birder.training.fit import fit
from birder.training.recipe import Augment, Optim, Recipe, Run, read_recipe, write_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),  # sys.argv is set here
    pytest.mark.usefixtures("elsewhere"),
]

Birder = Callable[..., tuple[int, str, str]]
NETWORK = {"in_channels": (16, 24, 32, 48), "num_layers": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn birds of three species; and a table that gives each picture the name of another."""
    folder = tmp_path_factory.mktemp("data")
    birds = DrawnBirds(families=3, species=3, difficulty=0.1, size=(40, 40))
    write_folder(birds, folder / "train", 24)
    write_folder(birds, folder / "val", 12, split="val")
    names = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    others = dict(zip(names, names[1:] + names[:1], strict=True))
    rows = [f"{picture},{others[picture.parent.name]}" for picture in sorted((folder / "train").glob("*/*.jpg"))]
    (folder / "wrong.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return folder


def recipe_for(folder: Path, **options: object) -> Recipe:
    recipe = Recipe(
        data=str(folder / "train"),
        val=str(folder / "val"),
        network_options=NETWORK,
        size=(32,),
        epochs=12,
        batch_size=8,
        augment=Augment(min_scale=0.7, policy="none"),
        optim=Optim(name="muon", lr=4e-3),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0, validate_every=12),
    )
    return replace(recipe, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of other pictures' size and other colours than its student."""
    torch.set_num_threads(1)
    recipe = recipe_for(data, size=(40, 40), rgb="clip", objective=ClassificationConfig(smoothing=0.0))
    fitted = fit(recipe, tmp_path_factory.mktemp("teacher") / "run")
    assert fitted.top1 is not None and fitted.top1 >= 0.9
    return fitted.model


def metrics(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def test_a_student_learns_from_its_teacher_against_all_labels(birder: Birder, data: Path, teacher: Path) -> None:
    """Every label is wrong, and counts for nothing: what the student knows in the end, the teacher has told it."""
    objective = DistillationConfig(teacher="not this one", weight=1.0, smoothing=0.0, kind="hard")
    write_recipe(Path("my.toml"), recipe_for(data, data=str(data / "wrong.csv"), objective=objective))
    code, out, errors = birder(
        "distill", "--recipe", "my.toml", "--out", "run", "--objective.teacher", teacher, "--objective.kind", "soft",
        "--objective.temperature", 2,
    )  # fmt: skip
    assert (code, out) == (0, "")
    written = read_recipe(Path("run/recipe.toml"))
    assert written.objective == DistillationConfig(teacher=str(teacher), weight=1.0, smoothing=0.0, temperature=2.0)
    told = re.search(r"best.safetensors, ([\d.]+)% of the validation pictures right", errors)
    assert told is not None and float(told[1]) >= 80

    first, last = metrics(Path("run"))[0], metrics(Path("run"))[-1]
    assert last["loss"] == pytest.approx(last["teacher_loss"])
    assert last["teacher_loss"] < first["teacher_loss"] / 2
    assert last["accuracy"] < 0.2, "of the labels, which are all wrong"
    network, info = load_model(Path("run/best.safetensors"))
    assert (network.size, info.class_to_idx) == ((32, 32), load_model(teacher)[1].class_to_idx)
    assert network.config.in_channels == (16, 24, 32, 48)


def test_the_loss_is_shared_by_labels_and_teacher(birder: Birder, data: Path, teacher: Path) -> None:
    objective = DistillationConfig(teacher=str(teacher), weight=0.25)
    write_recipe(Path("my.toml"), recipe_for(data, val=None, epochs=1, objective=objective))
    assert birder("distill", "--recipe", "my.toml", "--out", "run")[0] == 0
    (line,) = metrics(Path("run"))
    assert line["loss"] == pytest.approx(0.75 * line["label_loss"] + 0.25 * line["teacher_loss"])
    assert line["teacher_loss"] > 0.0


def test_it_goes_on_where_it_was_stopped(
    birder: Birder, data: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding of another size, so that the projection, which is in no model, must come from the checkpoint."""
    options = DistillationConfig(teacher=str(teacher), kind="embedding")
    narrow = {**NETWORK, "in_channels": (8, 8, 16, 16)}
    recipe = recipe_for(data, epochs=2, network_options=narrow, objective=options)
    write_recipe(Path("my.toml"), replace(recipe, run=replace(recipe.run, validate_every=1)))
    assert birder("distill", "--recipe", "my.toml", "--out", "whole")[0] == 0

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "save_model", _failing_after(2, fit_module.save_model))
        assert birder("distill", "--recipe", "my.toml", "--out", "run")[0] == 2
    code, _, errors = birder("distill", "--recipe", "my.toml", "--out", "run")
    assert code == 0
    assert "run goes on at step 18 of 18" in errors
    for name in ("last", "best"):
        whole, again = (load_file(f"{out}/{name}.safetensors") for out in ("whole", "run"))
        assert whole.keys() == again.keys() and all(torch.equal(whole[key], again[key]) for key in whole)
    (newest, *_) = Checkpoints(Path("run/checkpoints"), keep=2).paths()
    state = torch.load(newest, weights_only=True)["engine"]["objective"]
    assert state["projection.weight"].shape == (48, 16)
    assert not any("teacher" in name for name in state)


def _failing_after(calls: int, write: Callable[..., None]) -> Callable[..., None]:
    count = iter(range(100))

    def write_or_fail(*arguments: object, **options: object) -> None:
        if next(count) == calls:
            raise OSError(28, "No space left on device", "run")
        write(*arguments, **options)

    return write_or_fail


def test_a_teacher_that_is_not_there(birder: Birder, data: Path, teacher: Path) -> None:
    words = ["distill", "--data", data / "train", "--run.threads", 1, "--objective.teacher"]
    assert birder(*words, "gone.pt") == (2, "", "birder: gone.pt: no such file\n")
    code, _, errors = birder(*words, "convnext_v2_tiny_of_nobody")
    assert code == 2
    assert "no published model is called 'convnext_v2_tiny_of_nobody', and no file" in errors
    assert not Path("runs").exists()


@pytest.mark.parametrize("kind", [[], ["--objective.kind", "hard"]])
def test_a_teacher_must_be_named(birder: Birder, data: Path, kind: list[str]) -> None:
    """The class above has another objective, which must not become the default here."""
    code, _, errors = birder("distill", "--data", data / "val", "--epochs", 1, "--size", 32, "--run.threads", 1, *kind)
    assert code == 2
    option = "--objective.teacher" if kind else "--objective"
    assert f"parameter {option} requires an argument" in " ".join(errors.replace("│", " ").split())
    assert not Path("runs").exists()


def test_a_teacher_that_does_not_know_all_species(birder: Birder, data: Path, teacher: Path) -> None:
    for name in ("a", "b"):
        Path("other", name).mkdir(parents=True)
        (Path("other") / name / "1.jpg").symlink_to(next((data / "train").glob("*/*.jpg")))
    words = ["--data", "other", "--run.threads", 1, "--objective.teacher", teacher]
    code, _, errors = birder("distill", *words)
    assert code == 2
    assert "the teacher does not know 2 of 2 classes: a, b. Leave them out" in errors
    assert not Path("runs").exists()


def test_a_recipe_for_the_other_command_names_it(birder: Birder, data: Path) -> None:
    recipe = recipe_for(data, objective=DistillationConfig(teacher="t.pt"))
    write_recipe(Path("distill.toml"), recipe)
    write_recipe(Path("train.toml"), recipe_for(data))
    message = "distill.toml is for another command: birder distill --recipe distill.toml"
    assert birder("train", "--recipe", "distill.toml") == (2, "", f"birder: {message}\n")
    message = "train.toml is for another command: birder train --recipe train.toml"
    assert birder("distill", "--recipe", "train.toml") == (2, "", f"birder: {message}\n")
