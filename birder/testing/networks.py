"""The promises that every network keeps."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from birder.model_file import load_model, load_weights, save_model
from birder.networks.base import Network, create_network
from birder.signature import rgb_stats
from birder.testing.abilities import ABILITIES
from birder.testing.outputs import IMAGES, Build, expect_equal, expect_shape, pictures
from birder.testing.promise import check_promises, expect

NUM_CLASSES = 5
BF16_TOLERANCE = 0.1


def check_network(name: str, *, size: tuple[int, int] | None = None, seed: int = 0, **config: Any) -> None:
    """Check all that the rest of birder takes for granted of a network.

    Args:
        name: Registered name.
        size: (height, width) of the pictures; None is the network's default. Small ones are quick.
        seed: Of the random weights.
        config: Options that replace the registered ones, as in ``create_network``.

    Raises:
        BrokenPromise: The first promise that is not kept.
        UnknownName: No network of that name.
        ConfigError: Options that the network does not have.
    """

    def build(*, seed: int = seed, **options: Any) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = create_network(name, **{"num_classes": NUM_CLASSES, "size": size, **config, **options})
            with torch.no_grad():
                for weight in network.parameters():  # so that none is zero, behind which all would be the same
                    weight.add_(torch.randn_like(weight), alpha=0.02)
            return network.eval()

    build()  # mistakes in the arguments are the caller's
    check_promises(name, PROMISES, build)


def other_sizes(network: Network) -> list[tuple[int, int]]:
    """A larger and a smaller size than the network's, neither square; the smaller only where there is room for it."""
    height, width = network.size
    stride = network.max_stride
    larger, smaller = (height + stride, width + 2 * stride), (height - stride, width)
    return [larger, smaller] if smaller[0] >= stride else [larger]


@torch.no_grad()
def _shapes(build: Build) -> None:
    network = build()
    x = pictures(network)
    embedding = network.embedding(x)
    expect_shape("embedding(x)", embedding, IMAGES, network.embedding_size)
    expect_shape("forward(x)", network(x), IMAGES, NUM_CLASSES)
    expect_equal(
        "pool(forward_features(x)), unlike embedding(x),", network.pool(network.forward_features(x)), embedding
    )
    expect_equal("classify(embedding(x)), unlike forward(x),", network.classify(embedding), network(x))


@torch.no_grad()
def _stages(build: Build) -> None:
    network = build()
    maps = network.detection_features(pictures(network))
    expect(list(maps) == list(network.stages), f"it gives {list(maps)}, and stages names {list(network.stages)}")
    heights = [features.shape[2] for features in maps.values()]
    expect(heights == sorted(heights, reverse=True), f"the finest map does not come first: heights {heights}")
    for name, features in maps.items():
        expect_shape(f"{name}", features, IMAGES, network.stages[name], *features.shape[2:])
    coarsest = tuple(maps[list(maps)[-1]].shape[2:])
    expected = tuple(pixels // network.max_stride for pixels in network.size)
    expect(
        coarsest == expected, f"the last map has {coarsest} positions; max_stride {network.max_stride} means {expected}"
    )


@torch.no_grad()
def _other_sizes(build: Build) -> None:
    for size in other_sizes(build()):
        network = build()
        network.adjust_size(size)
        expect(network.size == size, f"size is {network.size} after adjust_size({size})")
        expect_shape(f"forward(x) after adjust_size({size})", network(pictures(network)), IMAGES, NUM_CLASSES)
        network = build()
        network.set_dynamic_size()
        expect_shape(f"forward(x) with dynamic size, of {size},", network(pictures(network, size)), IMAGES, NUM_CLASSES)


def _gradients(build: Build) -> None:
    network = build().train()
    x = pictures(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network(x).square().sum().backward()
    unreached = [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    expect(not unreached, f"none reaches {', '.join(unreached)}")
    wild = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is not None and not weight.grad.isfinite().all()
    ]
    expect(not wild, f"not finite at {', '.join(wild)}")


@torch.no_grad()
def _copy(build: Build) -> None:
    network = build()
    x = pictures(network)
    before = network.embedding(x)
    twin = copy.deepcopy(network)
    expect_equal("embedding(x) of the copy", twin.embedding(x), before)
    for weight in twin.parameters():
        weight.zero_()
    expect_equal("embedding(x), after a change of the copy,", network.embedding(x), before)


@torch.no_grad()
def _weights(build: Build) -> None:
    network = build()
    x = pictures(network)
    for weight in network.parameters():  # so that none is what a constructor makes, such as zero
        weight.add_(0.01)
    twin = build(seed=1234)
    load_weights(twin, network.state_dict())
    expect_equal("forward(x) with the same weights", twin(x), network(x))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        classes = {f"class {label}": label for label in range(NUM_CLASSES)}
        save_model(path, network, class_to_idx=classes, rgb_stats=rgb_stats("birder"))
        loaded, _ = load_model(path)
    expect_equal("forward(x) of the network from a file", loaded(x), network(x))


@torch.no_grad()
def _classifier(build: Build) -> None:
    network = build()
    x = pictures(network)
    embedding = network.embedding(x)
    bare = build(num_classes=0)
    expect_equal("forward(x) without classes, unlike embedding(x),", bare(x), bare.embedding(x))
    network.reset_classifier(NUM_CLASSES + 2)
    expect(network.num_classes == NUM_CLASSES + 2, f"num_classes is {network.num_classes} after a reset to 7")
    expect_shape("forward(x) after reset_classifier(7)", network(x), IMAGES, NUM_CLASSES + 2)
    expect_equal("embedding(x) after reset_classifier(7)", network.embedding(x), embedding)
    network.reset_classifier(0)
    expect_equal("forward(x) after reset_classifier(0), unlike embedding(x),", network(x), embedding)


@torch.no_grad()
def _channels(build: Build) -> None:
    for channels in (1, 4):
        network = build()
        gray = pictures(network, channels=1)
        before = network.embedding(gray.expand(-1, network.input_channels, -1, -1))
        network.adjust_input_channels(channels)
        expect(network.input_channels == channels, f"input_channels is {network.input_channels}, not {channels}")
        after = network.embedding(gray.expand(-1, channels, -1, -1))
        expect_shape(f"embedding(x) with {channels} channels", after, *before.shape)
        if channels == 1:
            expect_equal("embedding of a gray picture in one channel, unlike in three,", after, before)


@torch.no_grad()
def _evaluation(build: Build) -> None:
    network = build()
    x = pictures(network)
    first = network.embedding(x)
    expect(torch.equal(network.embedding(x), first), "embedding(x) is not the same the second time")
    expect_equal("the embedding of a picture alone, unlike in a batch,", network.embedding(x[:1]), first[:1])


@torch.no_grad()
def _half_precision(build: Build) -> None:
    network = build()
    x = pictures(network)
    with torch.autocast("cpu", torch.bfloat16):
        half = network.embedding(x)
    expect_equal("embedding(x) in bfloat16", half, network.embedding(x), BF16_TOLERANCE)


def _blocks(build: Build) -> None:
    network = build()
    blocks = network.blocks()
    modules = {id(module): place for place, module in enumerate(network.modules())}
    expect(len(blocks) > 0, "there are none")
    expect(all(id(block) in modules for block in blocks), "some are not modules of the network")
    places = [modules[id(block)] for block in blocks]
    expect(places == sorted(set(places)), "they are not in the order of the modules, each once")
    inner = {id(module) for block in blocks for module in block.modules() if module is not block}
    expect(not any(id(block) in inner for block in blocks), "one lies within another")


def _freezing(build: Build) -> None:
    network = build().train()
    weights = dict(network.named_parameters())
    before = 0
    for stages in [*range(len(network.stages) + 1), None]:
        network.freeze(stages)
        frozen = {name for name, weight in weights.items() if not weight.requires_grad}
        more = len(frozen) > before if stages is not None else len(frozen) >= before
        expect(more, f"freeze({stages}) freezes no more than the one before")
        before = len(frozen)
    classifier = {name for name in weights if name.startswith("classifier.")}
    expect(frozen == set(weights) - classifier, "freeze() freezes something else than all but the classifier")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(pictures(network)).sum().backward()
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, state[name])]
    expect(not changed, f"a pass through the frozen network changes {', '.join(changed)}")
    network.freeze(0)
    expect(network.blocks()[0].training, "a block that is no longer frozen is still in evaluation mode")


