"""The temperature against closed forms and a search of another kind."""

import numpy as np
import pytest

from birder.calibration.temperature import COLDEST, HOTTEST, fit_temperature, log_likelihood


def drawn(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are as often right as their softmax says."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 3
    gumbel = -np.log(-np.log(random.random(size=logits.shape)))
    return logits, (logits + gumbel).argmax(axis=1)


@pytest.mark.parametrize("right", [0.6, 0.75, 0.99])
def test_two_classes_have_a_closed_form(right: float) -> None:
    """All logits say 3 : 0 and the share p is right: then sigmoid(3 / T) = p."""
    labels = (np.arange(1000) >= 1000 * right).astype(int)
    logits = np.tile([3.0, 0.0], (1000, 1))
    assert fit_temperature(logits, labels) == pytest.approx(3 / np.log(right / (1 - right)), rel=1e-9)


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_it_undoes_a_factor(scale: float) -> None:
    logits, labels = drawn(5000, 7)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1, abs=0.05)
    assert fit_temperature(logits * scale, labels) == pytest.approx(temperature * scale, rel=1e-8)
    shifted = (logits + np.random.default_rng(1).normal(size=(5000, 1)) * 50).astype(np.float32)
    assert fit_temperature(shifted, labels) == pytest.approx(temperature, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_scipy_finds_the_same(seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits, labels = drawn(300, 12, seed)
    logits *= np.random.default_rng(seed).uniform(0.3, 4)
    found = optimize.minimize_scalar(
        lambda log: -log_likelihood(logits, labels, np.exp(log)).mean(), bounds=(-3, 3), options={"xatol": 1e-10}
    )
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-5)


def test_likelihood_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = drawn(200, 5)
    shares = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(axis=1, keepdims=True)
    expected = metrics.log_loss(labels, shares, labels=range(5))
    assert -log_likelihood(logits, labels, 2.5).mean() == pytest.approx(expected, rel=1e-12)


def test_where_the_labels_say_nothing_it_stays_in_range() -> None:
    logits, _ = drawn(100, 4)
    assert fit_temperature(logits, logits.argmax(axis=1)) == COLDEST
    assert fit_temperature(logits, logits.argmin(axis=1)) == HOTTEST
    assert COLDEST <= fit_temperature(np.zeros((50, 4)), np.zeros(50, int)) <= HOTTEST
    assert np.isfinite(fit_temperature(logits.astype(np.float32) * 1e30, drawn(100, 4)[1]))


def test_many_pictures_are_taken_in_parts() -> None:
    logits, labels = drawn(9000, 3)
    found = fit_temperature(logits, labels)
    near = [-log_likelihood(logits, labels, found * factor).mean() for factor in (1, 0.999, 1.001)]
    assert near[0] == min(near)
