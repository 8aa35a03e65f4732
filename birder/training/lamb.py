"""LAMB: Adam whose moves are as long as each layer's weights, for large batches.

Paper: You et al. 2019, https://arxiv.org/abs/1904.00962, algorithm 2
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from birder.training.layerwise import LayerwiseOptimizer, lengths, scale_by_lengths


class LAMB(LayerwiseOptimizer):
    """Layer-wise adaptive moments; the paper's function of the weights' length is the length itself."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        weight_decay: float = 0.0,
        eps: float = 1e-6,
        adapt: bool = True,
    ) -> None:
        """Take parameters or groups of them.

        Args:
            params: Parameters, or groups with options of their own.
            lr: Learning rate.
            betas: How slowly the means of the gradients, and of their squares, follow.
            weight_decay: Added to the move, times the weights.
            eps: Added to the divisor.
            adapt: Whether the lengths count at all; without, this is AdamW.
        """
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, options | {"eps": eps, "adapt": adapt})

    def move(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """One step of the weights of a group, in place."""
        beta1, beta2 = group["betas"]
        states = [self._state(weight) for weight in weights]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_add_([state["step"] for state in states], 1.0)
        steps = [float(state["step"]) for state in states]

        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        divisors = torch._foreach_div(squares, [1.0 - beta2**step for step in steps])
        torch._foreach_sqrt_(divisors)
        torch._foreach_add_(divisors, group["eps"])
        moves = list(torch._foreach_div(means, [1.0 - beta1**step for step in steps]))
        torch._foreach_div_(moves, divisors)
        torch._foreach_add_(moves, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            scale_by_lengths(moves, lengths(weights), lengths(moves))
        torch._foreach_add_(weights, moves, alpha=-group["lr"])

    def _state(self, weight: Tensor) -> dict[str, Any]:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, where it is read
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        return state
