"""Probes of embeddings and of networks whose answers are known."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from birder.data.samples import Samples, read_samples
from birder.data.split import split
from birder.errors import ConfigError, DataError, NotFinite
from birder.evaluation import probe as module
from birder.evaluation import representation
from birder.evaluation.linear import LinearProbe, fit_linear
from birder.evaluation.metrics import Accuracy, wilson_interval
from birder.evaluation.probe import DRAWS, Probe, nearest_mean, probe, probe_embeddings, split_off, write_probe
from birder.evaluation.representation import diagnosis
from birder.networks import Network
from birder.signature import PRESETS

NEUTRAL = PRESETS["neutral"]
Parts = tuple[Tensor, Tensor, Tensor, Tensor]


def parts(noise: float = 0.05, classes: int = 6, each: int = 12, size: int = 16) -> Parts:
    means = torch.randn(classes, size) + 1
    labels, truth = torch.arange(classes).repeat(each), torch.arange(classes).repeat(5)
    rows, queries = (means[some] + noise * torch.randn(len(some), size) for some in (labels, truth))
    return rows, labels, queries, truth


def accuracies(result: Probe) -> list[float]:
    few = [row.accuracy for row in result.few_shot]
    return [accuracy.value for accuracy in (result.knn, result.linear, *few)]


def plain(result: Probe) -> object:
    """As it is read from JSON."""
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_clusters_apart_are_told_apart() -> None:
    result = probe_embeddings(*parts(), shots=(1, 2, 5, 10))
    assert (result.training, result.validation, result.classes, result.dimensions) == (72, 30, 6, 16)
    assert result.knn == result.linear == result.linear_top3 == Accuracy(value=1.0, interval=wilson_interval(30, 30))
    assert [(row.shots, row.accuracy.value, row.spread, row.incomplete) for row in result.few_shot] == [
        (1, 1.0, 0.0, 0),
        (2, 1.0, 0.0, 0),
        (5, 1.0, 0.0, 0),
        (10, 1.0, 0.0, 0),
    ]
    assert result.neighbours == 20 and result.failures == []


def test_noise_is_told_by_chance() -> None:
    rows, labels, queries, truth = parts(noise=1e4, each=30)
    result = probe_embeddings(rows, labels, queries.repeat(20, 1) + 1e4 * torch.randn(600, 16), truth.repeat(20))
    assert all(0.08 < value < 0.26 for value in accuracies(result))
    for accuracy in (result.knn, result.linear):
        assert accuracy.interval == wilson_interval(round(accuracy.value * 600), 600)


def test_collapsed_embeddings_are_told_by_chance() -> None:
    _, labels, _, truth = parts()
    result = probe_embeddings(torch.ones(72, 16), labels, torch.ones(30, 16), truth)
    assert accuracies(result) == [pytest.approx(1 / 6)] * 6
    assert result.linear_top3.value == pytest.approx(0.5)
    assert result.diagnosis["rank"] == pytest.approx(1, abs=1e-3)


def test_more_pictures_help() -> None:
    result = probe_embeddings(*parts(noise=1.5, each=40), shots=(20, 1, 5, 5, 60))
    assert [row.shots for row in result.few_shot] == [1, 5, 20]  # in order, once, and as many as there are
    few = accuracies(result)[2:]
    assert few[0] + 0.1 < few[1] < few[2] + 0.05
    assert result.few_shot[0].spread > 0


def test_the_validation_part_decides_nothing() -> None:
    """Every picture gets one answer, whatever the truth: over all classes, the parts that are right add to 1."""
    rows, labels, queries, truth = parts(noise=2.0)
    results = [probe_embeddings(rows, labels, queries, torch.full_like(truth, value)) for value in range(6)]
    for values in zip(*map(accuracies, results), strict=True):
        assert sum(values) == pytest.approx(1)
    assert sum(result.linear_top3.value for result in results) == pytest.approx(3)
    assert len({result.weight_decay for result in results}) == 1
    assert all(result.diagnosis == diagnosis(queries) for result in results)


def test_the_order_of_what_is_asked_does_not_matter() -> None:
    rows, labels, queries, truth = parts(noise=2.0)
    order = torch.randperm(len(truth))
    one, other = (probe_embeddings(rows, labels, queries[some], truth[some]) for some in (order, order.sort().values))
    assert accuracies(one) == accuracies(other)
    # And one picture's answer does not depend on those that are asked with it.
    answers = [probe_embeddings(rows, labels, queries[some], truth[some]) for some in (slice(0, 15), slice(15, 30))]
    together = np.mean([accuracies(answer) for answer in answers], axis=0)
    assert together == pytest.approx(accuracies(one))


def test_a_seed_gives_the_same_again() -> None:
    given = parts(noise=2.0)
    assert probe_embeddings(*given, seed=3) == probe_embeddings(*given, seed=3)
    few = [[row.accuracy.value for row in probe_embeddings(*given, seed=seed).few_shot] for seed in (3, 4)]
    assert few[0] != few[1]


def test_classes_with_few_pictures_or_none() -> None:
    rows, labels, queries, truth = parts()
    chosen = (labels != 2) & ((labels != 4) | (torch.arange(72) < 6))  # one picture of 4, none of 2
    result = probe_embeddings(rows[chosen], labels[chosen], queries, truth)
    assert result.classes == 5 and [row.incomplete for row in result.few_shot] == [0, 1, 1, 1]
    assert accuracies(result) == [pytest.approx(25 / 30)] * 6
    one = torch.arange(6)  # one picture of each
    result = probe_embeddings(rows[one], labels[one], queries, truth)
    assert [row.shots for row in result.few_shot] == [1] and result.few_shot[0].spread == 0
    assert result.neighbours == 6 and result.linear.value == 1 and result.weight_decay == 0.1


def test_the_few_are_drawn_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels, queries, truth = parts(each=4)
    seen: list[list[int]] = []

    def watched(some: Tensor, names: Tensor, asked: Tensor) -> Tensor:
        assert names.bincount().tolist() == [len(names) // 6] * 6
        seen.append([int((rows == row).all(dim=1).nonzero()) for row in some])
        return nearest_mean(some, names, asked)

    monkeypatch.setattr(module, "nearest_mean", watched)
    probe_embeddings(rows, labels, queries, truth, shots=(1, 3))
    assert [len(drawn) for drawn in seen] == [6] * DRAWS + [18] * DRAWS
    assert all(set(fewer) < set(more) for fewer, more in zip(seen[:DRAWS], seen[DRAWS:], strict=True))
    assert len({index for drawn in seen[:DRAWS] for index in drawn}) > 18  # of 24: each has its turn


def test_the_nearest_mean_against_loops() -> None:
    rows, labels, queries, _ = parts(noise=1.5)
    labels = labels * 3 + 1  # with gaps
    centre = rows.double().mean(dim=0)

    def one(row: Tensor) -> Tensor:
        row = row.double() - centre
        return row / math.sqrt(float((row * row).sum()))

    means = {
        label: sum(one(row) for row, its in zip(rows, labels.tolist(), strict=True) if its == label) / 12
        for label in labels.unique().tolist()
    }
    wanted = [min(means, key=lambda label: float((one(row) - means[label]).square().sum())) for row in queries]
    assert len(set(wanted)) == 6
    assert nearest_mean(rows, labels, queries).tolist() == wanted


def test_memory_does_not_grow_with_pictures_times_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor has a number for each picture and class, and the answers are those of one piece."""
    rows, labels, queries, truth = parts(noise=1.5, classes=60, each=4, size=3)
    whole = probe_embeddings(rows, labels, queries, truth, shots=(2,)), nearest_mean(rows, labels, queries).tolist()
    monkeypatch.setattr(representation, "_CHUNK", 60 * 7)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        assert nearest_mean(rows, labels, queries).tolist() == whole[1]
    assert largest <= queries.numel()  # the queries themselves, and the rows
    monkeypatch.setattr(module, "tuned_linear", lambda *given, **options: fit_linear(*given, 0.1))
    monkeypatch.setattr(LinearProbe, "logits", bounded(LinearProbe.logits, 60 * 7))
    few = probe_embeddings(rows, labels, queries, truth, shots=(2,))
    assert (few.knn, few.few_shot) == (whole[0].knn, whole[0].few_shot)
    monkeypatch.setattr(representation, "_CHUNK", 60 * 300)
    with pytest.raises(AssertionError, match="too large"):  # it is looked at
        probe_embeddings(rows, labels, queries, truth, shots=(2,))