def _checkpointing(build: Build) -> None:
    network = build().train()
    x = pictures(network)

    def gradients() -> dict[str, Tensor]:
        network.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network(x).square().sum().backward()
        return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}

    def saved() -> int:
        sizes: list[int] = []

        def count(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(x)
        return sum(sizes)

    plain, plain_size = gradients(), saved()
    network = build().train()
    gradients()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network = build().train()
    network.set_gradient_checkpointing()
    gradients()
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, statistics[name])]
    expect(not changed, f"with it, a step leaves other values in {', '.join(changed)}")
    network.load_state_dict(build().state_dict())
    expect(saved() < plain_size, f"as much is kept with it as without, {plain_size} numbers")
    again = gradients()
    for name in plain:
        expect(name in again, f"with it, no gradient reaches {name}")
        expect_equal(f"with it, the gradient of {name}", again[name], plain[name])
    network.set_gradient_checkpointing(False)
    expect(saved() == plain_size, "it cannot be switched off")


@torch.no_grad()
def _export(build: Build) -> None:
    network = build()
    x = pictures(network)
    program = torch.export.export(network, (x,))
    expect_equal("forward(x) of the exported program", program.module()(x), network(x))


@torch.no_grad()
def _compile(build: Build) -> None:
    network = build()
    x = pictures(network)
    expected = network(x)
    torch.compiler.reset()
    network.compile(fullgraph=True, backend="eager")  # whether it can be traced; what is made of that is torch's affair
    expect_equal("forward(x) of the compiled network", network(x), expected)


PROMISES: dict[str, Callable[[Build], None]] = {
    "outputs have the promised shapes": _shapes,
    "detection_features gives the stages": _stages,
    "it takes pictures of other sizes": _other_sizes,
    "gradients reach every parameter": _gradients,
    "it can be copied": _copy,
    "weights are saved and loaded": _weights,
    "the classifier can be replaced": _classifier,
    "the number of input channels can change": _channels,
    "evaluation gives the same each time": _evaluation,
    "bfloat16 is close to float32": _half_precision,
    "blocks() lists the blocks in order": _blocks,
    "its first part can be frozen": _freezing,
    "gradient checkpointing changes no result": _checkpointing,
    **ABILITIES,
    "torch.export works": _export,
    "torch.compile takes it whole": _compile,
}
"""Every promise in words, and the function that checks it; the keys are the beginnings of the messages."""
