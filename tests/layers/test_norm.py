"""Norms against their formulas, written out in float64."""

import numpy as np
import torch

from birder.layers.norm import GlobalResponseNorm, LayerNorm2d, LayerScale


def test_layer_norm_normalises_over_channels() -> None:
    norm = LayerNorm2d(5, eps=1e-3).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-3).sqrt() * norm.weight.reshape(5, 1, 1) + norm.bias.reshape(5, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-12, rtol=1e-12)


def test_global_response_norm_is_that_of_the_paper() -> None:
    """Algorithm 1: gx = norm of x over H, W; nx = gx / (mean of gx over C + eps); gamma * (x * nx) + beta + x."""
    norm = GlobalResponseNorm(6, eps=1e-6).double()
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)

    images, gamma, beta = x.numpy(), norm.gamma.detach().numpy(), norm.beta.detach().numpy()
    response = np.sqrt((images**2).sum(axis=(1, 2), keepdims=True))
    share = response / (response.mean(axis=3, keepdims=True) + 1e-6)
    expected = gamma * (images * share) + beta + images

    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_global_response_norm_starts_as_the_identity() -> None:
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(GlobalResponseNorm(6)(x), x)


def test_global_response_norm_survives_a_dead_map() -> None:
    norm = GlobalResponseNorm(3)
    torch.nn.init.ones_(norm.gamma)
    x = torch.zeros(1, 2, 2, 3, requires_grad=True)
    y = norm(x)
    assert torch.equal(y, torch.zeros(1, 2, 2, 3))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_layer_scale_has_a_factor_for_each_channel() -> None:
    scale = LayerScale(3, initial=0.5)
    x = torch.randn(2, 4, 3)
    assert torch.equal(scale(x), x / 2)
    torch.nn.init.normal_(scale.gamma)
    expected = torch.stack([x[..., channel] * scale.gamma[channel] for channel in range(3)], dim=-1)
    assert torch.equal(scale(x), expected)
