"""Attention against the formula of its paper, head by head."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from birder.layers.attention import Attention


def by_hand(attention: Attention, x: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v of each head, written out."""
    width = x.shape[-1]
    size = width // attention.num_heads
    q, k, v = (
        x @ part.mT + bias for part, bias in zip(attention.qkv.weight.split(width), biases(attention), strict=True)
    )
    heads = []
    for start in range(0, width, size):
        mine = slice(start, start + size)
        queries, keys = attention.q_norm(q[..., mine]), attention.k_norm(k[..., mine])
        weights = torch.exp(queries @ keys.mT / size**0.5)
        heads.append(weights / weights.sum(dim=-1, keepdim=True) @ v[..., mine])
    return attention.proj(attention.norm(torch.cat(heads, dim=-1)))


def biases(attention: Attention) -> list[Tensor]:
    width = attention.proj.in_features
    bias = attention.qkv.bias
    return list((torch.zeros(3 * width).double() if bias is None else bias).split(width))


@pytest.mark.parametrize("norms", [{}, {"qk_norm": partial(nn.LayerNorm, eps=1e-6)}, {"norm": nn.RMSNorm}])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_it_is_that_of_the_paper(norms: dict[str, partial[nn.Module]], qkv_bias: bool) -> None:
    attention = Attention(12, 3, qkv_bias=qkv_bias, **norms).double()
    for weight in attention.parameters():
        nn.init.normal_(weight, std=0.5)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(attention(x), by_hand(attention, x), rtol=1e-12, atol=1e-12)


def test_dropout_is_of_the_training_alone() -> None:
    x = torch.randn(2, 5, 12)
    for option in ("attention_dropout", "projection_dropout"):
        attention = Attention(12, 3, **{option: 0.5})
        assert not torch.equal(attention(x), attention(x)), option
        attention.eval()
        assert torch.equal(attention(x), attention(x)), option


def test_dropped_attention_keeps_the_mean() -> None:
    attention = Attention(4, 1, attention_dropout=0.4)
    x = torch.randn(1, 3, 4).expand(4000, -1, -1)
    mean = attention(x).mean(dim=0)
    torch.testing.assert_close(mean, attention.eval()(x[:1])[0], rtol=0, atol=0.05)
