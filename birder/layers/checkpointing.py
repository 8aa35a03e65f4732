"""Activation checkpointing of single modules, in place."""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module) -> None:
    """Let a module forget what it computes inside while it learns, and compute it again when gradients are asked for.

    Only its class changes, for a subclass of the same name: its weights, their names and its children stay.
    """
    if not isinstance(module, _Checkpointed):
        module.__class__ = _checkpointed_class(type(module))  # type: ignore[arg-type]


def unchecked(module: nn.Module) -> None:
    """Undo ``checkpointed``."""
    if isinstance(module, _Checkpointed):
        module.__class__ = type(module).__bases__[1]


class _Checkpointed:
    """Stands in front of the class of a module."""

    def forward(self, *args: Any, **options: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        return checkpoint(forward, *args, use_reentrant=False, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name to be found by; the plain one has, and is wrapped again on the other side.
        plain = type(self).__bases__[1]
        return _restore, (plain, self.__dict__.copy())


def _restore(plain: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    module = plain.__new__(plain)
    module.__setstate__(state)
    checkpointed(module)
    return module


@cache
def _checkpointed_class(plain: type[nn.Module]) -> type[nn.Module]:
    return type(plain.__name__, (_Checkpointed, plain), {"__doc__": plain.__doc__})
