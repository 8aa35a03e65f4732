"""Folders, tables and shards of the same pictures: how long until the first, how much memory, how fast.

python benchmarks/shards.py [--names 1000000] [--pictures 20000] [--side 128] [--folder /tmp/…]

Makes empty files by so many names, and so many drawn birds as small JPEGs, packs the latter, and measures each in fresh
processes: seconds and memory until the samples are known, and pictures/s in shuffled order: bytes, first after the
system was asked to forget the files ("cold", but for the folders' own entries), then again, and decoded. Everything is
removed afterwards, unless --folder names where it may stay and be used again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from birder.data.drawn import DrawnBirds
from birder.data.pack import Encoded
from birder.data.samples import read_samples
from birder.data.shards import write_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.read)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        make_names(folder, options.names)
        make_pictures(folder, options.pictures, options.side)
        for name in ("names", "names.csv"):
            report(folder / name, 0)
        for name in ("pictures", "pictures.csv", "shards", "shards"):
            report(folder / name, options.pictures)


def make_names(folder: Path, count: int) -> None:
    """A thousand species with so many empty files in all, and a table of them."""
    if (folder / "names.csv").exists():
        return
    began = time.perf_counter()
    with open(folder / "names.csv", "w", encoding="utf-8") as table:
        table.write("path,label\n")
        for number in range(count):
            species = f"Species {number % 1000:04d}"
            name = f"names/{species}/IMG_{number:08d}_camera-17.jpg"
            if number < 1000:
                (folder / "names" / species).mkdir(parents=True)
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))
            table.write(f"{name},{species}\n")
    print(f"made {count:,} empty files in {time.perf_counter() - began:.0f} s")


def make_pictures(folder: Path, count: int, side: int) -> None:
    """A hundred folders with so many pictures in all, a table of them, and shards."""
    if (folder / "shards").exists():
        return
    birds, encode = DrawnBirds(size=(side, side)), Encoded(size=side, format="jpeg")
    drawn = [encode(birds.draw(number % birds.species, number).image) for number in range(500)]
    rows = ["path,label"]
    for number in range(count):
        name = f"pictures/Species {number % 100:03d}/{number:06d}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(drawn[number % len(drawn)])
        rows.append(f"{name},Species {number % 100:03d}")
    (folder / "pictures.csv").write_text("\n".join(rows), encoding="utf-8")
    samples = read_samples(folder / "pictures")
    began = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(samples))
    packed = write_shards(samples.select(order), folder / "shards", prefix="drawn-training", samples_per_shard=2000)
    seconds = time.perf_counter() - began
    print(f"packed {packed.pictures:,} pictures into {len(packed.shards)} tar files: {packed.pictures / seconds:.0f}/s")


def report(source: Path, read: int) -> None:
    kept = any(source.glob(".*.npz")) if source.is_dir() else False
    command = [sys.executable, __file__, "--measure", str(source), "--read", str(read)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    speeds = ", ".join(f"{name} {value:.0f} pictures/s" for name, value in found["speeds"].items())
    print(
        f"{source.name}{' (index kept)' if kept else ''}: {found['samples']:,} samples in {found['seconds']:.2f} s, "
        f"{found['kept_mib']:.0f} MiB kept, {found['peak_mib']:.0f} MiB at most{', ' if speeds else ''}{speeds}"
    )


def measured(source: Path, read: int) -> dict[str, object]:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest memory counts from here
    before, began = memory_mib("VmRSS"), time.perf_counter()
    samples = read_samples(source)
    found: dict[str, object] = {"samples": len(samples), "seconds": time.perf_counter() - began}
    found |= {"kept_mib": memory_mib("VmRSS") - before, "peak_mib": memory_mib("VmHWM") - before}
    if not read:
        return {**found, "speeds": {}}
    order = np.random.default_rng(1).permutation(len(samples))[:read].tolist()
    give_back(source)
    speeds = {"cold": speed(samples.content, order), "warm": speed(samples.content, order)}
    return {**found, "speeds": {**speeds, "decoded": speed(samples.read, order[:4000])}}


def speed(read: Callable[[int], object], order: list[int]) -> float:
    began = time.perf_counter()
    for index in order:
        read(index)
    return len(order) / (time.perf_counter() - began)


def give_back(source: Path) -> None:
    """Ask the system to forget the content of the files, which needs no rights."""
    os.sync()
    folder = source if source.is_dir() else source.with_suffix("")
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def memory_mib(name: str) -> float:
    """``VmRSS``, the memory of this process, or ``VmHWM``, the most that it had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
