"""What LARS and LAMB share: each matrix moves in proportion to its length."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


class LayerwiseOptimizer(Optimizer):
    """An optimiser that moves whole groups of weights at once; a subclass says how in ``move``.

    A group whose ``adapt`` is false is moved at the learning rate as it is. This is for norms, biases and scales: their
    lengths tell nothing of how far they should move.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all weights that have a gradient; returns what ``closure``, called first, gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self.move(weights, [weight.grad for weight in weights], group)
        return loss

    def move(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """One step of the weights of a group, in place; the gradients stay as they are."""
        raise NotImplementedError


def lengths(tensors: list[Tensor]) -> Tensor:
    """The L2 norm of each of N tensors, (N,); of a tensor that is spread over processes, that of the whole."""
    norms = torch.stack(list(torch._foreach_norm(tensors)))
    return norms.full_tensor() if isinstance(norms, DTensor) else norms


def scale_by_lengths(tensors: list[Tensor], above: Tensor, below: Tensor) -> None:
    """Multiply each of N tensors, in place, by ``above / below``, (N,) each.

    Where either is zero the tensor stays as it is, so that weights that start at zero can leave it.
    """
    ratios = torch.where((above > 0.0) & (below > 0.0), above / below, 1.0)
    torch._foreach_mul_(tensors, list(ratios.unbind()))
