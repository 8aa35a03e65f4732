"""The only loop: it moves an objective's weights, one batch at a time."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from birder.errors import NotFinite
from birder.objectives.base import Batch, Objective
from birder.training.optim import make_optimizers
from birder.training.recipe import Optim
from birder.training.schedule import warmup_cosine


class Engine:
    """An objective, its optimisers, and how far they have come.

    Attributes:
        objective: What is trained.
        step: Number of the next step.
        steps: Number of steps in the whole run.
    """

    def __init__(
        self, objective: Objective, options: Optim, *, steps: int, warmup: int, final_lr: float, dtype: torch.dtype
    ) -> None:
        """Begin a run.

        Args:
            objective: What is trained, on its device.
            options: How the weights move.
            steps: Number of steps in the whole run.
            warmup: Steps over which the learning rate rises.
            final_lr: Where the learning rate ends, as a share of the highest.
            dtype: Type of the matrix products.
        """
        self.objective = objective
        self.options = options
        self.optimizers = make_optimizers(objective, objective.network, options)
        self.step = 0
        self.steps = steps
        self.warmup = warmup
        self.final_lr = final_lr
        self.dtype = dtype

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.options.lr * warmup_cosine(self.step, self.steps, warmup=self.warmup, final=self.final_lr)

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One move of the weights; returns the losses, on the device.

        Raises:
            NotFinite: The loss or its gradient is no number; the weights were not moved.
        """
        progress = self.step / self.steps
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr

        with torch.autocast(batch.images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.objective(batch, progress)
        self.objective.zero_grad()
        losses["loss"].backward()
        norm = clip_grad_norm_(self.objective.parameters(), self.options.clip or math.inf)
        if not torch.isfinite(losses["loss"] + norm):  # before the weights move, or all is lost
            raise NotFinite(
                f"the loss is {losses['loss'].item()} and its gradient {norm.item()} at step {self.step} of "
                f"{self.steps}: try a lower optim.lr, a longer schedule.warmup_epochs, or run.dtype float32"
            )
        losses["gradient_norm"] = norm
        for optimizer in self.optimizers:
            optimizer.step()
        self.objective.after_step(progress)
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: weights, optimiser, step, random numbers."""
        return {
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.objective.load_state_dict(state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        set_random_state(state["random"])


def random_state() -> dict[str, Tensor]:
    """Torch's generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Put torch's generators back to a state that ``random_state`` gave."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
