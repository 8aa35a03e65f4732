"""Optimisers by name, and their learning rate."""

import math
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adam, AdamW, Muon, NAdam, Optimizer, RMSprop

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.training.groups import parameter_groups
from birder.training.lamb import LAMB
from birder.training.lars import LARS
from birder.training.recipe import Optim


def make_optimizers(module: nn.Module, network: Network, options: Optim) -> list[Optimizer]:
    """The optimisers that together move all trained parameters of a module, at the highest learning rate.

    The learning rate of a group is the run's times the group's ``scale``. ``adam``, ``rmsprop``, ``sgd`` and ``lars``
    add the decay to the gradient; the others pull at the weights themselves. ``muon`` moves the matrices of the
    network's blocks, and AdamW the rest; the learning rate and the decay mean the same for both, as Muon's moves are
    scaled to the length of AdamW's.

    Papers: AdamW, Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101; Adam, Kingma and Ba 2014,
    https://arxiv.org/abs/1412.6980; NAdam, Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ; Muon at
    AdamW's scale, Liu et al. 2025, https://arxiv.org/abs/2502.16982, section 2.2

    Args:
        module: What is trained, the network in it.
        network: The network, whose ``blocks()`` hold the matrices for Muon.
        options: Name, learning rate, decay and momentum.

    Raises:
        ConfigError: Nothing to train; or Muon, and a network whose blocks have no matrices to train.
    """
    groups = parameter_groups(module, network, options)
    if not groups:
        raise ConfigError(f"freeze: no weight of {network.name} is left to train")
    for group in groups:
        group["lr"] = options.lr * group["scale"]
    if options.name != "muon":
        return [_make(options, groups)]
    matrices, rest = _split(groups, network)
    if not matrices:
        raise ConfigError(f"optim.name: muon moves matrices, and the blocks of {network.name} train none; take adamw")
    muon = Muon(matrices, lr=options.lr, adjust_lr_fn="match_rms_adamw")
    return [muon, _make(options, rest)] if rest else [muon]


def scaled_lr(options: Optim, batch_size: int) -> float:
    """The highest learning rate for a batch of so many pictures: in proportion to it, to its root, or as it is.

    Papers: in proportion, Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 2.1; to the root, Krizhevsky
    2014, https://arxiv.org/abs/1404.5997
    """
    times = batch_size / options.lr_batch
    return options.lr * {"none": 1.0, "linear": times, "sqrt": math.sqrt(times)}[options.lr_scale]


def _make(options: Optim, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimiser of all groups; AdamW in the place of Muon."""
    lr, momentum, betas = options.lr, options.momentum, (options.momentum, options.beta2)
    eps: dict[str, Any] = {} if options.eps is None else {"eps": options.eps}
    first = groups[0]["params"][0]
    fused = first.device.type in ("cpu", "cuda")
    match options.name:
        case "sgd":
            fused = fused and not isinstance(first, DTensor)  # torch cannot fuse this one where weights are in parts
            sgd = SGD(groups, lr, momentum, nesterov=options.nesterov and momentum > 0.0, fused=fused)
            if fused and momentum:  # or torch would fail at a weight that begins to learn later than others
                for weight in (weight for group in sgd.param_groups for weight in group["params"]):
                    sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            return sgd
        case "rmsprop":
            return RMSprop(groups, lr, options.beta2, momentum=momentum, **eps)
        case "adam":
            return Adam(groups, lr, betas, fused=fused, **eps)
        case "nadam":
            return NAdam(groups, lr, betas, decoupled_weight_decay=True, **eps)
        case "lamb":
            return LAMB(_adaptive(groups), lr, betas, **eps)
        case "lars":
            return LARS(_adaptive(groups), lr, momentum, **eps)
        case "adamw" | "muon":
            return AdamW(groups, lr, betas, fused=fused, **eps)


def _adaptive(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of LARS and LAMB: only the lengths of matrices count."""
    return [group | {"adapt": group["kind"] == "matrix"} for group in groups]


def _split(groups: list[dict[str, Any]], network: Network) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups with nothing but the matrices of the blocks, and with all the rest."""
    blocks = {weight for block in network.blocks() for weight in block.parameters() if weight.dim() == 2}
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        taken = [weight in blocks and group["kind"] == "matrix" for weight in group["params"]]
        for part, wanted in zip(parts, (True, False), strict=True):
            params = [weight for weight, take in zip(group["params"], taken, strict=True) if take == wanted]
            if params:
                part.append(group | {"params": params})
    return parts
