"""Random numbers of the objectives, such as those of masks."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch
from torch import Generator

P = ParamSpec("P")
R = TypeVar("R")


def draws(training: bool) -> Generator | None:
    """Where random numbers come from: torch's default generator in training, which the engine sets anew in each step.

    In evaluation it is a new one on the CPU with a fixed seed, so that a loss is the same each time it is measured.
    """
    return None if training else Generator().manual_seed(0)


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function, or a method, that is left out where its caller is compiled: it decides by what it draws."""
    return cast(Callable[P, R], torch.compiler.disable(function))
