"""Attention rollout: from which patches the answer of a vision transformer was gathered, block by block.

Papers: Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928, follow attention through the blocks; Chefer et al.
2021, https://arxiv.org/abs/2103.15679, equations 5 and 6, weigh it by its gradient, so that it is about a class.

Shapes: N tokens, S special ones in front of h * w patches, D width, H heads, d = D / H width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.explain.grad_cam import as_map
from birder.layers.attention import Attention
from birder.networks.base import DropsTokens, Network


class _Seen(NamedTuple):
    """What went through an attention layer."""

    tokens: Tensor
    """(1, N, D), what came in."""
    gathered: Tensor
    """(1, N, D), what the heads made of it, before the projection."""


def rollout(network: Network, pixels: Tensor, label: int) -> Tensor:
    """What each patch gave to the answer, (1, C, H, W) -> (h, w), 0 or more.

    The attention of each head counts as far as more of it would raise the logit; that of heads, and of layers side by
    side, is added up. The network computes as always: attention is worked out a second time from what went in, and its
    gradient from that of what came out.

    Args:
        network: One with ``attentions``, in evaluation mode; gradients are enabled.
        pixels: One picture.
        label: The class.
    """
    layers = attentions(network)
    with _watched([layer for block in layers for layer in block]) as seen:
        tokens = network.forward_features(pixels.requires_grad_())
        logits = network.classify(network.pool(tokens))
    gathered = [seen[layer].gathered for block in layers for layer in block]
    last, *gradients = torch.autograd.grad(logits[0, label], [tokens, *gathered])
    by_layer = dict(zip((layer for block in layers for layer in block), gradients, strict=True))
    with torch.no_grad():
        given = last[0].double().norm(dim=1)  # (N,): how much the answer depends on each token
        given = given / given.sum().clamp(min=torch.finfo(given.dtype).tiny)
        # Where the mean of the patches is the answer, all have that much from the start. Beside it, what attention adds
        # may be too little to be told from rounding.
        floor = given[network.num_special_tokens :].min()
        for block in reversed(layers):
            given = given + sum(given @ _weighed(layer, seen[layer], by_layer[layer]) for layer in block)
    return as_map(network, given[None, :, None], pixels)[0] - floor


def attentions(network: Network) -> list[list[Attention]]:
    """The attention layers of each block; none if the network does not attend to the same tokens in all of them."""
    if not isinstance(network, DropsTokens):
        return []
    return [[part for part in block.modules() if isinstance(part, Attention)] for block in network.blocks()]


@contextmanager
def _watched(layers: list[Attention]) -> Iterator[dict[nn.Module, _Seen]]:
    """Keeps what goes through some attention layers while it is open."""
    seen: dict[nn.Module, _Seen] = {}
    arrived: dict[nn.Module, Tensor] = {}
    hooks = []
    for layer in layers:

        def keep_tokens(_: nn.Module, given: tuple[Tensor], layer: Attention = layer) -> None:
            arrived[layer] = given[0]

        def keep_gathered(_: nn.Module, given: tuple[Tensor], layer: Attention = layer) -> None:
            seen[layer] = _Seen(arrived.pop(layer), given[0])

        hooks += [layer.register_forward_pre_hook(keep_tokens), layer.norm.register_forward_pre_hook(keep_gathered)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _weighed(layer: Attention, seen: _Seen, gradient: Tensor) -> Tensor:
    """Attention of each token (row) to each, as far as it raises the logit, the mean of the heads: (N, N)."""
    q, k, v = (part[0].float() for part in layer.heads(seen.tokens))  # (H, N, d)
    attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
    by_head = gradient[0].float().unflatten(-1, (layer.num_heads, -1)).transpose(0, 1)  # (H, N, d)
    return F.relu(attention * (by_head @ v.mT)).mean(dim=0).double()
