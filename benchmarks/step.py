"""Where the time of a training step goes.

python benchmarks/step.py [--network convnext_v2_atto] [--size 112] [--batch-size 32] [--threads 2] [--profile]

Prints images/s for float32 and bfloat16 with each optimiser, and the share of the latter, in turns in one run, so that
the ratios mean something on a noisy machine; the best of the rounds counts. With --profile, the operations of a step by
their time.
"""

import argparse
import time

import torch

from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.training.engine import Engine
from birder.training.recipe import Optim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="convnext_v2_atto")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch_size, 3, options.size, options.size, generator=generator)
    batch = Batch(images=images, labels=torch.randint(100, (options.batch_size,), generator=generator))

    engines = {
        (optimizer, dtype): engine_for(options.network, optimizer, dtype)
        for optimizer in ("adamw", "muon")
        for dtype in (torch.float32, torch.bfloat16)
    }
    best = {}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            whole, moving = timed_step(engine, batch)
            best[name] = min(best.get(name, (1e9, 1e9)), (whole, moving))
    print(f"{options.network}, {options.size} px, batches of {options.batch_size}, {options.threads} threads")
    for (optimizer, dtype), (whole, moving) in best.items():
        speed, share = options.batch_size / whole, moving / whole
        print(f"{optimizer:6} {dtype!s:15} {speed:6.1f} images/s, {share:4.0%} of it the optimiser")
    if options.profile:
        engine = engines["adamw", torch.bfloat16]
        with torch.profiler.profile() as profile:
            engine.train_step(batch)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


def engine_for(network: str, optimizer: str, dtype: torch.dtype) -> Engine:
    objective = Classification(create_network(network, 100), ClassificationConfig())
    return Engine(objective, Optim(name=optimizer), steps=10_000, warmup=100, final_lr=0.0, dtype=dtype)


def timed_step(engine: Engine, batch: Batch) -> tuple[float, float]:
    """Seconds of a step, and of the optimisers in it."""
    began = time.perf_counter()
    engine.train_step(batch)
    whole = time.perf_counter() - began
    began = time.perf_counter()
    for optimizer in engine.optimizers:
        optimizer.step()
    return whole, time.perf_counter() - began


if __name__ == "__main__":
    main()
