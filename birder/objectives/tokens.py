"""Sequences of tokens. Shapes: B images, N tokens, K some of them, D width of a token."""

from torch import Tensor


def tokens_at(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens at some places, in the order of these: (B, N, D) and (B, K) -> (B, K, D)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
