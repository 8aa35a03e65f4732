"""Which weights move how: groups of parameters, and optimisers by name."""

from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from birder.errors import ConfigError
from birder.networks.base import Network
from birder.training.recipe import Optim


def parameter_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and convolutions, which decay, and norms, biases and scales, which do not."""
    return [
        {"params": [parameter for parameter in parameters if _is_matrix(parameter)], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if not _is_matrix(parameter)], "weight_decay": 0.0},
    ]


def make_optimizers(module: nn.Module, network: Network, options: Optim) -> list[Optimizer]:
    """The optimisers that together move all trained parameters of a module, at the highest learning rate.

    ``muon`` moves the matrices of the network's blocks, and AdamW the rest; the learning rate and the decay mean the
    same for both, as Muon's moves are scaled to the length of AdamW's.

    Papers: AdamW, Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101; Muon at AdamW's scale, Liu et al. 2025,
    https://arxiv.org/abs/2502.16982, section 2.2

    Args:
        module: What is trained, the network in it.
        network: The network, whose ``blocks()`` hold the matrices for Muon.
        options: Name, learning rate, decay and momentum.

    Raises:
        ConfigError: Muon, and a network whose blocks have no matrices to train.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    fused = parameters[0].device.type in ("cpu", "cuda")
    if options.name == "sgd":
        nesterov = options.momentum > 0.0
        groups = parameter_groups(parameters, options.weight_decay)
        return [SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov, fused=fused)]
    optimizers: list[Optimizer] = []
    if options.name == "muon":
        matrices = [
            weight
            for block in network.blocks()
            for weight in block.parameters()
            if weight.requires_grad and weight.dim() == 2
        ]
        if not matrices:
            raise ConfigError(
                f"optim.name: muon moves matrices, and the blocks of {network.name} train none; take adamw"
            )
        decay = options.weight_decay
        optimizers.append(Muon(matrices, lr=options.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        taken = {id(weight) for weight in matrices}
        parameters = [parameter for parameter in parameters if id(parameter) not in taken]
    groups = parameter_groups(parameters, options.weight_decay)
    return [*optimizers, AdamW(groups, lr=options.lr, betas=(options.momentum, 0.999), fused=fused)]


def _is_matrix(parameter: Tensor) -> bool:
    # Global response norms keep their vectors as (1, 1, 1, C).
    return sum(length > 1 for length in parameter.shape) > 1
