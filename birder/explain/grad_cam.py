"""Grad-CAM: which places of a feature map speak for a class.

Paper: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391
Shapes: D width of the map, h rows and w columns, S special tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.networks.base import DropsTokens, Network


def grad_cam(network: Network, pixels: Tensor, label: int, stage: str | None = None) -> Tensor:
    """Evidence for a class at each place of a feature map, (1, C, H, W) -> (h, w), 0 or more.

    Of a network of tokens it is the map that enters the last block: behind that, a class token has all that the
    answer is made of, and the places have no say.

    Args:
        network: In evaluation mode; gradients are enabled.
        pixels: One picture.
        label: The class.
        stage: The map that is looked at; None is the last.
    """
    kept: list[Tensor] = []

    def cut(features: Tensor) -> Tensor:
        """Go on with a copy from which the gradients are asked."""
        kept.append(features.detach().requires_grad_())
        return kept[-1]

    if isinstance(network, DropsTokens):
        hook = network.blocks()[-1].register_forward_pre_hook(lambda block, given: (cut(given[0]),))
    else:
        hook = _end(network, stage).register_forward_hook(lambda module, given, result: cut(result))
    try:
        logits = network(pixels)
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, label], kept)
    features, gradient = (as_map(network, values.detach(), pixels).float() for values in (kept[0], gradient))
    return F.relu((gradient.mean(dim=(1, 2), keepdim=True) * features).sum(dim=0))


def as_map(network: Network, features: Tensor, pixels: Tensor) -> Tensor:
    """A map (1, D, h, w), or tokens (1, S + h * w, D), of pictures as (D, h, w)."""
    if not isinstance(network, DropsTokens):
        return features[0]
    rows = pixels.shape[2] // network.max_stride
    return features[0, network.num_special_tokens :].T.unflatten(1, (rows, -1))


def stage_names(network: Network) -> list[str]:
    """The maps that can be looked at, finest first; none where there is no choice."""
    return [] if isinstance(network, DropsTokens) else list(network.stages)


def _end(network: Network, stage: str | None) -> nn.Module:
    names = stage_names(network)
    return network.stage_ends()[names.index(stage) if stage is not None else -1]