def bounded(function: Callable[..., Tensor], most: int) -> Callable[..., Tensor]:
    def checked(*given: Any) -> Tensor:
        result = function(*given)
        assert result.numel() <= most, "too large"
        return result

    return checked


def test_numbers_that_make_no_sense() -> None:
    rows, labels, queries, truth = parts()
    for options in ({"k": 0}, {"shots": (1, 0)}):
        with pytest.raises(ConfigError, match="k and shots must be 1 or more"):
            probe_embeddings(rows, labels, queries, truth, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="only one class"):
        probe_embeddings(rows, torch.ones_like(labels), queries, truth)
    with pytest.raises(DataError, match="two pictures to ask about, or more, not 1"):
        probe_embeddings(rows, labels, queries[:1], truth[:1])
    assert probe_embeddings(rows, labels, queries, truth, shots=()).few_shot == []


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Blue and red pictures, one of them no picture."""
    random = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 4)):
        for name, colour in (("Blue", (20, 60, 200)), ("Red", (200, 60, 20))):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + random.integers(0, 40, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "train" / "Blue" / "0.png").write_text("no picture")
    return tmp_path / "train", tmp_path / "val"


@pytest.fixture
def samples(folders: tuple[Path, Path]) -> tuple[Samples, Samples]:
    training = read_samples(folders[0])
    return training, read_samples(folders[1], training.class_to_idx)


def test_a_network_and_its_pictures(network: Network, samples: tuple[Samples, Samples]) -> None:
    network.train()
    result = probe(network, NEUTRAL, *samples, k=3, shots=(1, 2), batch_size=3)
    assert all(layer.training for layer in network.modules())
    assert (result.training, result.validation, result.classes, result.dimensions) == (9, 8, 2, 16)
    assert [(Path(failure.path).name, failure.code) for failure in result.failures] == [("0.png", "not_an_image")]
    assert result.knn.value == result.linear.value == result.linear_top3.value == 1
    assert plain(probe(network, NEUTRAL, *samples, k=3, shots=(1, 2), batch_size=3, workers=1)) == plain(result)
    network.reset_classifier(0)
    assert plain(probe(network, NEUTRAL, *samples, k=3, shots=(1, 2), batch_size=3)) == plain(result)


def test_the_pictures_can_be_watched(network: Network, samples: tuple[Samples, Samples]) -> None:
    seen = []
    probe(network, NEUTRAL, *samples, watch=lambda rows: (seen.append(row) or row for row in rows))
    assert len(seen) == 18


def test_what_cannot_be_probed(network: Network, samples: tuple[Samples, Samples], folders: tuple[Path, Path]) -> None:
    training, validation = samples
    with pytest.raises(DataError, match="do not have the same classes"):
        probe(network, NEUTRAL, training, Samples(validation._pictures, validation.labels, {"Blue": 1, "Red": 0}))
    with pytest.raises(DataError, match="2 of 2 pictures to ask about are learned from"):
        probe(network, NEUTRAL, training, training.select([1, 2]))
    with pytest.raises(DataError, match=r"none of 1 pictures can be read; .*0\.png: not_an_image: not a picture"):
        probe(network, NEUTRAL, training.select([0]), validation)
    with pytest.raises(DataError, match="only one class"):
        probe(network, NEUTRAL, training.select([1, 2]), validation)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more"):
        probe(network, NEUTRAL, training, validation, batch_size=0)
    with pytest.raises(DataError, match=r"classes are not among(.|\n)*Blue"):
        read_samples(folders[0], {"Bleu": 0, "Red": 1})


def test_embeddings_that_are_none(network: Network, samples: tuple[Samples, Samples]) -> None:
    answer = network.embedding
    network.embedding = lambda x: answer(x) * 0  # type: ignore[method-assign]
    with pytest.raises(DataError, match="embeddings are zero and point nowhere: the network has collapsed"):
        probe(network, NEUTRAL, *samples)
    network.embedding = lambda x: answer(x) * math.nan  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=r"1\.png: the network's embedding is not a number"):
        probe(network, NEUTRAL, *samples)


def test_a_part_is_split_off_as_the_data_command_does(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source = folders[0]
    for seed in (0, 1):
        parts = split_off(source, read_samples(source), seed=seed)
        split(source, tmp_path / f"split{seed}", val=0.2, seed=seed)
        for part, name in zip(parts, ("train", "val"), strict=True):
            table = read_samples(tmp_path / f"split{seed}" / f"{name}.csv", part.class_to_idx)
            assert [Path(part.name(index)).resolve() for index in range(len(part))] == [
                path.resolve() for path in table.paths
            ]
    assert [len(part) for part in parts] == [8, 2]
    few = read_samples(source).select([0, 1, 5, 6])
    with pytest.raises(DataError, match="too few pictures of each class"):
        split_off(source, few)


def test_the_numbers_as_a_file(tmp_path: Path) -> None:
    result = probe_embeddings(*parts(noise=2.0), shots=(1, 2))
    write_probe(tmp_path / "new" / "a.json", result, {"model": "x.pt"})
    read = json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8"))
    assert read == {"model": "x.pt", **plain(result)}  # type: ignore[dict-item]
    assert read["linear"] == {"value": result.linear.value, "interval": list(result.linear.interval)}
    write_probe(tmp_path / "a.csv", result, {})
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["measure"], row["shots"]) for row in rows] == [
        ("knn", ""),
        ("linear", ""),
        ("linear_top3", ""),
        ("nearest_mean", "1"),
        ("nearest_mean", "2"),
        ("rank", ""),
        ("deviation", ""),
        ("uniformity", ""),
    ]
    low, high = result.knn.interval
    assert [float(rows[0][name]) for name in ("value", "low", "high")] == pytest.approx(
        [result.knn.value, low, high], abs=1e-6
    )


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    result = probe_embeddings(*parts(), shots=())
    (tmp_path / "a.json").mkdir()
    (tmp_path / "file").touch()
    for name, message in (("a.txt", "ends in .json or .csv"), ("a.json", "is a folder"), ("file/b.csv", "is a file")):
        with pytest.raises(ConfigError, match=message):
            write_probe(tmp_path / name, result, {})
