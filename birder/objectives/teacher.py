"""Teachers: networks that are learned from and do not learn by gradients."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from birder.networks.base import Network
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


def frozen_copy(module: M) -> M:
    """A copy in evaluation mode whose parameters get no gradients."""
    return deepcopy(module).eval().requires_grad_(False)


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
