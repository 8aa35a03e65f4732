"""Pooling by attention against the formulas of the papers."""

import torch
import torch.nn.functional as F
from torch import nn

from birder.layers.pool import AttentionPool, EfficientProbing


def test_attention_pool_is_that_of_the_paper() -> None:
    """Cross-attention of one query, then z + MLP(LayerNorm(z)); checked against torch's own attention."""
    pool = AttentionPool(12, 3, 20, norm_eps=1e-3).double()
    for weight in pool.parameters():
        nn.init.normal_(weight, std=0.5)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": torch.cat([pool.q.weight, pool.kv.weight]),
            "in_proj_bias": torch.cat([pool.q.bias, pool.kv.bias]),
            "out_proj.weight": pool.proj.weight,
            "out_proj.bias": pool.proj.bias,
        }
    )
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    z = attention(pool.latent.expand(2, -1, -1), x, x, need_weights=False)[0][:, 0]
    normed = F.layer_norm(z, (12,), pool.norm.weight, pool.norm.bias, eps=1e-3)
    expected = z + pool.mlp[3](F.gelu(pool.mlp[0](normed)))
    torch.testing.assert_close(pool(x), expected, rtol=1e-10, atol=1e-10)


def test_efficient_probing_is_that_of_the_paper() -> None:
    """Section 3: query j weighs all tokens by softmax(q_j x' / sqrt(D)), and gathers the j-th part of the values."""
    pool = EfficientProbing(12, num_queries=4).double()
    for weight in pool.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = torch.zeros(2, 12, dtype=torch.float64)
    for image in range(2):
        values = x[image] @ pool.v.weight.mT + pool.v.bias
        for query in range(4):
            scores = torch.stack([pool.latent[0, query] @ token / 12**0.5 for token in x[image]])
            weights = scores.exp() / scores.exp().sum()
            part = slice(3 * query, 3 * query + 3)
            expected[image, part] = sum(weight * value[part] for weight, value in zip(weights, values, strict=True))
    torch.testing.assert_close(pool(x), expected, rtol=1e-12, atol=1e-12)
