"""What reading JPEGs at reduced scale saves, and what it does to the answers.

python benchmarks/reduced_decoding.py FOLDER... [--model FILE] [--sizes 112 224 256 384] [--spare 1 2 3] [--rounds 3]

Takes the JPEGs in the folders that are at least four times as large as the size. Time: from file to the pixels for the
network, all pixels decoded against no more than ``spare`` times the size, in turn, as the ratio of the medians. Drift:
the mean and the largest difference of a pixel, in levels of 255, and, with a model, of a probability, how many pictures
have another best class, and by how much that class had led at most.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from birder import load_model
from birder.data.fitting import Fit, Pixels
from birder.data.images import SPARE, read_photo
from birder.data.transforms import InferenceTransform
from birder.signature import RGBStats

LARGER = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 256, 384])
    parser.add_argument("--spare", type=float, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of Pillow, about damaged tags
    paths = sorted(path for folder in options.folders for path in folder.rglob("*") if smaller_side(path))
    print("| size | spare | pictures | time, full/reduced | pixels mean, max | probability mean, max | other best |")
    print("|---|---|---|---|---|---|---|")
    for side in options.sizes:
        large = [path for path in paths if smaller_side(path) >= LARGER * side]
        fit = Fit((side, side))
        for spare in options.spare:
            cover = (round(side * spare / SPARE),) * 2
            ratio = time_ratio(large, fit, cover, options.rounds)
            full, reduced = (pixels(large, fit, wanted) for wanted in (None, cover))
            off = np.abs(full.astype(np.int16) - reduced)
            answers = drift(full, reduced, options.model) if options.model else "| "
            print(f"| {side} | {spare:g} | {len(large)} | {ratio:.2f} | {off.mean():.2f}, {off.max()} | {answers} |")


def smaller_side(path: Path) -> int:
    """Of a JPEG, in pixels; 0 for anything else."""
    try:
        with Image.open(path) as image:
            return min(image.size) if image.format == "JPEG" else 0
    except Exception:
        return 0


def fitted(path: Path, fit: Fit, cover: tuple[int, int] | None) -> Pixels:
    """One picture, (H, W, 3)."""
    photo = read_photo(path, cover=cover)
    return fit(photo.image, photo.box)


def pixels(paths: list[Path], fit: Fit, cover: tuple[int, int] | None) -> Pixels:
    """All pictures, (N, H, W, 3)."""
    return np.stack([fitted(path, fit, cover) for path in paths])


def time_ratio(paths: list[Path], fit: Fit, cover: tuple[int, int], rounds: int) -> float:
    """How many times as long all pixels take."""
    seconds: dict[tuple[int, int] | None, list[float]] = {None: [], cover: []}
    for _ in range(rounds):
        for wanted, values in seconds.items():
            began = time.process_time()
            for path in paths:
                fitted(path, fit, wanted)
            values.append(time.process_time() - began)
    return statistics.median(seconds[None]) / statistics.median(seconds[cover])


def drift(full: Pixels, reduced: Pixels, model: Path) -> str:
    """What differs in the answers, for the table."""
    network, info = load_model(model)
    before, after = (probabilities(network, values, info.rgb_stats) for values in (full, reduced))
    off = (before - after).abs()
    best, now = before.argmax(1), after.argmax(1)
    lead = (before.gather(1, best[:, None]) - before.gather(1, now[:, None])).max()
    changed = int((best != now).sum())
    return f"{off.amax(1).mean():.4f}, {off.max():.4f} | {changed} ({lead:.3f})"


def probabilities(network: torch.nn.Module, values: Pixels, stats: RGBStats) -> torch.Tensor:
    transform = InferenceTransform(size=values.shape[1:3], mean=tuple(stats["mean"]), std=tuple(stats["std"]))
    images = torch.from_numpy(values).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return torch.cat([network(transform.normalize(batch)).softmax(1) for batch in images.split(16)])


if __name__ == "__main__":
    main()
