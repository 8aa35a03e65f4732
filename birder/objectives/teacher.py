"""Teachers: networks that are learned from and do not learn by gradients."""

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

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network, and what its file says."""

    network: Network
    """The network, with its weights; its ``size`` is that of the pictures it is shown."""
    class_to_idx: Mapping[str, int]
    """Label of each class name; empty for a network without classifier."""
    rgb_stats: RGBStats
    """Colour statistics that it wants pictures normalised with."""


class SelfTaught(Objective):
    """An objective whose teacher is a moving average of the network, and is left in the end.

    A subclass moves it in ``after_step``. The teacher stays in evaluation mode, so that it drops no paths.

    Attributes:
        teacher_network: The moving average.
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


def frozen_copy(module: M) -> M:
    """A copy in evaluation mode whose parameters get no gradients."""
    return deepcopy(module).eval().requires_grad_(False)


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
