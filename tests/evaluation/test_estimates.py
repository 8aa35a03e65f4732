"""The bootstrap against closed forms: quantiles of the binomial distribution."""

import math

import numpy as np
import pytest

from birder.errors import ConfigError
from birder.evaluation.estimates import Indices, bootstrap
from birder.evaluation.metrics import macro_f1


def mean_of(values: np.ndarray):
    return lambda indices: {"mean": float(values[indices].mean())}


@pytest.mark.parametrize(("count", "right"), [(400, 120), (50, 49), (2000, 1900)])
def test_the_interval_of_a_share_is_that_of_the_binomial_distribution(count: int, right: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    hits = np.arange(count) < right
    found = bootstrap(mean_of(hits), count, draws=20_000)["mean"]
    wanted = stats.binom.ppf([0.025, 0.975], count, right / count) / count
    assert found.value == right / count
    # A quantile of 20,000 draws has a standard error of 0.02 deviations, and the binomial is a staircase.
    step = max(1 / count, 0.08 * math.sqrt(right / count * (1 - right / count) / count)) + 1e-9
    assert abs(found.low - wanted[0]) <= step and abs(found.high - wanted[1]) <= step


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(5, 2, 1000)
    found = bootstrap(mean_of(values), 1000, draws=20_000, limits=(-math.inf, math.inf))["mean"]
    error = values.std() / math.sqrt(1000)
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.08 * error
    )


def test_the_truth_lies_in_the_interval_as_often_as_is_said() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        found = bootstrap(mean_of(random.random(200) < 0.7), 200, draws=200, seed=seed)["mean"]
        inside += found.low <= 0.7 <= found.high
    assert 182 <= inside <= 198  # 190 are wanted, with a standard deviation of 3


class F1:
    """Macro F1 of some of the pictures, and what it was each time."""

    def __init__(self, labels: np.ndarray, predicted: np.ndarray, classes: int) -> None:
        self.labels, self.predicted, self.classes = labels, predicted, classes
        self.values: list[float] = []

    def __call__(self, indices: Indices) -> dict[str, float]:
        self.values.append(macro_f1(self.labels[indices], self.predicted[indices], self.classes))
        return {"f1": self.values[-1]}


def test_the_truth_of_a_figure_that_few_pictures_make_too_low() -> None:
    """Macro F1 of 600 pictures of 60 classes; intervals that are not moved hold the truth in six of ten cases."""
    random, classes = np.random.default_rng(0), 60
    taken = 0.6 * np.eye(classes) + 0.4 * random.dirichlet(np.full(classes, 0.1), classes)  # rows add up to 1
    right, given = np.diag(taken), taken.sum(axis=0)
    truth = (2 * right / (1 + given)).mean()
    inside, unmoved = 0, 0
    for seed in range(60):
        labels = random.integers(classes, size=600)
        predicted = (taken.cumsum(axis=1)[labels] < random.random((600, 1))).sum(axis=1).clip(0, classes - 1)
        figure = F1(labels, predicted, classes)
        found = bootstrap(figure, 600, draws=150, seed=seed)["f1"]
        inside += found.low <= truth <= found.high
        low, high = np.quantile(figure.values[:-1], [0.025, 0.975])
        unmoved += low <= truth <= high
    assert inside >= 53  # 57 are wanted, with a standard deviation of 1.7
    assert unmoved < 50


def test_an_interval_keeps_to_its_limits_and_has_its_figure_in_it() -> None:
    nearly = bootstrap(mean_of(np.arange(40) > 0), 40, draws=500)["mean"]
    assert 0.9 < nearly.low < nearly.value < nearly.high <= 1
    differences = mean_of(np.repeat([-1.0, 1.0], [39, 1]))
    found = bootstrap(differences, 40, draws=500, limits=(-1.0, 1.0))["mean"]
    assert -1 <= found.low < found.value == -0.95 < found.high
    for sign in (1, -1):  # a figure that is 0.63 in each draw and 1 of the whole; the interval is moved to 1.37

        def distinct(indices: Indices, sign: int = sign) -> dict[str, float]:
            return {"distinct": sign * len(set(indices.tolist())) / 100}

        estimate = bootstrap(distinct, 100, draws=50, limits=(-2.0, 2.0))["distinct"]
        near, far = (estimate.low, estimate.high)[::sign]
        assert near == estimate.value == sign and 1.3 < sign * far < 1.5
        limited = bootstrap(distinct, 100, draws=50, limits=(-1.0, 1.0))["distinct"]
        assert limited.low == limited.high == sign


def test_every_draw_has_as_many_pictures_and_the_value_is_of_each_once() -> None:
    seen: list[Indices] = []

    def statistic(indices: Indices) -> dict[str, float]:
        seen.append(indices)
        return {"sum": float(indices.sum()), "first": float(indices[0])}

    found = bootstrap(statistic, 7, draws=50)
    assert len(seen) == 51 and {len(indices) for indices in seen} == {7}
    assert sorted(seen[-1].tolist()) == list(range(7)) and found["sum"].value == 21
    drawn = np.stack(seen[:-1])
    assert drawn.min() == 0 and drawn.max() == 6 and len(np.unique(drawn, axis=0)) == 50
    assert list(found) == ["sum", "first"]


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(100)
    first, second, other = (bootstrap(mean_of(values), 100, draws=50, seed=seed)["mean"] for seed in (3, 3, 4))
    assert first == second != other


def test_one_picture_says_nothing_of_others_and_no_number_stays_none() -> None:
    only = bootstrap(mean_of(np.array([0.25])), 1, draws=5)["mean"]
    assert (only.value, only.low, only.high) == (0.25, 0.25, 0.25)
    unknown = bootstrap(lambda indices: {"x": math.nan}, 3, draws=5)["x"]
    assert math.isnan(unknown.value) and math.isnan(unknown.low) and math.isnan(unknown.high)


@pytest.mark.parametrize(("count", "draws"), [(0, 10), (10, 0)])
def test_nothing_to_draw(count: int, draws: int) -> None:
    with pytest.raises(ConfigError, match=f"not {draws} draws of {count} pictures"):
        bootstrap(mean_of(np.zeros(10)), count, draws=draws)
