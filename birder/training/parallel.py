"""Objectives on several processes: every process with all weights (DDP), or with a part of each (FSDP2).

Names of weights stay as they are, so that a checkpoint of any number of processes is one of any other.

Papers: DDP, Li et al. 2020, https://arxiv.org/abs/2006.15704; FSDP, Zhao et al. 2023, https://arxiv.org/abs/2304.11277
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from birder.distributed import world_size
from birder.networks import Network, networks
from birder.objectives.base import Objective
from birder.training.recipe import Run


def prepared(objective: Objective, run: Run) -> nn.Module:
    """What to call in place of the objective, which is itself changed in place where ``run`` asks for it."""
    networks_in = [module for module in objective.modules() if isinstance(module, Network)]
    if run.channels_last:
        for network in networks_in:
            network.to(memory_format=torch.channels_last)
    if run.gradient_checkpointing:
        objective.network.set_gradient_checkpointing()
    if world_size() > 1 and run.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    if run.compile:
        objective.compile()
    if world_size() == 1:
        return objective
    if run.parallel == "fsdp":
        for block in (block for network in networks_in for block in network.blocks()):
            fully_shard(block)
        fully_shard(objective)
        return objective
    device = next(objective.parameters()).device
    return DistributedDataParallel(
        objective,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=not objective.reaches_all,
    )


@contextmanager
def without_exchange(call: nn.Module) -> Iterator[None]:
    """Gradients of the body are kept by each process; the next pass outside sends them with its own."""
    if isinstance(call, DistributedDataParallel):
        with call.no_sync():
            yield
    elif isinstance(call, FSDPModule):
        call.set_requires_gradient_sync(False)
        yield
        call.set_requires_gradient_sync(True)
    else:
        yield


def whole(state: Any) -> Any:
    """A nested state with the parts of all processes put together; all of them must ask for it."""
    return _mapped(state, lambda tensor: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def whole_network(network: Network) -> Network:
    """The network itself, or, where its weights are in parts, a copy that has them whole; all must ask for it."""
    if not any(isinstance(weight, DTensor) for weight in network.parameters()):
        return network
    cls, _ = networks[network.name]
    copy = cls(
        network.config,
        num_classes=network.num_classes,
        input_channels=network.input_channels,
        size=network.size,
    )
    copy.name = network.name
    copy.load_state_dict(whole(network.state_dict()))
    return copy.to(next(network.parameters()).device).train(network.training)


def load_whole(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a module, whose weights may be in parts, those of a whole state."""
    own = module.state_dict()
    module.load_state_dict({name: part_like(tensor, own[name]) for name, tensor in state.items()})


def load_whole_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser, whose weights may be in parts, the whole state of another."""
    kinds = ("fused", "foreach")
    own: list[dict[str, Any]] = [{name: group.get(name) for name in kinds} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, ways in zip(optimizer.param_groups, own, strict=True):
        # How it is computed is this machine's affair.
        group |= {name: way for name, way in ways.items() if name in group}
        for weight in group["params"]:
            moments = optimizer.state.get(weight, {})
            for name, moment in moments.items():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    part = part_like(moment, weight)
                    # Fused optimisers go through memory in order: the moments must lie there as the weight does.
                    moments[name] = torch.empty_like(weight, dtype=part.dtype).copy_(part)


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor, cut as another is."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {name: _mapped(value, change) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_mapped(value, change) for value in state)
    return state
