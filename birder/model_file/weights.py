"""Weights by name, into a network."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from birder.errors import WeightsMismatch
from birder.networks import Network


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Give a network its weights, all of them, by name; older names of the architecture are translated.

    The numbers are copied into the memory of the network. A network on the meta device has none: it takes the tensors
    themselves, converted or copied only where they are of another type or share their memory.

    Raises:
        WeightsMismatch: Names or shapes differ; the message counts and names them, and nothing was loaded.
    """
    state = _fitting(network, state)
    own = network.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        network.load_state_dict(_independent(state, own), assign=True)
        assert not any(tensor.is_meta for _, tensor in _tensors(network)), f"{network.name} is not all in its state"
    else:
        network.load_state_dict(state)


def translated(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with older names of the architecture's weights in today's; what has no rule keeps its name."""
    return {_renamed(name, network.renamed): tensor for name, tensor in state.items()}


def build_with_weights(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """Build a network that takes tensors for its weights, without drawing random ones first.

    A network that holds more than its state says, such as a buffer that is not saved or one weight under two names, is
    built in memory and copies the tensors.

    Raises:
        WeightsMismatch: See ``load_weights``.
    """
    try:
        with torch.device("meta"), _Undrawn():
            network = build()
    except RuntimeError:  # a layer asks for the value of a number, which has none there
        network = build()
    else:
        _fitting(network, state)  # before memory is spent on what the file may only claim
        if not _is_all_in_its_state(network):
            network = build()
    load_weights(network, state)
    return network


class _Undrawn(TorchFunctionMode):
    """Random numbers are not drawn where there is no memory for them.

    To do so on the meta device changes nothing, but torch imports its compiler first, which takes more than a second.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return [*args, *kwargs.values()][0] if func in _DRAWS else func(*args, **kwargs)


_DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}
"""Their first argument is the tensor, which they return."""


def first_not_finite(network: Network) -> str | None:
    """The name of the first weight with a value that is infinite or no number; None for none."""
    for name, tensor in network.state_dict().items():
        # The sum is quick, and finite only if all values are; but it may overflow, so a closer look decides.
        if tensor.is_floating_point() and not math.isfinite(tensor.sum()) and not tensor.isfinite().all():
            return name
    return None


def _fitting(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under today's names, if these and the shapes are those of the network."""
    fitting = translated(network, state)
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in fitting]
    wrong += [f"{name} is not known to the network" for name in fitting if name not in own]
    wrong += [
        f"{name} is {_described(fitting[name])}, expected {_described(tensor)}"
        for name, tensor in own.items()
        if name in fitting and not _fits(fitting[name], tensor)
    ]
    if len(fitting) < len(state):
        wrong.append("a weight stands there twice, under its older and its present name")
    if wrong:
        shown = "; ".join(wrong[:6]) + ("; …" if len(wrong) > 6 else "")
        raise WeightsMismatch(f"{len(wrong)} of {len(own)} weights do not fit {network.name}: {shown}")
    return fitting


def _fits(tensor: Tensor, like: Tensor) -> bool:
    return tensor.shape == like.shape and tensor.is_floating_point() >= like.is_floating_point()


def _described(tensor: Tensor) -> str:
    return str(tuple(tensor.shape)) + (f" of {tensor.dtype}" * (not tensor.is_floating_point()))


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _independent(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the types of ``own``, each with memory to itself; those that are so already stay as they are."""
    taken: set[int] = set()
    independent = {}
    for name, like in own.items():
        tensor = state[name].detach().to(like.dtype).contiguous()
        memory = tensor.untyped_storage()
        if memory.nbytes() != tensor.nbytes or memory.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(memory.data_ptr())
        independent[name] = tensor
    return independent


def _tensors(network: Network) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers, as often as they have a name, and tensors that are neither."""
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)
    for module in network.modules():
        for name, value in vars(module).items():
            values = value if isinstance(value, list | tuple) else (value,)
            yield from ((name, item) for item in values if isinstance(item, Tensor))


def _is_all_in_its_state(network: Network) -> bool:
    tensors = list(_tensors(network))
    different = len({id(tensor) for _, tensor in tensors}) == len(tensors)
    return different and {name for name, _ in tensors} == network.state_dict().keys()
