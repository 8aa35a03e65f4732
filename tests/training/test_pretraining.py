"""Runs without labels, on drawn birds: all methods stop and go on, and leave networks that learn species from there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.utils import counters

from birder.cli.pretrain import METHODS
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.samples import read_samples
from birder.errors import ConfigError, Stopped
from birder.model_file import load_model
from birder.objectives.base import Batch, objectives
from birder.objectives.configs import ClassificationConfig, SimCLRConfig, Unlabelled, VICRegConfig
from birder.objectives.methods import create_objective
from birder.testing.objectives import labelled_pictures, small_network, small_vit
from birder.training.checkpoints import Checkpoints
from birder.training.engine import Engine
from birder.training.fit import Fitted, _Training, fit
from birder.training.machine import resolve
from birder.training.recipe import Augment, Average, Optim, Recipe, Run, Schedule
from birder.training.runs import summary_of
from birder.training.start import Start

CONVOLUTIONS = {"in_channels": (8, 8, 16, 24), "num_layers": (1, 1, 1, 1)}
TRANSFORMER = {
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 32,
    "mlp_dim": 64,
    "drop_path_rate": 0.1,  # so that there is chance within the network, too
}
SORTING = {"prototypes": 16, "hidden": 16, "bottleneck": 8, "small_views": 2, "small_size": 16, "hold_last": 0.3}
SMALL: dict[str, dict[str, Any]] = {
    "mae": {"decoder_depth": 1, "decoder_width": 32},
    "fcmae": {"decoder_width": 16, "mask_ratio": 0.5},
    "simmim": {"cell": 8},
    "data2vec": {"min_masked": 4, "top_layers": 2, "momentum": (0.9, 0.99)},
    "data2vec2": {"num_masks": 2, "top_layers": 2, "decoder_depth": 1, "decoder_width": 32, "block": 2},
    "i_jepa": {"predictor_depth": 1, "predictor_width": 24, "predictor_heads": 2, "min_context": 2},
    "mmcr": {"projector": (16, 16)},
    "simclr": {"projection": 8},
    "byol": {"projection": 8, "hidden": 16},
    "barlow_twins": {"projector": (16, 16)},
    "vicreg": {"projector": (16, 16)},
    "dino": SORTING,
    "ibot": {**SORTING, "patch_prototypes": 16},
    "rotation": {},
}
NAMES = [method.name for method in METHODS]  # type: ignore[attr-defined]
LEAVES_ITS_TEACHER = {"data2vec", "data2vec2", "i_jepa", "dino", "ibot"}
COMPARES = {"mmcr", "simclr", "barlow_twins", "vicreg"}
STAGED = {"fcmae", "mmcr", "byol", "rotation"}
"""Methods that are tried on a network of stages; the others on a ViT."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    birds = DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40))
    write_folder(birds, folder / "train", 6)
    write_folder(birds, folder / "val", 3, split="val")
    return folder


def method(name: str, **options: Any) -> Unlabelled:
    (cls,) = (each for each in METHODS if each.name == name)  # type: ignore[attr-defined]
    return cls(**{**SMALL[name], **options})


