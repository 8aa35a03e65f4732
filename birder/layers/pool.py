"""From tokens to one embedding, by attention. Shapes: B images, N tokens, D width, h heads, Q queries."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.layers.mlp import MLP


class AttentionPool(nn.Module):
    """One learned query looks at all tokens, and an MLP works on the answer, (B, N, D) -> (B, D).

    Paper: Zhai et al. 2022, https://arxiv.org/abs/2106.04560, section 3.2 ("MAP head", after Lee et al. 2019,
    https://arxiv.org/abs/1810.00825)
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        norm_eps: float = 1e-5,
        activation: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        """Build the layers.

        Args:
            width: D, a multiple of ``num_heads``.
            num_heads: h.
            hidden: Width of the hidden layer of the MLP.
            norm_eps: Of the layer norm before the MLP.
            activation: Makes the activation of the MLP.
        """
        super().__init__()
        self.num_heads = num_heads
        self.latent = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, hidden, activation=activation)
        nn.init.trunc_normal_(self.latent, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, D)."""
        q = self.q(self.latent).expand(x.shape[0], -1, -1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, N, D / h)
        x = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))  # (B, D)
        return x + self.mlp(self.norm(x))


class EfficientProbing(nn.Module):
    """Several learned queries look at the tokens as they are, each for its own part of the values, (B, N, D) -> (B, D).

    Paper: Psomas et al. 2025, https://arxiv.org/abs/2506.10178, section 3
    """

    def __init__(self, width: int, num_queries: int = 32) -> None:
        """Build the layers; ``width``, D, is a multiple of ``num_queries``, Q."""
        super().__init__()
        self.num_queries = num_queries
        self.latent = nn.Parameter(torch.empty(1, num_queries, width))
        self.v = nn.Linear(width, width)
        nn.init.trunc_normal_(self.latent, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, D)."""
        weights = (self.latent @ x.mT * x.shape[-1] ** -0.5).softmax(dim=-1)  # (B, Q, N)
        values = self.v(x).unflatten(-1, (self.num_queries, -1)).transpose(1, 2)  # (B, Q, N, D / Q)
        return (weights.unsqueeze(2) @ values).flatten(1)
