"""DINO: the loss from first principles, and twenty recorded steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birder.objectives.base import Batch
from birder.objectives.configs import DINOConfig
from birder.objectives.dino import DINO
from birder.testing import check_objective, labelled_pictures, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses

HEAD: dict[str, Any] = {"prototypes": 24, "hidden": 32, "bottleneck": 8, "small_views": 2, "hold_last": 0.0}


# The centre moves the teacher's answers, so that the loss of a few steps rises where it moves fast.
@pytest.mark.parametrize(
    ("network", "options"),
    [
        (small_vit, {"small_size": 16, "center_momentum": 0.99}),
        (None, {"small_size": 32, "head_batch_norm": True}),
    ],
)
def test_it_keeps_all_promises(network: Any, options: dict[str, Any]) -> None:
    check_objective("dino", network=network, **(HEAD | options))


@pytest.mark.parametrize("small_views", [0, 3])
def test_the_loss_is_that_of_the_paper(small_views: int) -> None:
    """Each crop by itself through network and head, and a loop over all pairs of crops, in numpy."""
    torch.manual_seed(1)
    config = DINOConfig(
        **(HEAD | {"small_views": small_views, "small_size": 16}),
        teacher_temperature=(0.05, 0.09),
        temperature_warmup=0.5,
        student_temperature=0.2,
    )
    objective = DINO(small_vit(), config).double().train()
    torch.nn.init.normal_(objective.teacher_head.mlp[0].weight)  # the teacher is another than the student
    torch.nn.init.normal_(objective.center.value, std=0.1)
    center = objective.center.value.numpy().copy()
    batch = labelled_pictures(objective.network, config.views)
    large, small = batch.images.double(), None if batch.small is None else batch.small.double()
    losses = objective(Batch(images=large, small=small, labels=batch.labels), 0.25)

    def logits(network: Any, head: Any, crops: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            x = torch.nn.functional.normalize(head.mlp(network.embedding(crops)))
            directions = head.last[0].get_parameter("parametrizations.weight.original1")
            return (x @ (directions / directions.norm(dim=1, keepdim=True)).T).numpy()

    crops = [*large.unbind(1), *(small.unbind(1) if small is not None else ())]
    told = [logits(objective.network, objective.head, crop) / 0.2 for crop in crops]
    seen = [logits(objective.teacher_network, objective.teacher_head, crop) for crop in crops[:2]]
    total, uncertain = [], []
    for number, teacher in enumerate(seen):
        target = np.exp((teacher - center) / 0.07)
        target /= target.sum(axis=1, keepdims=True)
        uncertain.append(-(target * np.log(target)).sum(axis=1).mean())
        for other, student in enumerate(told):
            if other != number:
                answer = student - np.log(np.exp(student).sum(axis=1, keepdims=True))
                total.append(-(target * answer).sum(axis=1).mean())
    assert losses["loss"].item() == pytest.approx(np.mean(total), rel=1e-6)
    assert losses["teacher_entropy"].item() == pytest.approx(np.mean(uncertain), rel=1e-6)
    assert losses["divergence"].item() == pytest.approx(np.mean(total) - np.mean(uncertain), rel=1e-5)

    objective.after_step(0.25)
    expected = 0.9 * center + 0.1 * np.concatenate(seen).mean(axis=0)
    assert objective.center.value.numpy() == pytest.approx(expected, abs=1e-7)


def test_the_loss_of_parts_is_that_of_the_whole() -> None:
    torch.manual_seed(1)
    objective = DINO(small_vit(), DINOConfig(**HEAD, small_size=16))
    batch = labelled_pictures(objective.network, objective.config.views)
    assert batch.small is not None
    whole = objective(batch, 0.0)["loss"].item()
    parts = [
        objective(Batch(images=batch.images[some], small=batch.small[some], labels=batch.labels[some]), 0.0)["loss"]
        for some in (slice(0, 3), slice(3, 8))
    ]
    assert (3 * parts[0].item() + 5 * parts[1].item()) / 8 == pytest.approx(whole, rel=1e-6)


def test_the_recorded_losses_are_reproduced(root: Path) -> None:
    options = {"small_size": 32, "hold_last": 0.2, "teacher_temperature": (0.04, 0.07), "momentum": (0.9, 1.0)}
    expect_recorded_losses(root, "dino", DINO(small_network(0), DINOConfig(**(HEAD | options))))
