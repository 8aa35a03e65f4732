"""Heads of objectives: which layers, and which of them have a bias."""

import pytest
import torch
from torch import nn

from birder.objectives.heads import projector


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_and_relu_stand_between_the_layers(bias: bool) -> None:
    head = projector(5, (7, 6, 3), bias=bias)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(7, 5), (6, 7), (3, 6)]
    assert [layer.bias is not None for layer in linear] == [bias, bias, False]
    assert head(torch.randn(4, 5)).shape == (4, 3)


def test_it_does_without_batch_norms_and_with_one_layer() -> None:
    assert [type(layer) for layer in projector(5, (7, 3), batch_norm=False)] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in projector(5, (3,), bias=True)] == [nn.Linear]
