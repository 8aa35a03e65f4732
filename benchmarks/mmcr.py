"""MMCR: a step against one written by hand, in time and in memory.

python benchmarks/mmcr.py [--network pvt_v2_b2] [--size 224] [--batch-size 8] [--device cpu] [--dtype float32]
    [--threads 1] [--rounds 6]

Both move the same network, forward, backward and the second network's following, in turns in one process; times are
medians per picture, the ratio is the median over the rounds. ``by hand`` is the plain way to write the paper down: each
view by itself through both networks, their projections side by side, singular values, and the moving average weight by
weight. Memory is what a process of its own has needed at most, beyond what it had before the first step.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.configs import MMCRConfig
from birder.objectives.mmcr import MMCR

WIDTHS = (8192, 8192, 512)
Step = Callable[[Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="pvt_v2_b2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    print(f"{options.network}, {options.size} px, {options.batch_size} pictures, {options.device}, {options.dtype}")
    for which in ("step", "by hand"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"{which:8} {pool.apply(memory_of, (which, options)):6.0f} MiB")
    steps = {which: build(which, options) for which in ("step", "by hand")}
    images = pictures(options)
    seconds: dict[str, list[float]] = {which: [] for which in steps}
    for number in range(options.rounds + 1):  # the first warms up
        for which in sorted(steps, reverse=number % 2 == 1):  # who comes first takes turns
            began = time.perf_counter()
            steps[which](images)
            if number:
                seconds[which].append(time.perf_counter() - began)
    for which, times in seconds.items():
        print(f"{which:8} {1000 * statistics.median(times) / len(images):8.1f} ms per picture")
    ratio = statistics.median(b / s for s, b in zip(seconds["step"], seconds["by hand"], strict=True))
    print(f"by hand / step: {ratio:.2f}")


def memory_of(which: str, options: argparse.Namespace) -> float:
    """Peak memory of two steps, in MiB, beyond that of the networks; of the device on a GPU."""
    step, images = build(which, options), pictures(options)
    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        step(images)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(images)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def pictures(options: argparse.Namespace) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 2, 3, options.size, options.size)
    return torch.randn(shape, generator=generator).to(options.device)


def build(which: str, options: argparse.Namespace) -> Step:
    """One of the two, as a function of views (B, 2, C, H, W)."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = create_network(options.network, 0, size=(options.size, options.size)).to(options.device)
    dtype = getattr(torch, options.dtype)
    ours = MMCR(network, MMCRConfig(projector=WIDTHS)).to(options.device).train() if which == "step" else None
    plain = PlainMMCR(network).to(options.device).train() if ours is None else None

    def step(views: Tensor) -> None:
        with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            if ours is not None:
                labels = torch.zeros(len(views), dtype=torch.int64)
                loss = ours(Batch(images=views, labels=labels), 0.0)["loss"]
            else:
                assert plain is not None
                loss = plain(views)
        loss.backward()
        if ours is not None:
            ours.zero_grad()
            ours.after_step(0.0)
        else:
            assert plain is not None
            plain.zero_grad()
            plain.follow()

    return step


class PlainMMCR(nn.Module):
    """The paper's method with a network that follows, as one would write it down."""

    def __init__(self, network: nn.Module) -> None:
        """With the projector of the paper."""
        super().__init__()
        size, layers = int(network.embedding_size), []
        for width in WIDTHS[:-1]:
            layers += [nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            size = width
        self.student = nn.ModuleList([network, nn.Sequential(*layers, nn.Linear(size, WIDTHS[-1], bias=False))])
        self.teacher = deepcopy(self.student)
        for parameter in self.teacher.parameters():
            parameter.requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """The loss."""
        rows = []
        for view in views.unbind(1):
            for network, head in (self.student, self.teacher):
                rows.append(F.normalize(head(network(view)).float(), dim=1))
        centroids = torch.stack(rows).mean(dim=0)
        return -torch.linalg.svd(centroids, full_matrices=False).S.sum()

    def follow(self) -> None:
        """Move the second network."""
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.copy_(0.99 * mine + 0.01 * other)


if __name__ == "__main__":
    main()
