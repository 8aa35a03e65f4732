"""The linear probe, against scikit-learn, and how strongly it is held back."""

import numpy as np
import pytest
import torch
from torch import Tensor

from birder.data import thinning
from birder.evaluation import linear, representation
from birder.evaluation.linear import WEIGHT_DECAYS, LinearProbe, fit_linear, tuned_linear


def clouds(classes: int = 4, each: int = 15, size: int = 6, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(classes).repeat(each)
    rows = torch.randn(classes, size)[labels] + noise * torch.randn(classes * each, size)
    return rows.double() * torch.arange(1, size + 1) + 3, labels


@pytest.mark.parametrize("weight_decay", [1.0, 1e-2, 1e-4])
def test_the_optimum_is_that_of_scikit_learn(weight_decay: float) -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    rows, labels = clouds()
    standard = (rows.numpy() - rows.numpy().mean(axis=0)) / rows.numpy().std(axis=0)
    oracle = sklearn.LogisticRegression(C=1 / (weight_decay * len(rows)), tol=1e-9, max_iter=10_000)
    oracle.fit(standard, labels.numpy())
    probe = fit_linear(rows, labels, weight_decay)
    assert np.abs(probe.weight.numpy() - oracle.coef_).max() < 1e-3 * np.abs(oracle.coef_).max()
    found = probe.logits(rows).softmax(dim=1).numpy()
    assert np.abs(found - oracle.predict_proba(standard)).max() < 1e-3


def test_float32_finds_the_same() -> None:
    rows, labels = clouds()
    exact, single = fit_linear(rows, labels, 1e-2), fit_linear(rows.float(), labels, 1e-2)
    assert single.weight.dtype == torch.float32
    assert (single.weight - exact.weight).abs().max() < 1e-3


def test_where_it_begins_does_not_matter() -> None:
    rows, labels = clouds()
    one = fit_linear(rows, labels, 1e-2)
    other = fit_linear(rows, labels, 1e-2, start=fit_linear(rows, labels, 1e-4))
    assert (one.weight - other.weight).abs().max() < 1e-4


def test_it_learns_where_gradients_are_off() -> None:
    rows, labels = clouds(noise=0.1)
    with torch.no_grad():
        probe = fit_linear(rows, labels, 1e-2)
    assert (probe.logits(rows).argmax(dim=1) == labels).all() and not probe.weight.requires_grad


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_a_dimension_that_says_nothing_is_not_blown_up(noise: float) -> None:
    rows, labels = clouds()
    wanted = fit_linear(rows, labels, 1e-2)
    constant = 7 + noise * torch.randn(len(rows), 1, dtype=torch.float64)
    probe = fit_linear(torch.cat([rows, constant], dim=1), labels, 1e-2)
    assert (probe.weight[:, :-1] - wanted.weight).abs().max() < 1e-4
    assert probe.weight[:, -1].abs().max() < 1e-3


def test_a_collapsed_network_is_no_error() -> None:
    probe = tuned_linear(torch.ones(20, 4), torch.arange(20) % 4)
    assert probe.weight.isfinite().all()
    assert probe.logits(torch.ones(1, 4)).softmax(dim=1).tolist()[0] == pytest.approx([0.25] * 4, abs=1e-4)


def test_noise_is_held_back_and_a_fine_difference_is_not() -> None:
    labels = torch.arange(60) % 3
    noisy = torch.randn(3, 200)[labels] * 0.15 + torch.randn(60, 200)
    assert tuned_linear(noisy, labels).weight_decay >= 0.01
    common = torch.randn(300, 1)
    fine = torch.cat([common, common + 0.02 * (torch.arange(300)[:, None] % 3)], dim=1).double()
    probe = tuned_linear(fine, torch.arange(300) % 3)
    assert probe.weight_decay <= 1e-4
    assert (probe.logits(fine).argmax(dim=1) == torch.arange(300) % 3).float().mean() > 0.95


def test_of_equally_many_right_answers_the_surest_are_taken() -> None:
    rows, labels = clouds(noise=0.01)
    probe = tuned_linear(rows, labels)
    assert probe.weight_decay == WEIGHT_DECAYS[-1] == min(WEIGHT_DECAYS) == pytest.approx(1e-5)
    whole = fit_linear(rows, labels, probe.weight_decay)
    assert (probe.weight - whole.weight).abs().max() < 1e-12  # of all pictures, also those that were held out


def test_too_few_pictures_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = clouds(each=2)
    assert tuned_linear(rows, labels).weight_decay == 0.1
    monkeypatch.setattr(linear, "WEIGHT_DECAYS", (0.5,))
    assert tuned_linear(rows, labels).weight_decay == 0.1
    assert tuned_linear(*clouds(each=3)).weight_decay == 0.5


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, float]]:
    """What was fitted: pictures and strength."""
    seen: list[tuple[Tensor, float]] = []

    def watched(rows: Tensor, labels: Tensor, weight_decay: float, *start: LinearProbe) -> LinearProbe:
        seen.append((rows, weight_decay))
        return fit_linear(rows, labels, weight_decay, *start)

    monkeypatch.setattr(linear, "fit_linear", watched)
    return seen


def test_the_seed_chooses_the_pictures_that_are_held_out(fitted: list[tuple[Tensor, float]]) -> None:
    rows, labels = clouds()
    for seed in (0, 0, 1):
        tuned_linear(rows, labels, seed=seed)
    assert {len(some) for some, _ in fitted} == {48, 60}
    whole = [index for index, (some, _) in enumerate(fitted) if len(some) == 60]
    assert len(whole) == 3 and all(torch.equal(fitted[index][0], rows) for index in whole)
    first, again, other = (fitted[start][0] for start in (0, whole[0] + 1, whole[1] + 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_of_many_pictures_some_choose(monkeypatch: pytest.MonkeyPatch, fitted: list[tuple[Tensor, float]]) -> None:
    """And the probe is of all. With two pictures of each class, as every n-th would be, none could choose."""
    rows, labels = clouds(classes=10, each=10, noise=0.5)
    monkeypatch.setattr(linear, "_TUNED_ON", 20)
    probe = tuned_linear(rows, labels)
    assert [len(some) for some, _ in fitted] == [16] * len(WEIGHT_DECAYS) + [100]
    assert probe.weight.shape == (10, 6)
    whole = fit_linear(rows, labels, probe.weight_decay)
    assert (probe.weight - whole.weight).abs().max() < 1e-12
    monkeypatch.setattr(thinning, "OF_A_CLASS", 4)
    fitted.clear()
    tuned_linear(rows, labels)
    assert [len(some) for some, _ in fitted] == [15] * len(WEIGHT_DECAYS) + [100]


def test_it_tells_what_it_does() -> None:
    told: list[str] = []
    probe = tuned_linear(*clouds(), tell=told.append)
    assert told[0] == "linear probe: weight decay 10, 1 of 13 to choose from"
    assert told[12] == "linear probe: weight decay 1e-05, 13 of 13 to choose from"
    assert told[13:] == [f"linear probe: of all 60 pictures, weight decay {probe.weight_decay:.2g}"]


def test_in_parts_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = clouds()
    whole = fit_linear(rows, labels, 1e-2)
    monkeypatch.setattr(representation, "_CHUNK", 4 * 7)
    parts = fit_linear(rows, labels, 1e-2)
    assert (whole.weight - parts.weight).abs().max() < 1e-6
