"""Moving axes and dropping paths."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from birder.layers.shape import DropPath, Permute, drop_path_rates


def test_permute_moves_axes_without_copying() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = Permute(0, 2, 3, 1)(x)
    assert y.shape == (2, 4, 5, 3)
    assert y.data_ptr() == x.data_ptr()
    assert repr(Permute(0, 2, 1)) == "Permute(0, 2, 1)"


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    rate, images = 0.3, 10_000
    y = DropPath(rate).train()(torch.ones(images, 2, 3))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    five_sigma = 5 * math.sqrt(rate / (1 - rate) / images)
    assert abs(y.mean().item() - 1) < five_sigma


def test_drop_path_passes_everything_on_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(4, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    assert repr(DropPath(0.25)) == "DropPath(rate=0.25)"


def test_drop_path_keeps_the_type() -> None:
    assert DropPath(0.5).train()(torch.ones(4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rates_rise_linearly_from_zero() -> None:
    assert drop_path_rates(0.4, (1, 3, 1)) == [[0.0], pytest.approx([0.1, 0.2, 0.3]), [0.4]]
    assert drop_path_rates(0.4, (1, 2), uniform=True) == [[0.4], [0.4, 0.4]]
    assert drop_path_rates(0.4, (1,)) == [[0.0]]


@given(st.floats(0, 0.9), st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple))
def test_rates_of_any_depths(rate: float, num_layers: tuple[int, ...]) -> None:
    rates = drop_path_rates(rate, num_layers)
    assert tuple(map(len, rates)) == num_layers
    flat = sum(rates, [])  # noqa: RUF017
    assert flat == sorted(flat)
    assert all(0 <= value <= rate * (1 + 1e-12) for value in flat)
