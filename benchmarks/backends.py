"""The backends against torch in float32: how fast, and how far from it.

python benchmarks/backends.py [--networks convnext_v2_tiny …] [--ways "openvino bf16" …] [--threads 1] [--batch-size 4]
    [--rounds 5] [--folder FOLDER] [--plain 1 32]

The five published kinds at their sizes with weights from a seed, on noise. A round gives each backend one batch, in
turns; a ratio is the median over the rounds of (time of torch fp32 / time of the backend), by the wall clock and by the
time of the processor, which other work on the machine disturbs less. Then: the share of what a core does in a large
product in bfloat16 in the same rounds, where only multiplications and additions of layers count as work; the
largest difference of a probability, the cosine of the embeddings (the worst of the batch), the largest difference of
a logit, relative to their spread. With --folder, converted networks are kept there. With --plain, also what a plain
loop does, ``network(batch)`` in fp32 with all threads at each batch, for batches of these sizes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from birder.errors import BirderError
from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.table import WAYS, Way, available, create
from birder.networks import Network, create_network
from birder.signature import rgb_stats

SEEDS = {
    "convnext_v2_tiny": (371, 256),
    "pvt_v2_b2": (550, 384),
    "regnet_y_8g": (707, 384),
    "vit_l16": (707, 256),
    "vit_parallel_s16_18x2_ls_avg": (735, 384),
}
"""Network to classes and size."""
STATS = rgb_stats("birder")
SIDE = 2048
"""Of the matrices whose product is the most that the machine does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(SEEDS), choices=list(SEEDS))
    possible = [str(way) for way, hindrance in available("cpu").items() if not hindrance]
    parser.add_argument("--ways", nargs="+", default=["openvino bf16", "openvino fp32", "torch bf16"], choices=possible)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plain", type=int, nargs="+", default=[])
    options = parser.parse_args()
    print(f"batches of {options.batch_size}, {options.threads} threads, load of the machine {os.getloadavg()[0]:.1f}")
    for name in options.networks:
        compare(name, [way for way in WAYS if str(way) in options.ways], options)


def build(name: str) -> Network:
    classes, side = SEEDS[name]
    torch.manual_seed(0)
    network = create_network(name, classes, size=(side, side)).eval()
    with torch.no_grad():
        for weight in network.parameters():  # none is zero, behind which all would be the same
            weight.add_(torch.randn_like(weight), alpha=0.02)
    return network


def compare(name: str, ways: list[Way], options: argparse.Namespace) -> None:
    network = build(name)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (options.batch_size, *network.size, 3), np.uint8)
    backends: dict[str, Backend] = {}
    for way in [Way("torch", "fp32"), *ways]:
        began = time.perf_counter()
        try:
            backends[str(way)] = create(
                way,
                lambda: network,
                STATS,
                batch_size=options.batch_size,
                threads=options.threads,
                folder=options.folder and options.folder / name,
                pictures=random.integers(0, 256, (16, *network.size, 3), np.uint8),
            )
        except BirderError as error:
            print(f"{name:30} {way!s:15} {error}", flush=True)
            continue
        print(f"{name:30} {way!s:15} made in {time.perf_counter() - began:.1f} s", flush=True)
    calls: dict[str, Callable[[], Any]] = {
        which: lambda backend=backend: backend(pictures) for which, backend in backends.items()
    }
    calls |= {f"plain {size}": plain(network, size, options.threads) for size in options.plain}
    clocks = measured(calls | {"product": product()}, options.rounds)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, *network.size))
    work = counter.get_total_flops() * options.batch_size
    peak = 2 * SIDE**3 / statistics.median(cpu for _, cpu in clocks["product"])
    exact = backends["torch fp32"](pictures)
    for which, backend in backends.items():
        pairs = list(zip(clocks["torch fp32"], clocks[which], strict=True))
        wall, cpu = (statistics.median(slow[clock] / fast[clock] for slow, fast in pairs) for clock in (0, 1))
        seconds = statistics.median(cpu for _, cpu in clocks[which])
        near = agreement(backend(pictures), exact)
        print(
            f"{name:30} {which:15} wall {wall:.2f}x, cpu {cpu:.2f}x, {seconds / options.batch_size * 1e3:.0f} ms of a "
            f"core each, {work / seconds / peak:.0%} of {peak / 1e9:.0f} GFLOP/s; {near}",
            flush=True,
        )
    for size in options.plain:
        pairs = list(zip(clocks["torch fp32"], clocks[f"plain {size}"], strict=True))
        wall = statistics.median(slow[0] / fast[0] for slow, fast in pairs) * size / options.batch_size
        print(f"{name:30} plain loop, batches of {size}: wall {wall:.2f}x", flush=True)


def plain(network: Network, size: int, threads: int) -> Callable[[], Any]:
    images = torch.randn(size, 3, *network.size)

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            network(images)
        torch.set_num_threads(1)

    return run


def product() -> Callable[[], Any]:
    left, right = torch.randn(2, SIDE, SIDE, dtype=torch.bfloat16)
    torch.set_num_threads(1)
    return lambda: left @ right


def measured(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each call in each round, by the wall clock and of the processor."""
    clocks: dict[str, list[tuple[float, float]]] = {which: [] for which in calls}
    for number in range(rounds + 1):  # the first warms up
        for which in sorted(calls, reverse=number % 2 == 1):
            wall, cpu = time.perf_counter(), time.process_time()
            calls[which]()
            if number:
                clocks[which].append((time.perf_counter() - wall, time.process_time() - cpu))
    return clocks


def agreement(given: Outputs, exact: Outputs) -> str:
    assert given.logits is not None and exact.logits is not None
    first, second = (torch.from_numpy(logits).softmax(1) for logits in (given.logits, exact.logits))
    ours, theirs = torch.from_numpy(given.embeddings), torch.from_numpy(exact.embeddings)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs).min()
    logits = np.abs(given.logits - exact.logits).max() / exact.logits.std()
    same = (given.logits.argmax(1) == exact.logits.argmax(1)).sum()
    return (
        f"probabilities {(first - second).abs().max():.1e}, cosine {cosine:.5f}, logits {logits:.1e}, "
        f"best class of {same} of {len(ours)}"
    )


if __name__ == "__main__":
    main()
