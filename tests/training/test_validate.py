"""What is measured between two epochs: species that are named, or, without labels, how the embeddings lie."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from birder.data import thinning
from birder.data.augment import training_transform
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.loader import TrainingSet, looked_at
from birder.data.samples import Files, Samples, read_pictures, read_samples
from birder.data.transforms import classification_transform
from birder.errors import DataError
from birder.evaluation.classification import evaluate
from birder.evaluation.representation import diagnosis
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
    assert first.keys() == {"dead", "rank", "deviation", "alignment", "uniformity"}
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
    assert measured(network, read_pictures(folder).select([0])) == {}
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
    for rows in ([0, 3], [3, 3], [3]):
        assert measured(network, more.select(rows)) == {}
        with pytest.raises(DataError, match=rf"fewer than two of the {len(rows)} pictures of the validation"):
            measured(network, whole, more.select(rows))


def test_large_sets_are_thinned_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly for the pairs; for the neighbours so that each picture has others of its class."""
    monkeypatch.setattr(validate, "MOST_PAIRS", 4)
    monkeypatch.setattr(validate, "MOST_NEIGHBOURS", 7)
    monkeypatch.setattr(thinning, "OF_A_CLASS", 2)
    asked: list[list[str]] = []
    look = validate.looked_at

    def counted(samples: Any, rows: Any, **options: Any) -> Any:
        asked.append([samples.samples.name(row) for row in rows])
        return look(samples, asked and range(len(asked[-1])), **options)

    monkeypatch.setattr(validate, "looked_at", counted)
    labelled = read_samples(folder)
    measured(small_network(0), labelled, labelled)
    every = [labelled.name(row) for row in range(16)]
    assert asked == [[every[row] for row in (0, 5, 10, 15)]] * 2 + [[every[row] for row in (0, 4, 7, 8, 12, 15)]]


def test_many_classes_have_neighbours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every n-th picture, none would have another of its class: this network tells classes apart, and has 0."""
    monkeypatch.setattr(validate, "MOST_NEIGHBOURS", 40)
    whole = read_samples(folder)
    classes = {f"{number}": number for number in range(100)}
    many = Samples(Files.at([whole.paths[0]] * 400), np.arange(100).repeat(4), classes)
    network = small_network(0)
    monkeypatch.setattr(validate, "_embedded", lambda *arguments: told_apart(arguments[2].samples))

    def told_apart(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(samples.labels)
        return torch.eye(100)[labels], labels

    assert measured(network, many, many)["val_knn"] == 1.0


def test_labelled_pictures_are_compared_where_there_are_some(folder: Path) -> None:
    labelled, network = read_samples(folder), small_network(0)
    some = labelled.select(range(6))
    both = measured(network, some, labelled)
    both.pop("val_knn")
    assert both == measured(network, labelled)
    assert both != measured(network, some)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    """Makes a network whose embedding of some pictures, counted over all calls, is a certain value."""

    def made(rows: Iterable[int], value: float = 0.0) -> Network:
        torch.manual_seed(7)
        network, seen = small_network(0), iter(range(10**6))
        embedding = network.embedding

        def answer(x: torch.Tensor) -> torch.Tensor:
            dead = torch.tensor([next(seen) in rows for _ in x])
            return embedding(x).masked_fill(dead[:, None], value)

        monkeypatch.setattr(network, "embedding", answer)
        return network

    return made


def test_a_collapse_is_shown_and_stops_nothing(folder: Path) -> None:
    network = small_network(0)
    for weight in network.parameters():
        torch.nn.init.constant_(weight, 0.0)
    assert measured(network, read_pictures(folder)) == {"dead": 1.0}
    assert measured(network, read_pictures(folder), read_samples(folder)) == {"dead": 1.0}


def test_dead_embeddings_are_counted_and_left_out(folder: Path, dying: Callable[..., Network]) -> None:
    """The sixteen pictures pass in two variants, and, with labels, once as they are."""
    pictures, labelled = read_pictures(folder), read_samples(folder)
    assert measured(dying(()), pictures)["dead"] == 0.0
    result = measured(dying((3, 16 + 5)), pictures)
    assert result.pop("dead") == 2 / 16
    others = [row for row in range(16) if row not in (3, 5)]
    seen: list[torch.Tensor] = []
    torch.manual_seed(7)
    network = small_network(0).eval()
    varied = TrainingSet(pictures, training_transform(TRANSFORM.size, AUGMENT), seed=0)
    for epoch in (0, 1):
        (part,) = looked_at(varied, range(16), epoch=epoch)
        with torch.inference_mode():
            seen.append(network.embedding(TRANSFORM.normalize(part.images))[others])
    assert result == pytest.approx(diagnosis(*seen), rel=1e-4)
    for alive in (0, 1):
        assert measured(dying(range(alive, 16)), pictures) == {"dead": 1 - alive / 16}
    # Named right are only those that are not zero, of all.
    named_right = measured(dying(()), pictures, labelled.select(range(8)))["val_knn"]
    assert named_right == 1.0  # of a single class
    assert measured(dying(range(16, 22)), pictures, labelled.select(range(8)))["val_knn"] == 2 / 8
    assert "val_knn" not in measured(dying(range(16, 23)), pictures, labelled.select(range(8)))


def test_values_that_are_no_numbers_are_an_error(folder: Path, dying: Callable[..., Network]) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="1 of 16 embeddings have values that are infinite or no numbers"):
            measured(dying((3,), value), read_pictures(folder))


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

    def astray(network: Network, *arguments: Any, **options: Any) -> dict[str, float]:
        raise DataError("16 of 16 embeddings have values that are infinite or no numbers")

    with monkeypatch.context() as patch:
        patch.setattr("birder.training.fit.represented", astray)
        for _ in range(2):
            with pytest.raises(DataError, match="infinite or no numbers"):
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
