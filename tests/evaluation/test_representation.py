"""Diagnoses and neighbours of known geometries, against scikit-learn and loops in float64."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from birder.errors import DataError
from birder.evaluation import representation
from birder.evaluation.representation import (
    alignment,
    deviation,
    diagnosis,
    directed,
    effective_rank,
    nearest_class,
    neighbours,
    uniformity,
)

ALL: list[Callable[[Tensor], object]] = [
    effective_rank,
    deviation,
    uniformity,
    diagnosis,
    lambda rows: alignment(rows, rows),
    lambda rows: neighbours(rows, torch.zeros(len(rows), dtype=torch.int64)),
]


def clusters(classes: int = 5, each: int = 8, size: int = 12, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    labels = torch.arange(classes).repeat(each)
    return torch.randn(classes, size)[labels] + noise * torch.randn(classes * each, size), labels


def unit(rows: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    values = rows.double().numpy()
    return np.array([row / math.sqrt((row * row).sum()) for row in values])


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (20, 20)])
def test_rank_against_the_singular_values(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape) @ torch.diag(torch.linspace(0.1, 2, shape[1]))
    values = np.linalg.svd(rows.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(rows) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert effective_rank(rows * 1e-20) == pytest.approx(effective_rank(rows * 1e20), rel=1e-5)


def test_rank_counts_directions() -> None:
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.eye(6)[:, :3].repeat(4, 2)) == pytest.approx(3, abs=1e-4)
    assert effective_rank(torch.full((50, 6), 3.0)) == pytest.approx(1, abs=1e-4)


def test_deviation_and_uniformity_against_loops() -> None:
    rows = torch.randn(30, 5) + 0.5
    one = unit(rows)
    spread = [math.sqrt(sum((x - column.mean()) ** 2 for x in column) / 30) for column in one.T]
    assert deviation(rows) == pytest.approx(sum(spread) / 5 * math.sqrt(5), rel=1e-5)
    near = [math.exp(-2 * ((a - b) ** 2).sum()) for a, b in combinations(one, 2)]
    assert uniformity(rows) == pytest.approx(math.log(sum(near) / len(near)), rel=1e-5)


def test_alignment_against_a_loop() -> None:
    rows, others = torch.randn(30, 5), torch.randn(30, 5)
    wanted = sum(((a - b) ** 2).sum() for a, b in zip(unit(rows), unit(others), strict=True)) / 30
    assert alignment(rows, others) == pytest.approx(wanted, rel=1e-5)
    assert alignment(rows, 3 * rows) == pytest.approx(0, abs=1e-6)
    assert alignment(rows, -rows) == pytest.approx(4)


def test_known_geometries() -> None:
    spread = diagnosis(torch.randn(2000, 64))
    assert spread["rank"] > 60 and spread["deviation"] > 0.99 and -4 < spread["uniformity"] < -3.7
    point = diagnosis(torch.ones(100, 64) + 1e-6 * torch.randn(100, 64))
    assert point["rank"] < 1.01 and point["deviation"] < 1e-3 and point["uniformity"] > -1e-3
    line = diagnosis(torch.randn(100, 1) * torch.ones(1, 64))  # one direction, both ways
    assert line["rank"] < 1.01 and line["deviation"] == pytest.approx(1, abs=0.1)
    five = diagnosis(clusters(size=64, noise=0.01)[0])
    assert 4 < five["rank"] < 6.5 and five["deviation"] > 0.8


def test_a_diagnosis_with_other_views() -> None:
    rows = torch.randn(20, 6)
    others = rows + 0.1 * torch.randn(20, 6)
    result = diagnosis(rows, others)
    assert set(result) == {"rank", "deviation", "alignment", "uniformity"}
    assert result["alignment"] == alignment(rows, others)
    assert {"alignment": result.pop("alignment"), **result} == {**diagnosis(rows), "alignment": alignment(rows, others)}
    assert all(type(value) is float for value in result.values())


def test_of_many_pictures_some_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, others = torch.randn(100, 6), torch.randn(100, 6)
    monkeypatch.setattr(representation, "_ENOUGH", 34)
    assert diagnosis(rows, others) == diagnosis(rows[::3], others[::3])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_neighbours_are_those_of_scikit_learn(k: int) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    rows, labels = clusters(noise=1.0, each=20)
    queries, _ = clusters(noise=1.0)
    oracle = sklearn.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(rows.double().numpy(), labels.numpy())
    predicted = oracle.predict(queries.double().numpy())
    assert len(set(predicted)) > 2
    assert nearest_class(rows, labels, queries, k).tolist() == predicted.tolist()
    right = 0
    for index in range(len(rows)):
        others = torch.arange(len(rows)) != index
        oracle.fit(rows[others].double().numpy(), labels[others].numpy())
        right += int(oracle.predict(rows[[index]].double().numpy())[0] == labels[index])
    assert 0.2 < right / len(rows) < 1
    assert neighbours(rows, labels, k) == right / len(rows)


def test_near_neighbours_outvote_many_far_ones() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert nearest_class(rows, labels, torch.tensor([[1.0, 0.4]]), k=4).tolist() == [0]
    assert nearest_class(rows, labels, torch.tensor([[1.0, 1.0]]), k=4).tolist() == [1]


def test_a_class_of_its_own_has_no_neighbours() -> None:
    rows, labels = clusters(classes=3)
    assert neighbours(rows, labels) == 1
    labels[0] = 3
    assert neighbours(rows, labels, k=3) == 23 / 24
    assert neighbours(rows[:2], torch.tensor([0, 0])) == 1  # one other, and k is 20
    assert neighbours(rows[:2], torch.tensor([0, 1])) == 0


def test_in_parts_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = clusters(noise=1.0)
    whole = neighbours(rows, labels), uniformity(rows), nearest_class(rows, labels, rows).tolist()
    monkeypatch.setattr(representation, "_CHUNK", 7 * len(rows))
    assert neighbours(rows, labels) == whole[0]
    assert uniformity(rows) == pytest.approx(whole[1], rel=1e-6)
    assert nearest_class(rows, labels, rows).tolist() == whole[2]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_only_directions_count(scale: float) -> None:
    rows, labels = clusters(noise=1.0)
    assert neighbours(rows * scale, labels) == neighbours(rows, labels)
    assert deviation(rows * scale) == pytest.approx(deviation(rows), rel=1e-5)
    assert uniformity(rows * scale) == pytest.approx(uniformity(rows), rel=1e-5)


def test_arrays_and_other_types_will_do() -> None:
    rows, labels = clusters(noise=1.0)
    assert diagnosis(rows.numpy(), rows.numpy()) == diagnosis(rows, rows)
    assert neighbours(rows.double().numpy(), labels.numpy()) == neighbours(rows, labels)
    assert diagnosis(rows.requires_grad_().bfloat16())["rank"] == pytest.approx(effective_rank(rows), rel=0.01)


@pytest.mark.parametrize("number", range(len(ALL)))
def test_rows_that_tell_nothing(number: int) -> None:
    function = ALL[number]
    rows = torch.randn(6, 4)
    for value in (math.nan, math.inf):
        broken = rows.clone()
        broken[2, 1] = value
        with pytest.raises(DataError, match="1 of 6 embeddings have values that are infinite or no numbers"):
            function(broken)
    with pytest.raises(DataError, match=r"embeddings.* zero"):
        function(torch.zeros(6, 4))
    for shape in ((1, 4), (0, 4), (6, 0), (6,), (6, 2, 4)):
        with pytest.raises(DataError, match=r"must be \(N, D\), of 2 or more pictures, not"):
            function(torch.ones(shape))


def test_one_zero_among_others() -> None:
    rows = torch.randn(6, 4)
    rows[3] = 0
    with pytest.raises(DataError, match="1 of 6 embeddings are zero"):
        neighbours(rows, torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, -1], [0.0, 1.0, 1.0, 0.0], [[0], [1], [1], [0]]])
def test_labels_that_do_not_fit(labels: list[int]) -> None:
    with pytest.raises(DataError, match="labels must be whole numbers from 0, one for each of the 4 embeddings"):
        neighbours(torch.randn(4, 3), torch.tensor(labels))


def test_what_cannot_be_compared() -> None:
    rows, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    with pytest.raises(DataError, match="k must be 1 or more, not 0"):
        neighbours(rows, labels, k=0)
    with pytest.raises(DataError, match="embeddings of 3 and of 5 dimensions"):
        nearest_class(rows, labels, torch.randn(2, 5))
    for function in (diagnosis, alignment):
        with pytest.raises(DataError, match=r"must have one shape, not \(4, 3\) and \(2, 3\)"):
            function(rows, rows[:2])


def test_rows_with_a_direction() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, -1e-30], [1e30, 0.0], [-0.0, 0.0]])
    assert directed(rows).tolist() == directed(rows.numpy()).tolist() == [False, True, True, False]
    assert diagnosis(rows[directed(rows)])["deviation"] > 0
    with pytest.raises(DataError, match="1 of 1 embeddings have values"):
        directed(torch.tensor([[math.nan, 0.0]]))
    with pytest.raises(DataError, match="of 1 or more pictures"):
        directed(torch.zeros(0, 2))
