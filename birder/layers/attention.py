"""Attention among the tokens of an image. Shapes: B images, N tokens, D width, h heads, d = D / h width of a head."""

import torch.nn.functional as F
from torch import Tensor, nn

from birder.layers.norm import MakeNorm


class Attention(nn.Module):
    """Multi-head self-attention: every token asks all others, (B, N, D) -> (B, N, D).

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: MakeNorm = nn.Identity,
        norm: MakeNorm = nn.Identity,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            width: D, a multiple of ``num_heads``.
            num_heads: h.
            qkv_bias: Whether queries, keys and values have biases.
            qk_norm: Makes the norms of the queries and of the keys of each head (Dehghani et al. 2023,
                https://arxiv.org/abs/2302.05442).
            norm: Makes the norm before the projection (NormFormer: Shleifer et al. 2021,
                https://arxiv.org/abs/2110.09456).
            attention_dropout: Probability that a token does not see another, in training.
            projection_dropout: Of the result, in training.
        """
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm = qk_norm(width // num_heads)
        self.k_norm = qk_norm(width // num_heads)
        self.norm = norm(width)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(projection_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = self.heads(x)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attention_dropout if self.training else 0.0)
        x = x.transpose(1, 2).flatten(2)  # (B, N, D)
        return self.dropout(self.proj(self.norm(x)))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens (B, N, D), each (B, h, N, d)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, h, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.q_norm(q), self.k_norm(k), v
