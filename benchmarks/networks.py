"""The networks of the five model cards against the same ones in timm and torchvision.

python benchmarks/networks.py [--only vit_l16] [--rounds 12] [--batch-size 4] [--threads 1] [--no-memory]

Inference in eager float32 at the size of the card. Each round times all ways in turns, in one process; a ratio is the
median over the rounds of (time of theirs / time of ours), so above 1 ours is faster. Peak memory is the largest
resident size of a fresh process that builds the network and sees one batch, less that of one that only imports.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from birder.networks import create_network

# Network of ours: (size of its card, classes, how the other package builds the same).
CARDS: dict[str, tuple[int, int, Callable[[int, int], nn.Module]]] = {
    "convnext_v2_tiny": (256, 371, lambda size, classes: timm("convnextv2_tiny", classes)),
    "pvt_v2_b2": (384, 550, lambda size, classes: timm("pvt_v2_b2", classes)),
    "regnet_y_8g": (384, 707, lambda size, classes: torchvision_regnet(classes)),
    "vit_l16": (256, 707, lambda size, classes: timm("vit_large_patch16_224", classes, img_size=size)),
    "vit_parallel_s16_18x2_ls_avg": (
        384,
        735,
        lambda size, classes: timm(
            "vit_small_patch16_18x2_224",
            classes,
            img_size=size,
            class_token=False,
            global_pool="avg",
            fc_norm=False,
            init_values=1e-5,
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CARDS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(peak(*options.peak_of, options.batch_size))
        return
    print(f"torch {torch.__version__}, batches of {options.batch_size}, {options.threads} thread(s)")
    heads = ("network", "size", "images/s", "theirs", "ratio", "channels last", "peak MiB (theirs)")
    print("{:29} {:>4} {:>8} {:>7} {:>6} {:>13}  {}".format(*heads))
    for name in options.only:
        size = CARDS[name][0]
        ours, theirs, last = times(name, options.batch_size, options.rounds)
        speed = options.batch_size / statistics.median(ours)
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        ratio_last = statistics.median(a / c for a, c in zip(ours, last, strict=True))
        line = f"{name:29} {size:4} {speed:8.2f} {speed / ratio:7.2f} {ratio:6.3f} {ratio_last:12.3f}x"
        if options.memory:
            before = measured_peak("nothing", name, options.batch_size)
            mine, other = (measured_peak(who, name, options.batch_size) - before for who in ("ours", "theirs"))
            line += f"  {mine:8.0f} ({other:.0f})"
        print(line, flush=True)


def timm(name: str, classes: int, **options: object) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=classes, **options)


def torchvision_regnet(classes: int) -> nn.Module:
    from torchvision.models import regnet_y_8gf

    return regnet_y_8gf(num_classes=classes)


def build(who: str, name: str) -> nn.Module:
    size, classes, other = CARDS[name]
    if who == "theirs":
        return other(size, classes).eval()
    return create_network(name, classes, size=(size, size)).eval()


@torch.inference_mode()
def times(name: str, batch_size: int, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of a batch: ours, theirs, and ours with the channels last in memory."""
    size, _, _ = CARDS[name]
    x = torch.randn(batch_size, 3, size, size)
    last = build("ours", name).to(memory_format=torch.channels_last)
    ways = {
        "ours": (build("ours", name), x),
        "theirs": (build("theirs", name), x),
        "last": (last, x.to(memory_format=torch.channels_last)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):  # the first warms up
        for way in sorted(ways, reverse=number % 2 == 1):  # who comes first takes turns
            network, images = ways[way]
            began = time.perf_counter()
            network(images)
            if number:
                seconds[way].append(time.perf_counter() - began)
    return seconds["ours"], seconds["theirs"], seconds["last"]


def measured_peak(who: str, name: str, batch_size: int) -> float:
    command = [sys.executable, __file__, "--peak-of", who, name, "--batch-size", str(batch_size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def peak(who: str, name: str, batch_size: int) -> float:
    """Largest resident size of this process in MiB, after one batch."""
    import timm  # noqa: F401 (all have them, so that the differences are those of the networks)
    import torchvision  # noqa: F401

    if who != "nothing":
        size, _, _ = CARDS[name]
        build(who, name)(torch.randn(batch_size, 3, size, size))
    status = Path("/proc/self/status").read_text()  # getrusage would give that of the parent, if it was larger
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
