"""The map keeps what is alike together, and is the same each time."""

import importlib.util

import numpy as np
import pytest

from birder.report.projection import projected


@pytest.fixture
def rows() -> np.ndarray:
    random = np.random.default_rng(0)
    centres = 3 * np.eye(3, 12)
    return (np.repeat(centres, 20, axis=0) + 0.1 * random.normal(size=(60, 12))).astype(np.float16)


def test_pca(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = projected(rows)
    assert found["method"] == "PCA" and 0.9 < found["share"] <= 1
    check(found)
    assert projected(rows) == found
    unit = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    lengths = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    assert found["share"] == pytest.approx((lengths[:2] ** 2).sum() / (lengths**2).sum())


@pytest.mark.slow
def test_umap(rows: np.ndarray) -> None:
    pytest.importorskip("umap")
    found = projected(rows)
    assert found["method"] == "UMAP"
    check(found)
    assert projected(rows) == found


def test_pictures_that_are_all_alike_have_one_place() -> None:
    found = projected(np.ones((4, 8), np.float16))
    assert set(found["x"]) == {0.0} and set(found["y"]) == {0.0}


def check(found: dict) -> None:
    places = np.stack([found["x"], found["y"]], axis=1)
    assert places.min() >= 0 and places.max() <= 1
    groups = places.reshape(3, 20, 2)
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    between = np.linalg.norm(groups.mean(axis=1) - np.roll(groups.mean(axis=1), 1, axis=0), axis=1).min()
    assert between > 2 * within