def recipe_for(folder: Path, name: str, **options: Any) -> Recipe:
    staged = name in STAGED
    recipe = Recipe(
        data=str(folder / "train"),
        network="convnext_v2_atto" if staged else "vit_t16",
        network_options=dict(CONVOLUTIONS if staged else TRANSFORMER),
        size=(64,) if name == "fcmae" else (32,),
        epochs=2,
        batch_size=4,
        objective=method(name),
        schedule=Schedule(warmup_epochs=0.5),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    return replace(recipe, **options)


def state(path: Path) -> dict[str, Any]:
    (newest, *_) = Checkpoints(path / "checkpoints", keep=2).paths()
    found: dict[str, Any] = torch.load(newest, weights_only=True)["engine"]
    return found


def metrics(path: Path, kind: str = "epoch") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def expect_same(first: Any, second: Any, where: str = "state") -> None:
    """Nested states are the same, bit for bit."""
    if isinstance(first, Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name, value in first.items():
            expect_same(value, second[name], f"{where}.{name}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            expect_same(*pair, f"{where}[{number}]")
    else:
        assert first == second, where


@pytest.fixture(scope="module", params=NAMES)
def whole(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Fitted]:
    """An unbroken run of each method."""
    torch.set_num_threads(1)
    return request.param, fit(recipe_for(folder, request.param), tmp_path_factory.mktemp(request.param) / "run")


def test_every_method_that_needs_no_labels_is_tried() -> None:
    assert set(NAMES) == {name for name, (_, config) in objectives.items() if not config.labelled} == set(SMALL)
    assert {name for name in NAMES if objectives[name][0].compares} == COMPARES


def test_a_stopped_run_ends_as_the_unbroken_one(
    whole: tuple[str, Fitted], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the second epoch: weights, teachers, heads, centres, optimisers and files are the same after."""
    name, unbroken = whole
    step = _Training._step

    def asked(self: _Training, *arguments: Any) -> None:
        step(self, *arguments)
        self.interrupt.asked = self.engine.step == 4

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped at step 5 of 6"):
        patch.setattr(_Training, "_step", asked)
        fit(recipe_for(folder, name), tmp_path / "run")
    broken = fit(recipe_for(folder, name), tmp_path / "run")
    expect_same(state(broken.folder), state(unbroken.folder))
    expect_same(load_file(broken.model), load_file(unbroken.model))
    timing = {"images_per_s", "data_wait", "seconds"}
    first, second = (
        [{k: v for k, v in e.items() if k not in timing} for e in metrics(run.folder)] for run in (broken, unbroken)
    )
    assert first == second


def test_what_is_left_is_an_ordinary_network(whole: tuple[str, Fitted]) -> None:
    name, run = whole
    assert run.model == run.folder / "last.safetensors"
    network, info = load_model(run.model)
    assert (network.num_classes, dict(info.class_to_idx), network.size) == (
        0,
        {},
        (64, 64) if name == "fcmae" else (32, 32),
    )
    weights = state(run.folder)["objective"]
    prefix = "teacher_network." if name in LEAVES_ITS_TEACHER else "network."
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[prefix + key]), key
    assert torch.isfinite(network.embedding(torch.randn(2, 3, *network.size))).all()


def test_the_run_moved_the_network_and_measured_it(whole: tuple[str, Fitted], folder: Path) -> None:
    name, run = whole
    lines = metrics(run.folder)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "rank", "deviation", "alignment", "uniformity"} <= lines[-1].keys()
    assert not {"val_knn", "val_top1"} & lines[-1].keys()
    assert run.top1 is None
    torch.manual_seed(0)
    began = Start(resolve(recipe_for(folder, name), torch.device("cpu"))).network({}).state_dict()
    weights = state(run.folder)["objective"]
    moved = [key for key, value in began.items() if not torch.equal(value, weights[f"network.{key}"])]
    assert len(moved) > len(began) / 2


@pytest.fixture(scope="module")
def pretrained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """With labelled pictures to look at between the epochs."""
    recipe = recipe_for(folder, "dino", val=str(folder / "val"), epochs=3)
    return fit(recipe, tmp_path_factory.mktemp("pretrained") / "run")


def test_with_labelled_pictures_neighbours_are_counted(pretrained: Fitted) -> None:
    lines = metrics(pretrained.folder)
    assert len(lines) == 3
    assert all(
        0.0 <= line["val_knn"] <= 1.0 and line["val_knn"] * 6 == pytest.approx(round(line["val_knn"] * 6))
        for line in lines
    )
    assert {"rank", "deviation", "alignment", "uniformity"} <= lines[0].keys()
    best = max(line["val_knn"] for line in lines)
    assert pretrained.top1 == best
    summary = summary_of(pretrained.folder)
    assert summary is not None and (summary.best, summary.state) == (best, "finished")
    assert pretrained.model.name == "last.safetensors", "its neighbours do not decide"
    assert (pretrained.folder / "best.safetensors").exists()


def test_species_are_learned_from_there(pretrained: Fitted, folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        data=str(folder / "train"),
        val=str(folder / "val"),
        start=str(pretrained.model),
        epochs=1,
        batch_size=4,
        optim=Optim(lr=1e-4),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    classes = read_samples(folder / "train").class_to_idx
    network = Start(resolve(recipe, torch.device("cpu"))).network(classes)
    assert (network.name, network.num_classes, network.size) == ("vit_t16", 2, (32, 32))
    saved = load_file(pretrained.model)
    began = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}
    expect_same(began, {name: saved[name] for name in began})
    fitted = fit(recipe, tmp_path / "tuned")
    tuned, info = load_model(fitted.model)
    assert info.class_to_idx == classes and tuned.num_classes == 2
    assert fitted.top1 is not None


def test_one_species_and_loose_pictures_will_do(folder: Path, tmp_path: Path) -> None:
    """Where no labels are learned, nothing has to be told apart; a file that is none is left out."""
    pictures = sorted((folder / "train").glob("*/*.jpg"))
    for number, path in enumerate(pictures[:5]):
        (tmp_path / "data" / ("a" if number % 2 else "")).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / ("a" if number % 2 else "") / f"{number}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "data" / "a" / "broken.jpg").write_bytes(b"no picture")
    for name in ("dino", "mmcr"):
        run = fit(recipe_for(folder, name, data=str(tmp_path / "data"), epochs=1, batch_size=6), tmp_path / name)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["path"] for line in lines if line["kind"] == "unreadable"] == [str(tmp_path / "data/a/broken.jpg")]
        assert lines[0]["pictures"] == 6 and lines[0]["species"] == 0


@pytest.mark.parametrize("name", sorted(COMPARES))
def test_pictures_that_are_compared_are_not_cut_into_parts(name: str, folder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(folder, name)
    with pytest.raises(ConfigError, match=rf"run\.accumulate: {name} compares all pictures of a batch"):
        fit(replace(recipe, run=replace(recipe.run, accumulate=2)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(LEAVES_ITS_TEACHER))
def test_an_average_of_what_is_an_average_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"average\.decay: what {name} leaves is an average"):
        fit(recipe_for(folder, name, average=Average(decay=0.99)), tmp_path / "run")


def test_an_average_of_what_learns_is_what_is_left(folder: Path, tmp_path: Path) -> None:
    run = fit(recipe_for(folder, "byol", average=Average(decay=0.5), epochs=1), tmp_path / "run")
    saved, found = load_file(run.model), state(run.folder)
    weights = found["objective"]
    different = [name for name in saved if not torch.equal(saved[name], weights[f"network.{name}"])]
    assert "stem.0.weight" in different or len(different) > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": 0.5}, "balance: simclr knows no species; leave it out"),
        ({"repeats": 2}, "repeats: simclr compares the pictures of a batch"),
        ({"freeze": "network"}, "freeze: simclr has nothing to learn but the network"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: Any, message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(recipe_for(folder, "simclr", **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _engine(objective: Any) -> Engine:
    recipe = Recipe(data="", epochs=1, optim=Optim(name="sgd", lr=0.1, clip=0.0), run=Run(dtype="float32"))
    return Engine(objective, replace(recipe, schedule=Schedule(warmup_epochs=0.0)), steps_per_epoch=10)


def _parts(batch: Batch, number: int) -> list[Batch]:
    small = batch.small.tensor_split(number) if batch.small is not None else [None] * number
    pieces = zip(batch.images.tensor_split(number), batch.labels.tensor_split(number), small, strict=True)
    return [Batch(images=images, labels=labels, small=few) for images, labels, few in pieces]


@pytest.mark.parametrize("name", ["mae", "fcmae", "simmim", "data2vec", "dino"])
@pytest.mark.parametrize("number", [2, 3])
def test_parts_of_a_step_make_the_gradient_of_the_whole(name: str, number: int) -> None:
    """With the masks of all pictures given; two parts are of one size, three are not."""
    results = []
    for parts in (1, number):
        torch.manual_seed(3)
        network = small_network(0) if name == "fcmae" else small_vit()
        if name == "fcmae":
            network.adjust_size((64, 64))
        objective = create_objective(method(name, **({"head_batch_norm": False} if name == "dino" else {})), network)
        objective.train()
        batch = labelled_pictures(network, objective.config.views)  # type: ignore[attr-defined]
        if hasattr(objective, "masks"):
            _give_masks(objective, len(batch.labels))
        engine = _engine(objective)
        for _ in range(2):
            losses = engine.train_step(_parts(batch, parts))
        gradients = {key: weight.grad for key, weight in objective.named_parameters() if weight.grad is not None}
        results.append((losses["loss"], gradients, objective.state_dict()))
    (loss, gradients, weights), (other_loss, other_gradients, other_weights) = results
    torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other_gradients, gradients, rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(other_weights, weights, rtol=1e-3, atol=2e-5)


def _give_masks(objective: Any, count: int) -> None:
    """Each step hides the same parts of the same pictures, however it is cut."""
    every = objective.masks(count)
    place = 0

    def rows(number: int) -> Tensor:
        nonlocal place
        start, place = place, (place + number) % count
        return every[start : start + number]

    objective.masks = rows


@pytest.mark.parametrize("name", ["data2vec2", "i_jepa", "ibot", "byol", "rotation"])
def test_parts_with_chance_in_them_are_learned_from(name: str, folder: Path, tmp_path: Path) -> None:
    recipe = recipe_for(folder, name, epochs=1)
    run = fit(replace(recipe, run=replace(recipe.run, accumulate=2)), tmp_path / "run")
    assert abs(metrics(run.folder)[0]["loss"]) < 1e4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about what it makes of this machine
@pytest.mark.parametrize("name", ["classification", "mae", "mmcr"])
def test_a_compiled_run_has_the_same_losses(name: str, folder: Path, tmp_path: Path) -> None:
    labelled = name == "classification"
    recipe = recipe_for(folder, "mmcr", objective=ClassificationConfig()) if labelled else recipe_for(folder, name)
    options = {key: value for key, value in recipe.network_options.items() if key != "drop_path_rate"}
    recipe = replace(
        recipe,
        network_options={**options, "drop_path_rate": 0.0},  # compiled, chance comes in another order
        epochs=1,
        optim=Optim(name="sgd", lr=0.01),
        run=replace(recipe.run, log_every=1),
    )
    runs = [fit(recipe, tmp_path / "plain")]
    torch.compiler.reset()
    runs.append(fit(replace(recipe, run=replace(recipe.run, compile=True)), tmp_path / "compiled"))
    plain, compiled = ([line["loss"] for line in metrics(run.folder, "steps")] for run in runs)
    assert len(plain) == 3
    assert compiled == pytest.approx(plain, rel=1e-3)
    expect_same(
        {key: value.shape for key, value in load_file(runs[1].model).items()},
        {key: value.shape for key, value in load_file(runs[0].model).items()},
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mae", "mmcr", "dino", "ibot", "data2vec"])
def test_steps_are_not_compiled_again(name: str) -> None:
    """But where an objective does something else from some step on: dino's last layer, and its warmth."""
    torch.compiler.reset()
    torch.manual_seed(0)
    counters.clear()
    objective = create_objective(method(name), small_network(0) if name == "mmcr" else small_vit()).train()
    objective.compile(backend="eager")
    engine = _engine(objective)
    batch = labelled_pictures(objective.network, objective.config.views)  # type: ignore[attr-defined]
    graphs = []
    for _ in range(10):
        engine.train_step([batch])
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) <= (3 if name in ("dino", "ibot") else 1), graphs
    assert len(set(graphs[4:])) == 1, graphs
    torch.compiler.reset()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "nadam", "rmsprop", "sgd", "lamb", "lars", "muon"])
def test_a_layer_may_begin_to_learn_later_than_others(optimizer: str) -> None:
    """As dino's last, with any optimiser; before, it is not moved at all."""
    objective = create_objective(method("dino"), small_vit()).train()
    last = objective.get_parameter("head.last.0.parametrizations.weight.original1")
    recipe = Recipe(data="", epochs=1, optim=Optim(name=optimizer, lr=0.01), run=Run(dtype="float32"))  # type: ignore[arg-type]
    recipe = replace(recipe, schedule=Schedule(warmup_epochs=0.0))
    engine = Engine(objective, recipe, steps_per_epoch=10)
    batch = labelled_pictures(objective.network, objective.config.views)  # type: ignore[attr-defined]
    before, moved = last.detach().clone(), []
    for _ in range(5):
        engine.train_step([batch])
        moved.append(not torch.equal(last, before))
    assert moved == [False, False, False, True, True]


def test_a_step_with_a_single_picture_is_left_out_by_what_compares(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "pictures"
    data.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))[:7]):
        (data / f"{number}.jpg").write_bytes(path.read_bytes() if number else b"no picture")
    recipe = Recipe(
        data=str(data),
        network="convnext_v2_atto",
        network_options={"in_channels": (8, 8, 8, 8), "num_layers": (1, 1, 1, 1)},
        size=(32, 32),
        epochs=4,
        batch_size=2,
        objective=VICRegConfig(projector=(8,)),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    fit(recipe, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert any(json.loads(line)["kind"] == "unreadable" for line in lines)
    with pytest.raises(ConfigError, match="batch_size: vicreg compares pictures, and needs 2 or more"):
        fit(replace(recipe, batch_size=1), tmp_path / "single")
    assert not (tmp_path / "single").exists()


def test_views_that_are_all_the_same_are_refused(folder: Path, tmp_path: Path) -> None:
    for augment in (Augment(policy="birder", level=0), Augment(policy="none", min_scale=1.0, flip=0.0)):
        recipe = Recipe(
            data=str(folder), network="convnext_v2_atto", size=(32, 32), objective=SimCLRConfig(), augment=augment
        )
        with pytest.raises(ConfigError, match="augment: simclr compares views of a picture"):
            fit(recipe, tmp_path / "run")


def test_validation_pictures_that_are_learned_from_are_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(data=str(folder), val=str(folder / "train"), size=(32, 32), objective=SimCLRConfig())
    with caplog.at_level("WARNING", "birder"), pytest.raises(ConfigError):
        fit(replace(recipe, run=Run(accumulate=2, device="cpu")), tmp_path / "run")
    assert "its pictures are learned from, too" in caplog.text
