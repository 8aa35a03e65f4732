"""What is measured between two epochs: species that are named, or, without labels, how the embeddings lie."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.data.samples import Files, Samples, read_pictures, read_samples
from birder.data.transforms import classification_transform
from birder.errors import DataError
from birder.evaluation.classification import evaluate
from birder.model_file import ModelInfo
from birder.networks import Network
from birder.objectives.configs import MMCRConfig
from birder.signature import make_signature, rgb_stats
from birder.testing.objectives import small_network, small_vit
from birder.training import validate
from birder.training.fit import fit
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule
from birder.training.validate import named, represented

TRANSFORM = classification_transform((32, 32), rgb_stats("imagenet"))
AUGMENT = Augment(policy="birder", min_scale=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(DrawnBirds(families=2, species=2, difficulty=0.1, size=(40, 40)), folder, 8)
    return folder


def measured(network: Network, pictures: Samples, labelled: Samples | None = None, **options: Any) -> dict[str, float]:
    options = {"augment": AUGMENT, "workers": 0} | options
    return represented(network, TRANSFORM, pictures=pictures, labelled=labelled, **options)


def test_the_same_network_has_the_same_numbers(folder: Path) -> None:
    network, pictures = small_network(0).train(), read_pictures(folder)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    torch.manual_seed(1)
    first = measured(network, pictures)
    torch.manual_seed(2)
    torch.rand(3)
    assert measured(network, pictures) == first
    assert measured(network, pictures, workers=1) == first
    assert first.keys() == {"rank", "deviation", "alignment", "uniformity"}
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert measured(small_network(0), pictures) != first


def test_it_takes_no_random_numbers_of_the_training(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network = small_vit()
    torch.manual_seed(3)
    measured(network, read_pictures(folder))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_what_it_was(training: bool, folder: Path) -> None:
    network = small_vit().train(training)
    measured(network, read_pictures(folder), read_samples(folder))
    assert all(module.training is training for module in network.modules())
    with pytest.raises(DataError):
        measured(network, read_pictures(folder).select([0]))
    assert all(module.training is training for module in network.modules())


def test_numbers_are_those_of_two_variants(folder: Path) -> None:
    """By another way: the mean squared distance of the directions of both, computed here."""
    pictures, network = read_pictures(folder), small_network(0).eval()
    seen: list[torch.Tensor] = []
    embedding = network.embedding

    def kept(x: torch.Tensor) -> torch.Tensor:
        seen.append(embedding(x))
        return seen[-1]

    network.embedding = kept  # type: ignore[method-assign]
    result = measured(network, pictures, read_samples(folder))
    first, second, plain = (rows / rows.norm(dim=1, keepdim=True) for rows in seen)
    assert result["alignment"] == pytest.approx(float((first - second).square().sum(dim=1).mean()), rel=1e-4)
    labels = read_samples(folder).labels
    similar = (plain @ plain.T).fill_diagonal_(-9.0).numpy()
    weights = np.exp(similar / 0.07) * (similar > -9)  # with fewer pictures than neighbours, all others vote
    votes = np.stack([weights[:, labels == label].sum(axis=1) for label in (0, 1)], axis=1)
    assert result["val_knn"] == pytest.approx(float((votes.argmax(axis=1) == labels).mean()))
    assert not torch.equal(first, second)


def test_without_variation_the_variants_are_one(folder: Path) -> None:
    plain = Augment(policy="none", min_scale=1.0, flip=0.0, erase=0.0)
    assert measured(small_network(0), read_pictures(folder), augment=plain)["alignment"] == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_read_is_left_out(folder: Path, tmp_path: Path) -> None:
    whole, network = read_samples(folder), small_network(0)
    paths = [*whole.paths[:3], tmp_path / "gone.jpg", *whole.paths[3:]]
    more = Samples(Files.at(paths), np.insert(whole.labels, 3, 0), whole.class_to_idx)
    result = measured(network, more, more)
    assert result["val_knn"] == measured(network, whole, whole)["val_knn"]
    assert all(np.isfinite(list(result.values())))
    with pytest.raises(DataError, match="none of the 2 pictures can be read"):
        measured(network, Samples(Files.at([tmp_path / "a.jpg", tmp_path / "b.jpg"]), [0, 0], {}))
    with pytest.raises(DataError, match="2 or more pictures"):
        measured(network, more.select([0, 3]))


def test_large_sets_are_thinned_out_evenly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "MOST_PAIRS", 4)
    monkeypatch.setattr(validate, "MOST_NEIGHBOURS", 7)
    asked: list[list[str]] = []
    look = validate.looked_at

    def counted(samples: Any, rows: Any, **options: Any) -> Any:
        asked.append([samples.samples.name(row) for row in rows])
        return look(samples, asked and range(len(asked[-1])), **options)

    monkeypatch.setattr(validate, "looked_at", counted)
    labelled = read_samples(folder)
    measured(small_network(0), labelled, labelled)
    every = [labelled.name(row) for row in range(16)]
    assert asked == [[every[row] for row in (0, 5, 10, 15)]] * 2 + [[every[row] for row in (0, 2, 5, 8, 10, 12, 15)]]


def test_labelled_pictures_are_compared_where_there_are_some(folder: Path) -> None:
    labelled, network = read_samples(folder), small_network(0)
    some = labelled.select(range(6))
    both = measured(network, some, labelled)
    both.pop("val_knn")
    assert both == measured(network, labelled)
    assert both != measured(network, some)


@pytest.mark.parametrize(("value", "message"), [(0.0, "collapsed"), (float("nan"), "no numbers")])
def test_a_network_that_has_come_apart_is_an_error(value: float, message: str, folder: Path) -> None:
    network = small_network(0)
    for weight in network.parameters():
        torch.nn.init.constant_(weight, value)
    with pytest.raises(DataError, match=message):
        measured(network, read_pictures(folder))


def test_before_that_error_the_run_is_saved(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found after the epoch, which is not lost; the same command says it again."""
    recipe = Recipe(
        data=str(folder),
        network_options={"in_channels": (8, 8, 16, 24), "num_layers": (1, 1, 1, 1)},
        size=(32,),
        epochs=2,
        batch_size=8,
        objective=MMCRConfig(projector=(8,)),
        optim=Optim(name="sgd", lr=1e-3),
        schedule=Schedule(warmup_epochs=0.0),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )

    def collapsed(network: Network, *arguments: Any, **options: Any) -> dict[str, float]:
        raise DataError("16 of 16 embeddings are zero and point nowhere: the network has collapsed")

    with monkeypatch.context() as patch:
        patch.setattr("birder.training.fit.represented", collapsed)
        for _ in range(2):
            with pytest.raises(DataError, match="the network has collapsed"):
                fit(recipe, tmp_path / "run")
            assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000002.pt"]
    fit(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2]
    unbroken = load_file(fit(recipe, tmp_path / "unbroken").model)
    broken = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(broken[name], unbroken[name]) for name in unbroken)


def test_species_are_named_as_the_evaluation_names_them(folder: Path) -> None:
    samples, network = read_samples(folder), small_network(2)
    info = ModelInfo(samples.class_to_idx, make_signature(2, 3, (32, 32)), rgb_stats("imagenet"), None)
    result = evaluate(network, info, samples)
    assert named(network, info, samples, workers=0) == {
        "val_top1": result.top1,
        "val_top3": result.top3,
        "val_macro_f1": result.macro_f1,
    }
