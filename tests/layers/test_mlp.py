"""MLPs against their formulas."""

import torch
import torch.nn.functional as F
from torch import nn

from birder.layers.mlp import MLP, SwiGLU


def test_mlp_is_two_layers() -> None:
    mlp = MLP(3, 7, activation=nn.ReLU).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    first, second = mlp[0], mlp[3]
    expected = (x @ first.weight.mT + first.bias).clamp_min(0) @ second.weight.mT + second.bias
    torch.testing.assert_close(mlp(x), expected)


def test_swiglu_is_that_of_the_paper() -> None:
    """Equation 6, with biases: (swish(x W) * x V) W2."""
    mlp = SwiGLU(3, 7).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    gate = x @ mlp.fc1_g.weight.mT + mlp.fc1_g.bias
    value = x @ mlp.fc1_x.weight.mT + mlp.fc1_x.bias
    expected = (gate / (1 + torch.exp(-gate)) * value) @ mlp.fc2.weight.mT + mlp.fc2.bias
    torch.testing.assert_close(mlp(x), expected)


def test_the_norm_of_swiglu_stands_before_the_last_layer() -> None:
    mlp = SwiGLU(3, 7, norm=nn.LayerNorm)
    nn.init.normal_(mlp.norm.weight)
    x = torch.randn(2, 4, 3)
    hidden = F.layer_norm(F.silu(mlp.fc1_g(x)) * mlp.fc1_x(x), (7,), mlp.norm.weight, mlp.norm.bias)
    torch.testing.assert_close(mlp(x), mlp.fc2(hidden))


def test_dropout_is_of_the_training_alone() -> None:
    x = torch.randn(2, 4, 3)
    for cls in (MLP, SwiGLU):
        mlp = cls(3, 7, dropout=0.5)
        assert not torch.equal(mlp(x), mlp(x))
        mlp.eval()
        assert torch.equal(mlp(x), mlp(x))
