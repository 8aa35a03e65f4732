"""What pretraining is worth on photographs: embeddings before and after, and fine-tuning at equal compute.

python benchmarks/pretraining.py --data TRAIN --val VAL --out FOLDER [--methods mae mmcr …] [--minutes 60] [--size 64]
    [--threads 1]

For each method a small network learns from the pictures of TRAIN without their labels for three quarters of the
minutes, and is then fine-tuned with labels for the rest; the same network from nothing is trained with labels for all
of the minutes. Epochs are chosen from the measured speed of some steps, and kept. Each line gives nearest neighbours
and linear probe on VAL before and after the pretraining, and the share of VAL that is named right after fine-tuning and
from nothing, at the last epoch. What was stopped goes on.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from birder.data.samples import read_samples
from birder.evaluation.probe import Probe, probe
from birder.files import write_text
from birder.model_file import load_model
from birder.networks import Network, create_network
from birder.objectives import configs
from birder.objectives.base import Batch
from birder.objectives.configs import ClassificationConfig, ObjectiveConfig
from birder.objectives.methods import create_objective
from birder.signature import rgb_stats
from birder.training.engine import Engine
from birder.training.fit import fit
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule

VIT = {"num_layers": 6, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 512, "patch_size": 8, "class_token": False}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_t16", {**VIT, "drop_path_rate": 0.0}),
    "convnext": ("convnext_v2_atto", {"in_channels": (32, 64, 128, 256), "num_layers": (2, 2, 4, 2)}),
    "pvt": ("pvt_v2_b0", {"drop_path_rate": 0.0}),
}
_HEAD = (512, 512, 128)
_SMALL = {"prototypes": 1024, "hidden": 512, "bottleneck": 64, "small_views": 4, "small_size": 32}
METHODS: dict[str, tuple[str, ObjectiveConfig]] = {
    "mae": ("vit", configs.MAEConfig(decoder_depth=2, decoder_width=96)),
    "data2vec": ("vit", configs.Data2VecConfig(min_masked=8, momentum=(0.99, 0.9998))),
    "data2vec2": (
        "vit",
        configs.Data2Vec2Config(
            decoder_depth=3, decoder_width=128, num_masks=4, top_layers=6, momentum=(0.996, 0.9999)
        ),
    ),
    "i_jepa": ("vit", configs.IJEPAConfig(predictor_depth=3, predictor_width=96, predictor_heads=4)),
    "fcmae": ("convnext", configs.FCMAEConfig(decoder_width=128)),
    "simmim": ("convnext", configs.SimMIMConfig()),
    "mmcr": ("pvt", configs.MMCRConfig(projector=_HEAD)),
    "simclr": ("convnext", configs.SimCLRConfig()),
    "byol": ("convnext", configs.BYOLConfig(hidden=512)),
    "barlow_twins": ("convnext", configs.BarlowTwinsConfig(projector=_HEAD)),
    "vicreg": ("convnext", configs.VICRegConfig(projector=_HEAD)),
    "dino": ("vit", configs.DINOConfig(**_SMALL)),
    "ibot": ("vit", configs.IBOTConfig(**_SMALL, patch_prototypes=1024)),
    "rotation": ("convnext", configs.RotationConfig()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for method in options.methods:
        line = measured(method, options)
        print(f"{method:12} " + "  ".join(f"{name} {value}" for name, value in line.items()), flush=True)


def measured(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    which, objective = METHODS[method]
    name, network_options = NETWORKS[which]
    common = Recipe(
        data=options.data,
        val=options.val,
        network=name,
        network_options=network_options,
        size=(options.size, options.size),
        batch_size=64,
        run=Run(device="cpu", dtype="float32", threads=options.threads, validate_every=10**6, save_minutes=5.0),
    )
    level = Augment(policy="birder", level=3) if objective.views.large > 1 else Augment()
    optim = Optim(lr=1e-3, beta2=0.95, momentum=0.9)
    unlabelled = replace(common, objective=objective, augment=level, optim=optim)
    labelled = replace(common, optim=Optim(lr=1e-3), objective=ClassificationConfig(), augment=Augment())
    before = create_network(name, 0, size=(options.size, options.size), **network_options).eval()
    line: dict[str, Any] = {"network": which} | judged("before", before, options)

    pretrained = fit(timed(unlabelled, 0.75, options, options.out / f"{method}.json"), options.out / method)
    after, _ = load_model(pretrained.model)
    line |= {"epochs": epochs_of(options.out / method)} | judged("after", after, options)
    short = timed(labelled, 0.25, options, options.out / f"{which}-short.json")
    tuned = fit(replace(short, start=str(pretrained.model)), options.out / f"{method}-tuned")
    nothing = fit(timed(labelled, 1.0, options, options.out / f"{which}-long.json"), options.out / f"{which}-scratch")
    for what, fitted in (("tuned", tuned), ("from nothing", nothing)):
        line[what] = f"{last_top1(fitted.folder):.1%}"
    return line


def judged(when: str, network: Network, options: argparse.Namespace) -> dict[str, str]:
    """Nearest neighbours and linear probe."""
    training = read_samples(options.data)
    validation = read_samples(options.val, training.class_to_idx)
    result: Probe = probe(network, rgb_stats("imagenet"), training, validation, shots=(1,), workers=1)
    return {f"knn {when}": f"{result.knn.value:.1%}", f"linear {when}": f"{result.linear.value:.1%}"}


def timed(recipe: Recipe, share: float, options: argparse.Namespace, plan: Path) -> Recipe:
    """The recipe with as many epochs as fit into a share of the minutes; decided once."""
    if not plan.exists():
        seconds = 60 * options.minutes * share
        pictures = len(read_samples(options.data))
        epochs = max(1, round(seconds / (seconds_per_picture(recipe) * pictures)))
        plan.parent.mkdir(parents=True, exist_ok=True)
        write_text(plan, json.dumps({"epochs": epochs}))
    epochs = json.loads(plan.read_text())["epochs"]
    return replace(recipe, epochs=epochs, schedule=Schedule(warmup_epochs=epochs / 10))


def seconds_per_picture(recipe: Recipe, steps: int = 6) -> float:
    """Of the network's work alone, which reading goes on beside; processor time, as other work does not count."""
    classes = 100 if recipe.objective.labelled else 0
    network = create_network(recipe.network or "", classes, size=recipe.size, **recipe.network_options)
    engine = Engine(create_objective(recipe.objective, network).train(), recipe, steps_per_epoch=1000)
    views, (height, width) = recipe.objective.views, recipe.size or (64, 64)
    large = torch.randn(recipe.batch_size, views.large, 3, height, width)
    small = torch.randn(recipe.batch_size, views.small, 3, views.small_size, views.small_size) if views.small else None
    labels = torch.zeros(recipe.batch_size, dtype=torch.int64)
    batch = Batch(images=large if views.large > 1 else large[:, 0], labels=labels, small=small)
    engine.train_step([batch])
    began = time.process_time()
    for _ in range(steps):
        engine.train_step([batch])
    return (time.process_time() - began) / (recipe.run.threads * steps * recipe.batch_size)


def epochs_of(folder: Path) -> int:
    return sum(entry["kind"] == "epoch" for entry in entries(folder))


def last_top1(folder: Path) -> float:
    value: float = [entry for entry in entries(folder) if entry["kind"] == "epoch"][-1]["val_top1"]
    return value


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
