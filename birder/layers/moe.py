"""Mixtures of experts in place of one MLP. Shapes: B images, N tokens, D width, E experts, S slots of each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SoftMoE(nn.Module):
    """Every expert works on a few mixtures of the tokens, and every token gets a mixture of what they say.

    Paper: Puigcerver et al. 2023, https://arxiv.org/abs/2308.00951, section 2 and algorithm 1

    Differs: tokens and slots are compared after RMS norms with a gain per channel, where the paper (section 2.3) makes
    unit vectors of them and learns one factor. The weights of the published layout have these gains.
    """

    def __init__(self, width: int, num_experts: int, num_slots: int, expert: Callable[[], nn.Module]) -> None:
        """Build E experts.

        Args:
            width: D.
            num_experts: E.
            num_slots: S, mixtures of tokens that each expert works on.
            expert: Makes an expert, (B, S, D) -> (B, S, D).
        """
        super().__init__()
        self.slot_embeds = nn.Parameter(torch.empty(num_experts, num_slots, width))
        self.experts = nn.ModuleList(expert() for _ in range(num_experts))
        self.token_norm = nn.RMSNorm(width, eps=1e-6)
        self.slot_norm = nn.RMSNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.slot_embeds)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        slots = self.slot_norm(self.slot_embeds).flatten(0, 1)  # (E * S, D)
        logits = self.token_norm(x) @ slots.mT  # (B, N, E * S)
        dispatch = logits.softmax(dim=1)  # of each slot, over the tokens
        combine = logits.softmax(dim=2)  # of each token, over the slots
        inputs = dispatch.mT @ x  # (B, E * S, D)
        chunks = inputs.chunk(len(self.experts), dim=1)
        outputs = torch.cat([expert(chunk) for expert, chunk in zip(self.experts, chunks, strict=True)], dim=1)
        return combine @ outputs
