"""The promises of networks that can do more than others: mask tokens, drop tokens, show their layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from birder.networks.base import DropsTokens, MasksMaps, MasksTokens, ShowsLayers
from birder.testing.outputs import IMAGES, Build, expect_equal, expect_shape, pictures
from birder.testing.promise import expect


@torch.no_grad()
def _masking(build: Build) -> None:
    network = build()
    if not isinstance(network, MasksTokens):
        return
    x = pictures(network)
    grid = tuple(side // network.max_stride for side in network.size)
    nothing, everything = torch.zeros(IMAGES, grid[0] * grid[1]), torch.ones(IMAGES, grid[0] * grid[1])
    plain = network.forward_features(x)
    if isinstance(network, DropsTokens):
        plain = plain[:, network.num_special_tokens :].transpose(1, 2).unflatten(2, grid)
    expect_equal(
        "encode_masked with nothing hidden, unlike forward_features,", network.encode_masked(x, nothing, None), plain
    )
    token = torch.ones(1, 1, 1, network.stem_width)
    hidden = network.encode_masked(x, everything, token)
    expect_shape("encode_masked with all hidden", hidden, *plain.shape)
    expect_equal("encode_masked shows what is hidden: it", network.encode_masked(-x, everything, token), hidden)


@torch.no_grad()
def _dropping(build: Build) -> None:
    network = build()
    if not isinstance(network, DropsTokens):
        return
    x = pictures(network)
    rows, columns = (side // network.max_stride for side in network.size)
    everything = torch.arange(rows * columns).expand(IMAGES, -1)
    tokens = network.forward_features(x)
    expect_equal(
        "encode_visible of all patches, unlike forward_features,", network.encode_visible(x, everything), tokens
    )
    first = everything[:, :columns]
    special = network.num_special_tokens
    seen = network.encode_visible(x, first)
    expect_shape("encode_visible of some patches", seen, IMAGES, special + columns, tokens.shape[2])
    elsewhere = x.clone()
    elsewhere[:, :, network.max_stride :] *= -1
    expect_equal("encode_visible sees patches that are dropped: it", network.encode_visible(elsewhere, first), seen)
    backwards = network.encode_visible(x, first.flip(1))
    order = torch.cat([seen[:, :special], seen[:, special:].flip(1)], dim=1)
    expect_equal("encode_visible of patches in another order", backwards, order)


def _decoder_blocks(build: Build) -> None:
    network, width = build(), 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(network, DropsTokens):
            for heads in (16, 4):
                what = f"token_block({width}, {heads})"
                _expect_decoder_block(what, network.token_block(width, heads), torch.randn(IMAGES, 7, width))
        if isinstance(network, MasksMaps):
            _expect_decoder_block(f"map_block({width})", network.map_block(width), torch.randn(IMAGES, width, 3, 5))


def _expect_decoder_block(what: str, block: nn.Module, x: Tensor) -> None:
    """It keeps the shape and draws no random numbers, and every place hears of the others."""
    block.train()
    y = block(x)
    expect_shape(what, y, *x.shape)
    expect_equal(f"{what} in training, the second time,", block(x), y)
    block.eval()
    places = x.dim() - 1 if x.dim() == 4 else 1  # columns of a map, or tokens
    changed = x.index_copy(places, torch.tensor([0]), -x.narrow(places, 0, 1))
    difference = (block(changed) - block(x)).select(places, 1)
    expect(bool(difference.any()), f"{what} lets no place see the one beside it")
    y.square().sum().backward()
    unreached = [name for name, weight in block.named_parameters() if weight.grad is None]
    expect(not unreached, f"{what} has weights that no gradient reaches, {', '.join(unreached)}")


@torch.no_grad()
def _layers(build: Build) -> None:
    network = build()
    if not isinstance(network, ShowsLayers):
        return
    x = pictures(network)
    layers = network.encode_layers(x)
    expect(len(layers) == len(network.blocks()), f"there are {len(layers)} layers, and {len(network.blocks())} blocks")
    expect_equal("the last of encode_layers, unlike forward_features,", layers[-1], network.forward_features(x))


ABILITIES: dict[str, Callable[[Build], None]] = {
    "encode_masked hides what is masked": _masking,
    "encode_visible drops what is not kept": _dropping,
    "its blocks for decoders keep the shape": _decoder_blocks,
    "encode_layers shows every layer": _layers,
}
"""Every promise in words, and the function that checks it; a network without the ability keeps it."""
