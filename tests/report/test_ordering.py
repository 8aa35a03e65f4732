"""Similar classes stand together."""

import importlib.util

import numpy as np
import pytest

from birder.report.joined import NOBODY, Answers
from birder.report.ordering import leaning, orders, similar_together


def answers(labels: list[int], ranked: list[list[int]], probabilities: list[list[float]]) -> Answers:
    return Answers(
        pictures=np.arange(len(labels)),
        labels=np.array(labels),
        ranked=np.array(ranked),
        probabilities=np.array(probabilities, np.float32),
    )


def test_leaning_is_the_mean_probability() -> None:
    said = answers([2, 2, 5], [[2, 5], [5, 2], [5, NOBODY]], [[0.7, 0.2], [0.6, 0.3], [0.9, 0.0]])
    np.testing.assert_allclose(leaning(said, np.array([2, 5])), [[0.5, 0.4], [0.0, 0.9]], rtol=1e-6)


def test_groups_that_are_taken_for_each_other_are_neighbours() -> None:
    pytest.importorskip("scipy")
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(8), 5))
    likeness = 0.3 * (groups[:, None] == groups) + 0.05 * random.random((40, 40))
    order = similar_together(likeness.astype(np.float32))
    assert sorted(order.tolist()) == list(range(40))
    assert (np.diff(groups[order]) != 0).sum() == 7


def test_a_chain_is_laid_out_straight() -> None:
    pytest.importorskip("scipy")
    chain = np.random.default_rng(1).permutation(40)
    distance = np.abs(chain[:, None] - chain)
    order = similar_together(np.exp(-distance).astype(np.float32))
    assert (np.abs(np.diff(chain[order])) == 1).all()


def test_orders_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    said = answers([0, 1, 2], [[0], [1], [2]], [[1.0], [1.0], [1.0]])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    found = orders(said, np.arange(3), ["Tits", "Crows", "Tits"])
    assert found == {"family": [1, 0, 2], "name": [0, 1, 2]}
