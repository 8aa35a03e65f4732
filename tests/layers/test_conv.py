"""Convolutions with their norms and gates, against the formulas in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.layers.conv import ConvNormAct, SqueezeExcite


def lively(module: nn.Module) -> nn.Module:
    """In float64, with statistics and weights that no constructor gives."""
    module.double()
    for tensor in (*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())):
        tensor.data.uniform_(0.5, 1.5)
    return module


def normed(x: Tensor, norm: nn.Module, mean: Tensor, variance: Tensor) -> Tensor:
    scale = norm.weight / (variance + 1e-5).sqrt()
    return (x - mean.reshape(-1, 1, 1)) * scale.reshape(-1, 1, 1) + norm.bias.reshape(-1, 1, 1)


def test_convolution_norm_and_activation() -> None:
    module = lively(ConvNormAct(4, 6, kernel_size=3, stride=2, groups=2))
    conv, norm, _ = module
    x = torch.randn(2, 4, 7, 10, dtype=torch.float64) - 1.5
    convolved = F.conv2d(x, conv.weight, stride=2, padding=1, groups=2)
    assert convolved.shape == (2, 6, 4, 5)  # rounded up

    expected = normed(convolved, norm, norm.running_mean, norm.running_var)
    torch.testing.assert_close(module.eval()(x), expected.clamp_min(0), atol=1e-12, rtol=1e-12)
    assert (expected < 0).any()

    mean, variance = convolved.mean(dim=(0, 2, 3)), convolved.var(dim=(0, 2, 3), unbiased=False)
    expected = normed(convolved, norm, mean, variance).clamp_min(0)
    torch.testing.assert_close(module.train()(x), expected, atol=1e-12, rtol=1e-12)


def test_without_activation_and_with_another() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.manual_seed(1)
    plain = ConvNormAct(3, 5, activation=None)
    torch.manual_seed(1)
    other = ConvNormAct(3, 5, activation=nn.SiLU)
    assert len(plain) == 2
    torch.testing.assert_close(other(x), F.silu(plain(x)))


@pytest.mark.parametrize("training", [True, False])
def test_its_gradient_is_right_though_it_works_in_place(training: bool) -> None:
    module = lively(ConvNormAct(2, 3, kernel_size=3)).train(training)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


def test_squeeze_and_excitation_is_that_of_the_paper() -> None:
    """Equations 2 to 4: z = mean of x over H, W; s = sigmoid(W2 relu(W1 z)); s * x."""
    module = SqueezeExcite(6, 4).double()
    module.fc1.bias.data = torch.tensor([-9.0, -0.1, 0.1, 9.0], dtype=torch.float64)
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    w1, w2 = module.fc1.weight.flatten(1), module.fc2.weight.flatten(1)
    hidden = torch.clamp(x.flatten(2).mean(dim=2) @ w1.T + module.fc1.bias, min=0)
    gate = 1 / (1 + torch.exp(-(hidden @ w2.T + module.fc2.bias)))
    torch.testing.assert_close(module(x), gate[:, :, None, None] * x, atol=1e-12, rtol=1e-12)
    assert (hidden == 0).any()
    assert (hidden > 0).any()
