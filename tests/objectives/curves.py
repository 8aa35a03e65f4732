"""Loss curves of objectives that learn without labels: twenty steps from weights and pictures that do not change."""

import numpy as np
import pytest
import torch
from torch import nn

from birder.objectives.base import Batch

STEPS = 20


def with_numbers(module: nn.Module, seed: int) -> nn.Module:
    """Weights of numpy's generator, as torch's versions do not start weights from the same numbers; teachers' too."""
    generator = np.random.default_rng(seed)
    for name, parameter in module.named_parameters():
        if not name.startswith("teacher"):
            start = float(parameter.dim() == 1 and name.endswith("weight"))
            parameter.data = torch.from_numpy(start + 0.1 * generator.standard_normal(parameter.shape, np.float32))
    for name, parameter in module.named_parameters():
        if name.startswith("teacher_"):
            parameter.data.copy_(module.get_parameter(name.removeprefix("teacher_")))
    return module


def losses_of(objective):
    """Twenty steps of a simple optimiser."""
    with_numbers(objective, seed=5).train()
    optimizer = torch.optim.SGD([each for each in objective.parameters() if each.requires_grad], lr=0.02, momentum=0.9)
    generator = np.random.default_rng(6)
    torch.manual_seed(1)
    views = [large] if (large := objective.config.views.large) > 1 else []
    losses = []
    for step in range(STEPS):
        images = generator.standard_normal((4, *views, 3, *objective.network.size), np.float32)
        optimizer.zero_grad()
        batch = Batch(images=torch.from_numpy(images), labels=torch.zeros(4, dtype=torch.int64))
        loss = objective(batch, step / STEPS)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(step / STEPS)
        losses.append(loss.item())
    return losses


def expect_recorded_losses(root, name, objective):
    """The losses are those of the file of that name."""
    lines = (root / f"tests/golden/losses/{name}.txt").read_text().split()
    assert len(lines) == STEPS
    assert losses_of(objective) == pytest.approx([float(line) for line in lines], rel=1e-5)
