"""Activations against their formulas in float64."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from birder.layers.activation import ACTIVATIONS, ActivationName

FORMULAS: dict[ActivationName, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "relu": lambda x: max(x, 0.0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_is_its_formula(name: ActivationName) -> None:
    x = torch.linspace(-6, 6, 49, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[name](value) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name]()(x), expected, rtol=0, atol=1e-14)


def test_every_name_is_known() -> None:
    assert set(ACTIVATIONS) == set(FORMULAS) == set(get_args(ActivationName))
