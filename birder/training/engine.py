"""The only loop: it moves an objective's weights, one step at a time."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from birder.distributed import rank, world_size
from birder.errors import NotFinite
from birder.objectives.base import Batch, Objective
from birder.training.average import WeightAverage
from birder.training.optim import make_optimizers, scaled_lr
from birder.training.parallel import load_whole, load_whole_optimizer, part_like, whole, without_exchange
from birder.training.recipe import Recipe
from birder.training.schedule import learning_rate_share


class Engine:
    """An objective, its optimisers, and how far they have come.

    Attributes:
        objective: What is trained.
        step: Number of the next step.
        steps: Number of steps in the whole run.
        average: The average of the network's weights; None without.
    """

    def __init__(
        self, objective: Objective, recipe: Recipe, *, steps_per_epoch: int, call: nn.Module | None = None
    ) -> None:
        """Begin a run.

        Args:
            objective: What is trained, on its device.
            recipe: Every choice of the run, resolved.
            steps_per_epoch: Steps in one pass over the pictures.
            call: What is called in the objective's place, such as one that joins several processes; None is itself.
        """
        self.objective = objective
        self.call = call or objective
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.step = 0
        self.steps = steps_per_epoch * recipe.epochs
        self.optimizers = make_optimizers(objective, objective.network, recipe.optim)
        average = recipe.average
        self.average = WeightAverage(objective.network, average, steps_per_epoch) if average.decay else None
        self.dtype: torch.dtype = getattr(torch, recipe.run.dtype)
        self.device = next(objective.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self._highest_lr = scaled_lr(recipe.optim, recipe.batch_size)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.lr_at(self.step)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        share = learning_rate_share(step, self.recipe.schedule, steps=self.steps, steps_per_epoch=self.steps_per_epoch)
        return self._highest_lr * share

    def train_step(self, parts: Sequence[Batch], pictures: int | None = None) -> dict[str, Tensor]:
        """One move of the weights; returns the losses of this process's pictures, on the device.

        Args:
            parts: The pictures of this process, in as many parts as memory asks for. The gradient is that of the mean
                over all pictures of the step.
            pictures: How many these are in all processes; None counts those of one process.

        Raises:
            NotFinite: The loss or its gradient is no number; the weights were not moved.
        """
        progress, lr = self.step / self.steps, self.lr
        for group in self._groups():
            group["lr"] = lr * group["scale"]
        # The random numbers of a step are a function of its number, so that a run that goes on needs no memory of them.
        torch.manual_seed(_mixed(self.recipe.run.seed, self.step, rank()))
        own = sum(batch.count for batch in parts)
        pictures = pictures or own

        self.objective.zero_grad()
        losses: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, start=1):
            with without_exchange(self.call) if number < len(parts) else nullcontext():
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    part = self.call(batch, progress)
                count = batch.count
                # Processes exchange the mean of their gradients, not the sum. A loss that compares pictures is that
                # of all of them in every process.
                share = 1.0 if self.objective.compares else world_size() * count / pictures
                self.scaler.scale(part["loss"] * share).backward()
            for name, value in part.items():
                losses[name] = losses.get(name, torch.zeros_like(value)) + value.detach() * (count / max(own, 1))
        norm = self._move(losses["loss"])
        if torch.isfinite(norm):
            losses["gradient_norm"] = norm
        self.objective.after_step(progress)
        if self.average is not None:
            self.average.update(self.objective.network, self.step)
        self.step += 1
        return losses

    def skip_step(self) -> None:
        """Leave out a step for which there are no pictures."""
        self.step += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has its average weights while the body runs, if there is an average."""
        with self.average.swapped(self.objective.network) if self.average else nullcontext():
            yield

    def _move(self, loss: Tensor) -> Tensor:
        """Let the optimisers move the weights, unless the gradient is no number; returns its length."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        weights = [weight for weight in self.objective.parameters() if weight.grad is not None]
        norm = whole(clip_grad_norm_(weights, self.recipe.optim.clip or math.inf))
        # With float16, a gradient that is too large only means a step that is left out, and a smaller scale.
        if not torch.isfinite(loss + (0.0 if self.scaler.is_enabled() else norm)):
            raise NotFinite(
                f"the loss is {loss.item()} and its gradient {norm.item()} at step {self.step} of {self.steps}: "
                "try a lower optim.lr, a longer schedule.warmup_epochs, or run.dtype float32"
            )
        if torch.isfinite(norm):  # one optimiser does not see what overflowed in another
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: weights, optimisers, average, scale of the loss, number of the step.

        With several processes all of them must ask for it, and all get the whole.
        """
        return whole(
            {
                "objective": self.objective.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "average": self.average.state_dict() if self.average else None,
                "scaler": self.scaler.state_dict(),
                "step": self.step,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, on any number of processes."""
        load_whole(self.objective, state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_whole_optimizer(optimizer, saved)
        if self.average is not None:
            own = self.average.state_dict()
            self.average.load_state_dict(
                {
                    name: part_like(value, own[name]) if isinstance(value, Tensor) else value
                    for name, value in state["average"].items()
                }
            )
        if state["scaler"]:  # it is empty where the run was in another type before
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]


def _mixed(*numbers: int) -> int:
    """A seed for every combination of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
