"""How long a model file takes to load, and how much memory, against reading its bytes with torch alone.

python benchmarks/model_loading.py NETWORK [--rounds 15] [--folder FOLDER]

Writes the network, with random weights, to FOLDER in both formats, and removes the files. Prints the median time of
each way to load, in turns in one process with the files in memory, and its ratio to ``torch.load``; then the peak
memory of each in a process of its own, and what of it belongs to the process alone rather than to the mapped file.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from birder.model_file import load_model, save_model
from birder.model_file.weights import first_not_finite
from birder.networks import create_network
from birder.signature import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder")
    parser.add_argument("--memory-of", nargs=2, metavar=("WAY", "FILES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        way, folder = options.memory_of
        print_memory(ways(Path(folder), options.network)[way])
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        network = create_network(options.network, 1000)
        for suffix in ("pt", "safetensors"):
            save_model(f"{folder}/{options.network}.{suffix}", network, class_to_idx={}, rgb_stats=PRESETS["imagenet"])
        size = sum(weight.numel() for weight in network.parameters())
        print(f"{options.network}, {size / 1e6:.1f} M parameters, one thread, {options.rounds} rounds")
        report_times(ways(Path(folder), options.network), options.rounds)
        began = time.perf_counter()
        first_not_finite(network)
        print(
            f"looking for weights that are no numbers takes {(time.perf_counter() - began) * 1e3:.0f} ms of load_model"
        )
        del network
        for way in ways(Path(folder), options.network):
            command = [sys.executable, __file__, options.network, "--memory-of", way, folder]
            print(f"{way:32}{subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()}")


def ways(folder: Path, network: str) -> dict[str, Callable[[], object]]:
    pt, safetensors = folder / f"{network}.pt", folder / f"{network}.safetensors"
    return {
        "torch.load": partial(torch.load, pt, weights_only=True),
        "torch.load, mapped": partial(torch.load, pt, weights_only=True, mmap=True),
        "load_model, .pt": partial(load_model, pt),
        "load_model, .safetensors": partial(load_model, safetensors),
        "safetensors' load_file": partial(load_file, safetensors),
        "nothing": lambda: None,
    }


def report_times(ways: dict[str, Callable[[], object]], rounds: int) -> None:
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 2):
        for way, load in ways.items():
            began = time.perf_counter()
            loaded = load()
            if number >= 2:  # the first rounds bring the files into memory
                seconds[way].append(time.perf_counter() - began)
            del loaded
    reference = statistics.median(seconds["torch.load"])
    for way, values in seconds.items():
        low, median, high = (value * 1e3 for value in (min(values), statistics.median(values), max(values)))
        print(f"{way:32}{median:7.0f} ms ({low:.0f} to {high:.0f}), ratio {median / 1e3 / reference:.2f}")


def print_memory(load: Callable[[], object]) -> None:
    loaded = load()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    print(f"{kilobytes['VmHWM'] / 1024:7.0f} MiB at most, {kilobytes['RssAnon'] / 1024:.0f} MiB its own at the end")
    del loaded


if __name__ == "__main__":
    main()
