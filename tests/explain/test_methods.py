"""Grad-CAM and rollout against their definitions, in float64 and written down another way."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.explain.grad_cam import grad_cam
from birder.explain.grid import Grid, enlarged, grid_of
from birder.explain.rollout import rollout
from birder.layers.attention import Attention
from tests.explain.test_explanation import made, picture

PARALLEL = "vit_parallel_s16_18x2_ls"


def test_behind_a_mean_and_a_linear_layer_grad_cam_is_the_class_activation_map() -> None:
    """Zhou et al. 2016, https://arxiv.org/abs/1512.04150: the weights of the class, times the map."""
    network = made("pvt_v2_b0").double()
    pixels = picture(network).double()[None]
    features = network.forward_features(pixels)[0]  # (D, h, w)
    expected = F.relu(torch.einsum("d,dhw->hw", network.classifier.weight[2], features)) / features[0].numel()
    torch.testing.assert_close(grad_cam(network, pixels, 2).double(), expected.detach(), rtol=1e-5, atol=1e-7)


def test_grad_cam_of_an_early_stage() -> None:
    network = made("regnet_y_200m").double()
    pixels = picture(network).double()[None]
    first = network.body[0](network.stem(pixels)).detach().requires_grad_()
    rest = network.body[1:](first)
    network.classify(network.pool(rest))[0, 1].backward()
    weights = first.grad.mean(dim=(0, 2, 3))
    expected = F.relu((weights[:, None, None] * first[0]).sum(dim=0)).detach()
    torch.testing.assert_close(grad_cam(network, pixels, 1, "stage1").double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["vit_reg4_b16", "vit_s16_ls", "vit_b16_qkn_ls", "vit_b16_nf_swiglu", PARALLEL])
def test_rollout_is_the_row_of_the_class_token_in_the_papers_matrix(name: str, monkeypatch: Any) -> None:
    network = made(name, num_layers=3).double()
    for parameter in network.parameters():  # no learned factor of 1e-5
        nn.init.normal_(parameter, std=0.3)
    pixels = picture(network).double()[None]
    found = rollout(network, pixels.clone(), 3)

    weights: list[Tensor] = []

    def forward(self: Attention, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        weights.append(F.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1]), dim=-1))
        weights[-1].retain_grad()
        return self.proj(self.norm((weights[-1] @ v).transpose(1, 2).flatten(2)))

    monkeypatch.setattr(Attention, "forward", forward)
    network(pixels)[0, 3].backward()
    relevance = torch.eye(weights[0].shape[-1], dtype=torch.float64)
    given = [(weight.grad * weight)[0].clamp(min=0).mean(dim=0) for weight in weights]
    together = 2 if name == PARALLEL else 1  # they read the same tokens, and what they give is added up
    for start in range(0, len(given), together):  # equations 5 and 6
        relevance = relevance + torch.stack(given[start : start + together]).sum(dim=0) @ relevance
    special = network.num_special_tokens
    expected = relevance[special - 1, special:].detach().unflatten(0, found.shape)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)


def test_each_place_has_its_value_and_between_them_it_changes_evenly() -> None:
    values = torch.rand(3, 5, dtype=torch.float64)
    grid = Grid(first=7.0, stride=16)
    pixels = enlarged(values, grid, (48, 80))
    torch.testing.assert_close(pixels[7::16, 7::16], values)
    torch.testing.assert_close(pixels[:8, :8], values[0, 0].expand(8, 8))
    torch.testing.assert_close(pixels[15, 7], values[:2, 0].mean())
    assert values.min() <= pixels.min() and pixels.max() <= values.max()
    torch.testing.assert_close(enlarged(torch.ones(3, 5), grid, (50, 61)), torch.ones(50, 61))


@pytest.mark.parametrize("name", ["convnext_v2_atto", "regnet_y_200m", "pvt_v2_b0"])
@pytest.mark.parametrize("stage", ["stage3", "stage4"])
def test_places_lie_where_their_pixels_are(name: str, stage: str) -> None:
    """The pixels that a place depends on are all around it, as measured; half a place away would be noticed."""
    network = made(name, patches=9).double()
    pixels = torch.randn(1, 3, *network.size, dtype=torch.float64).requires_grad_()
    place = (4, 5) if stage == "stage4" else (9, 10)
    features = network.detection_features(pixels)[stage][0, :, place[0], place[1]]
    (gradient,) = torch.autograd.grad((features * torch.randn_like(features)).sum(), pixels)
    weight = gradient[0].square().sum(dim=0)
    grid = grid_of(network, stage)
    for axis in (0, 1):
        line = weight.sum(dim=1 - axis)
        middle = (line * torch.arange(len(line))).sum() / line.sum()
        assert float(middle) == pytest.approx(grid.first + grid.stride * place[axis], abs=grid.stride / 5)
