"""Activation checkpointing of single modules, in place."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        if torch.compiler.is_compiling():  # which takes no contexts, and needs none
            return checkpoint(forward, *args, use_reentrant=False, **options)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=self._contexts, **options)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(self)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name to be found by; the plain one has, and is wrapped again on the other side.
        plain = type(self).__bases__[1]
        return _restore, (plain, self.__dict__.copy())


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norms see a batch a second time without counting it again."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:  # the second pass ends in an exception as soon as it has what is needed
        for buffer, values in before:
            buffer.copy_(values)


def _restore(plain: type[nn.Module], state: dict[str, Any]) -> nn.Module:
    module = plain.__new__(plain)
    module.__setstate__(state)
    checkpointed(module)
    return module


@cache
def _checkpointed_class(plain: type[nn.Module]) -> type[nn.Module]:
    return type(plain.__name__, (_Checkpointed, plain), {"__doc__": plain.__doc__})
