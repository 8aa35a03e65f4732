"""Recipes for your own photographs: as functions, so that each says what it is for and what it gave."""

from birder.objectives.configs import ClassificationConfig
from birder.training.recipe import Augment, Average, Optim, Recipe, Run, Schedule


def from_scratch(data: str, val: str | None = None) -> Recipe:
    """A small network from nothing but your pictures: some thousands of them, some dozens of each species.

    Command: ``birder train --data data/train --val data/val --network convnext_v2_atto --size 112 --epochs 30
    --optim.name muon --optim.lr 0.002 --schedule.warmup-epochs 2 --run.threads 1 --run.validate-every 2``
    Hardware and time: 41.5 minutes in one thread of a server's CPU, for 4,024 pictures.
    Measured: 55 % of 989 pictures of 100 species right, 2026-11-21 (docs/benchmarks.md says how far to trust it).
    """
    return Recipe(
        data=data,
        val=val,
        network="convnext_v2_atto",
        size=(112, 112),
        epochs=30,
        optim=Optim(name="muon", lr=2e-3),
        schedule=Schedule(warmup_epochs=2.0),
        run=Run(threads=1, validate_every=2),
    )


def linear_probe(data: str, start: str, val: str | None = None) -> Recipe:
    """Only a new classifier on a trained network: minutes, and a first answer to whether the network suits.

    Command: ``birder train --data data/train --val data/val --start MODEL --freeze network --epochs 10
    --optim.lr 0.002 --optim.weight-decay 0 --augment.policy none``
    Hardware: any computer. Measured: not yet, as no published weights were at hand.
    """
    return Recipe(
        data=data,
        val=val,
        start=start,
        freeze="network",
        epochs=10,
        augment=Augment(policy="none"),
        optim=Optim(lr=2e-3, weight_decay=0.0),
        schedule=Schedule(warmup_epochs=1.0),
    )


def fine_tune(data: str, start: str, val: str | None = None) -> Recipe:
    """A trained network to the species of a region, all of it, the first blocks more slowly than the last.

    Command: ``birder train --recipe`` with what ``write_recipe`` made of this function.
    Hardware: a GPU for a network of tens of millions of parameters. Measured: not yet, as no published weights were at
    hand; rates and decay are those of the published recipes for ConvNeXt v2.
    """
    return Recipe(
        data=data,
        val=val,
        start=start,
        epochs=50,
        batch_size=128,
        objective=ClassificationConfig(mixup=0.8, cutmix=1.0),
        augment=Augment(policy="birder", level=8),
        optim=Optim(lr=1e-4, layer_decay=0.9, weight_decay=0.05),
        schedule=Schedule(warmup_epochs=5.0, final_lr=1e-3),
        average=Average(decay=0.9998, warmup_epochs=5.0),
    )
