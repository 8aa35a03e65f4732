"""Soft mixture of experts against the equations of its paper, entry by entry."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from birder.layers.mlp import MLP
from birder.layers.moe import SoftMoE

TOKENS, WIDTH, EXPERTS, SLOTS = 6, 4, 3, 2


@pytest.fixture
def mixture() -> SoftMoE:
    mixture = SoftMoE(WIDTH, EXPERTS, SLOTS, partial(MLP, WIDTH, 5)).double()
    for weight in mixture.parameters():
        nn.init.normal_(weight, std=0.5)
    return mixture


def unit(x: Tensor) -> Tensor:
    return x / ((x * x).mean() + 1e-6) ** 0.5


def by_hand(mixture: SoftMoE, x: Tensor) -> Tensor:
    """Equations 1 to 3, for one image (N, D)."""
    columns = [(expert, slot) for expert in range(EXPERTS) for slot in range(SLOTS)]
    token_gain, slot_gain = mixture.token_norm.weight, mixture.slot_norm.weight
    logits = torch.zeros(TOKENS, len(columns), dtype=torch.float64)
    for i in range(TOKENS):
        for j, (expert, slot) in enumerate(columns):
            logits[i, j] = (unit(x[i]) * token_gain) @ (unit(mixture.slot_embeds[expert, slot]) * slot_gain)
    exponents = logits.exp()
    outputs = []
    for j, (expert, _) in enumerate(columns):
        dispatch = exponents[:, j] / exponents[:, j].sum()
        outputs.append(mixture.experts[expert](sum(dispatch[i] * x[i] for i in range(TOKENS))))
    combine = exponents / exponents.sum(dim=1, keepdim=True)
    return torch.stack([sum(combine[i, j] * outputs[j] for j in range(len(columns))) for i in range(TOKENS)])


def test_it_is_that_of_the_paper(mixture: SoftMoE) -> None:
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    expected = torch.stack([by_hand(mixture, image) for image in x])
    torch.testing.assert_close(mixture(x), expected, rtol=1e-12, atol=1e-12)


def test_the_order_of_tokens_does_not_matter(mixture: SoftMoE) -> None:
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    order = torch.randperm(TOKENS)
    torch.testing.assert_close(mixture(x[:, order]), mixture(x)[:, order])
