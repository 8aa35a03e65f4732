"""SimCLR: its loss against the paper's equation 1, term by term in float64."""

import math

import pytest
import torch

from birder.objectives.configs import SimCLRConfig
from birder.objectives.methods import create_objective
from birder.objectives.simclr import contrastive_loss
from birder.testing import check_objective, small_network


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_loss_is_that_of_the_paper(number, temperature):
    z = torch.randn(number, 2, 6, dtype=torch.float64)
    views = [(picture, view, z[picture, view].tolist()) for picture in range(number) for view in range(2)]
    losses = []
    for picture, view, row in views:
        terms = {
            (other, seen): math.exp(cosine(row, rest) / temperature)
            for other, seen, rest in views
            if (other, seen) != (picture, view)
        }
        losses.append(-math.log(terms[picture, 1 - view] / sum(terms.values())))
    expected = sum(losses) / len(losses)
    assert contrastive_loss(z, temperature).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_guessing_gives_the_logarithm_of_the_number_of_others():
    alike = torch.ones(8, 2, 4)
    assert contrastive_loss(alike, 0.1).item() == pytest.approx(math.log(15))


def test_gradients_are_those_of_differences():
    z = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: contrastive_loss(rows, 0.5), z)


@pytest.mark.parametrize(("hidden", "width"), [(None, 24), (40, 40)])
def test_the_layer_in_between_is_as_wide_as_the_embedding_or_as_told(hidden, width):
    objective = create_objective(SimCLRConfig(hidden=hidden, projection=7), small_network(0))
    shapes = {name: tuple(weight.shape) for name, weight in objective.head.named_parameters()}
    assert shapes == {"0.weight": (width, 24), "0.bias": (width,), "2.weight": (7, width)}
    assert objective.compares


def test_it_keeps_the_promises_of_every_objective():
    check_objective("simclr", projection=16)
