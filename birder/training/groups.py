"""Which weights decay how much, and which learn more slowly: the groups of an optimiser."""

import re
from typing import Any, Literal

from torch import nn

from birder.networks.base import Network
from birder.training.recipe import Optim

Kind = Literal["matrix", "token", "vector"]
"""What a weight is, for its decay: a matrix or convolution; a token or table of positions; a norm, bias or scale."""

TOKENS = re.compile(r"(.*_)?tokens?|(.*_)?latents?|(.*_)?pos_embed.*|(.*_)?positions?(_.*)?|rel_pos.*|attention_bias.*")
"""Names of tokens (class token, registers, masks, the learned queries of a pool) and of tables of positions."""


def parameter_groups(module: nn.Module, network: Network, options: Optim) -> list[dict[str, Any]]:
    """All trained parameters of a module, each in one group of those that decay and learn alike.

    A group has, beside ``params``: ``kind``, its ``weight_decay``, and ``scale``, its share of the learning rate. A
    tensor with two names counts once, and the groups are in the same order for the same network and options.

    Args:
        module: What is trained, the network in it.
        network: The network, whose ``blocks()`` say what lies how deep.
        options: The decay of each kind, and the layer decay.
    """
    decays: dict[Kind, float] = {
        "matrix": options.weight_decay,
        "token": options.token_decay,
        "vector": options.vector_decay,
    }
    scales = layer_scales(network, options)
    groups: dict[tuple[float, Kind], list[nn.Parameter]] = {}
    for parameter, kind in kinds(module).items():
        if parameter.requires_grad:
            groups.setdefault((scales.get(parameter, 1.0), kind), []).append(parameter)
    return [
        {"params": groups[scale, kind], "kind": kind, "weight_decay": decays[kind], "scale": scale}
        for scale, kind in sorted(groups)
    ]


def kinds(module: nn.Module) -> dict[nn.Parameter, Kind]:
    """What each parameter of a module is, in the order of ``parameters()``."""
    found: dict[nn.Parameter, Kind] = {}
    for path, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            # The weight of an embedding is called weight: the embedding has the name.
            called = path.rpartition(".")[2] if isinstance(owner, nn.Embedding) else name
            found.setdefault(parameter, _kind(owner, called, parameter))
    return found


def layer_scales(network: Network, options: Optim) -> dict[nn.Parameter, float]:
    """Share of the learning rate of each parameter of a network: a block has ``layer_decay`` of that behind it.

    Papers: Clark et al. 2020, https://arxiv.org/abs/2003.10555; for images, Bao et al. 2021,
    https://arxiv.org/abs/2106.08254
    """
    last = len(network.blocks()) + 1
    return {
        parameter: max(options.layer_decay_min, options.layer_decay ** (last - depth))
        for parameter, depth in depths(network).items()
    }


def depths(network: Network) -> dict[nn.Parameter, int]:
    """How deep each parameter of a network lies, from 0 to the number of blocks + 1.

    0 is all in front of the first block: stem, tokens, positions. The first block is 1, and so on; what stands between
    two blocks belongs to the second. What follows the last block is one deeper than it.
    """
    blocks = network.blocks()
    found = {parameter: depth for depth, block in enumerate(blocks, start=1) for parameter in block.parameters()}
    parameters = list(network.parameters())
    begin = next(place for place, parameter in enumerate(parameters) if parameter in found)
    found |= dict.fromkeys(parameters[:begin], 0)
    depth = len(blocks) + 1
    for parameter in reversed(parameters):  # what has no depth yet takes that of its successor
        depth = found.setdefault(parameter, depth)
    return found


def _kind(owner: nn.Module, name: str, parameter: nn.Parameter) -> Kind:
    if TOKENS.fullmatch(name):
        return "token"
    if name == "bias" or isinstance(owner, nn.LayerNorm | nn.RMSNorm):  # of whatever shape
        return "vector"
    if name == "weight" and isinstance(owner, nn.Linear | nn.modules.conv._ConvNd):  # also from or to one channel
        return "matrix"
    # Global response norms keep their vectors as (1, 1, 1, C).
    return "matrix" if sum(length > 1 for length in parameter.shape) > 1 else "vector"
