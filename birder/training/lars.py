"""LARS: SGD whose moves are proportional to the length of each layer's weights, for large batches.

Paper: You et al. 2017, https://arxiv.org/abs/1708.03888, algorithm 1
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from birder.training.layerwise import LayerwiseOptimizer, lengths, scale_by_lengths


class LARS(LayerwiseOptimizer):
    """Layer-wise adaptive rate scaling.

    Differs: the learning rate multiplies the momentum, as in torch's SGD, where the paper's momentum remembers old
    learning rates; while the rate is constant, both are the same.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        momentum: float = 0.9,
        *,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-8,
        adapt: bool = True,
    ) -> None:
        """Take parameters or groups of them.

        Args:
            params: Parameters, or groups with options of their own.
            lr: Learning rate.
            momentum: How much of the last move is kept.
            weight_decay: Added to the gradient, times the weights.
            trust: Length of a move at learning rate 1, as a share of the length of the weights.
            eps: Added to the divisor.
            adapt: Whether the lengths count at all.
        """
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, options | {"trust": trust, "eps": eps, "adapt": adapt})

    def move(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """One step of the weights of a group, in place."""
        decay = group["weight_decay"]
        moves = list(torch._foreach_add(gradients, weights, alpha=decay))
        if group["adapt"]:
            length, gradient = lengths(weights), lengths(gradients)
            divisor = torch.where(gradient > 0.0, gradient + decay * length + group["eps"], 0.0)
            scale_by_lengths(moves, group["trust"] * length, divisor)
        momenta = [self._momentum(weight) for weight in weights]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, moves)
        torch._foreach_add_(weights, momenta, alpha=-group["lr"])

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]
