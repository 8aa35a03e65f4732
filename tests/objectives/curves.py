"""Loss curves of objectives that learn without labels: twenty steps from weights and pictures that do not change.

In double precision: what processors round differently in single precision, twenty steps can make as large as the loss.
"""

import numpy as np
import pytest
import torch
from torch import nn

from birder.objectives.base import Batch

STEPS = 20


def with_numbers(module: nn.Module, seed: int) -> nn.Module:
    """Weights that learn, of numpy's generator, as torch's versions do not start from the same; teachers' too."""
    generator = np.random.default_rng(seed)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            start = float(parameter.dim() == 1 and name.endswith("weight"))
            parameter.data = torch.from_numpy(start + 0.1 * generator.standard_normal(parameter.shape, np.float32))
    for name, parameter in module.named_parameters():
        if name.startswith("teacher_"):
            parameter.data.copy_(module.get_parameter(name.removeprefix("teacher_")))
    return module


def losses_of(objective, lr=0.02):
    """Twenty steps of a simple optimiser."""
    with_numbers(objective, seed=5).double().train()
    optimizer = torch.optim.SGD([each for each in objective.parameters() if each.requires_grad], lr=lr, momentum=0.9)
    generator = np.random.default_rng(6)
    torch.manual_seed(1)
    losses = []
    for step in range(STEPS):
        batch = _batch(generator, objective.config.views, objective.network.size)
        optimizer.zero_grad()
        loss = objective(batch, step / STEPS)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(step / STEPS)
        losses.append(loss.item())
    return losses


def _batch(generator, views, size):
    def noise(*shape):
        return torch.from_numpy(generator.standard_normal((4, *shape), np.float32)).double()

    return Batch(
        images=noise(*([views.large] if views.large > 1 else []), 3, *size),
        small=noise(views.small, 3, views.small_size, views.small_size) if views.small else None,
        labels=torch.zeros(4, dtype=torch.int64),
    )


def expect_recorded_losses(root, name, objective, lr=0.02):
    """The losses are those of the file of that name."""
    lines = (root / f"tests/golden/losses/{name}.txt").read_text().split()
    assert len(lines) == STEPS
    assert losses_of(objective, lr) == pytest.approx([float(line) for line in lines], rel=1e-5)
