"""Teachers: networks that are learned from and do not learn by gradients."""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from birder.networks.base import Network
from birder.objectives.base import Objective
from birder.signature import RGBStats

logger = logging.getLogger("birder")

M = TypeVar("M", bound=nn.Module)

MOST_LEFT = 0.05
"""Share of random weights that a teacher may keep without a warning."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network, and what its file says."""

    network: Network
    """The network, with its weights; its ``size`` is that of the pictures it is shown."""
    class_to_idx: Mapping[str, int]
    """Label of each class name; empty for a network without classifier."""
    rgb_stats: RGBStats
    """Colour statistics that it wants pictures normalised with."""


class Averaging(Objective):
    """An objective with a teacher that is a moving average of the network.

    Attributes:
        teacher_network: The moving average; it starts as a copy.
    """

    teacher_network: Network

    def momentum_at(self, progress: float) -> float:
        """How slowly the teacher follows, 0 to 1, at a share of the run in [0, 1]."""
        raise NotImplementedError


class SelfTaught(Averaging):
    """An objective whose teacher is what is left in the end.

    The teacher stays in evaluation mode, so that it drops no paths.
    """

    def __init__(self, network: Network) -> None:
        """Train ``network``; the teacher starts as its copy."""
        super().__init__()
        self.network = network
        self.teacher_network = frozen_copy(network)

    @property
    def result(self) -> Network:
        """The teacher."""
        return self.teacher_network

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of a picture."""
        height, width = self.network.size
        return (height // self.network.max_stride, width // self.network.max_stride)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode of all but the teacher."""
        super().train(mode)
        self.teacher_network.eval()
        return self

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        follow(self.teacher_network, self.network, self.momentum_at(progress))


def frozen_copy(module: M) -> M:
    """A copy in evaluation mode whose parameters get no gradients."""
    return deepcopy(module).eval().requires_grad_(False)


def share_of_start(objective: Averaging, steps: int) -> float:
    """Share of its first weights that is left in a teacher after a run of so many steps: the product of its momenta.

    A million of them takes half a second.
    """
    return math.prod(objective.momentum_at(step / steps) for step in range(steps))


def warn_of_start(objective: Objective, steps: int) -> None:
    """Log a warning if the teacher is what is left in the end, and will be made of its first weights too much.

    Args:
        objective: What is trained; one without such a teacher is right in any case.
        steps: Of the whole run.
    """
    if not isinstance(objective, Averaging) or objective.result is objective.network:
        return
    share = share_of_start(objective, steps)
    if share <= MOST_LEFT:
        return
    # On a line or half a cosine, the sum of what is missing to 1 is at least steps / 2 times that of the first.
    digits = max(math.ceil(math.log10(steps)), 1) + 1
    first = max(math.floor((1.0 + 2.0 * math.log(MOST_LEFT) / steps) * 10**digits) / 10**digits, 0.0)
    logger.warning(
        "objective.momentum: the teacher, which is the network that is saved, follows so slowly that after the %d "
        "steps of this run %.0f %% of it will be what it began with: random weights, unless the run started from a "
        "trained network. With a momentum from %g to %g, or with more steps, less than %.0f %% will be",
        steps,
        100 * share,
        first,
        objective.momentum_at(1.0),
        100 * MOST_LEFT,
    )


def tell_of_layers(network: Network, top_layers: int) -> None:
    """Log it if a teacher has fewer blocks than the objective wants to learn from: then it learns from all of them."""
    if (count := len(network.blocks())) < top_layers:
        logger.info(
            "objective.top_layers: %s has %d blocks, fewer than %d; all are taken", network.name, count, top_layers
        )


def linear_between(first: float, last: float, progress: float) -> float:
    """From ``first`` at progress 0 to ``last`` at progress 1, on a line.

    Args:
        first: Value at the beginning, such as a momentum.
        last: Value at the end.
        progress: Share of the run that is over, in [0, 1].
    """
    return first + (last - first) * progress


def cosine_between(first: float, last: float, progress: float) -> float:
    """From ``first`` at progress 0 to ``last`` at progress 1, on half a cosine: slow at both ends.

    Paper: Grill et al. 2020, https://arxiv.org/abs/2006.07733 (BYOL, section 3.2)

    Args:
        first: Value at the beginning, such as a momentum.
        last: Value at the end.
        progress: Share of the run that is over, in [0, 1].
    """
    return linear_between(first, last, (1.0 - math.cos(math.pi * progress)) / 2.0)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float, *, buffers: bool = False) -> None:
    """Move the teacher to ``momentum * teacher + (1 - momentum) * student``: a moving average of the student.

    Args:
        teacher: What is moved, in place.
        student: A module with the same parameters and buffers.
        momentum: How slowly, 0 to 1.
        buffers: Whether buffers follow, too; those that are not floating numbers, such as counters, are copied.
    """
    own: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    if buffers:
        for old, value in zip(teacher.buffers(), student.buffers(), strict=True):
            if old.is_floating_point():
                own.append(old)
                new.append(value)
            else:
                old.copy_(value)
    assert len(own) == len(new), "a teacher has the same parameters as its student"
    torch._foreach_lerp_(own, new, 1.0 - momentum)
