"""Classification: the loss against closed forms, mixing, and learning."""

import math

import pytest
import torch
from torch import nn

from birder.objectives.base import Batch
from birder.objectives.classification import Classification, cutmix, mixup
from birder.objectives.configs import ClassificationConfig


class Fixed(nn.Module):
    """A network that gives the same logits for every picture."""

    def __init__(self, logits):
        super().__init__()
        self.num_classes = len(logits)
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def batch(labels, size=8):
    images = torch.stack([torch.full((3, size, size), float(number)) for number in range(len(labels))])
    return Batch(images=images, labels=torch.tensor(labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_cross_entropy_with_smoothed_targets(smoothing):
    logits = [2.0, 0.0, -1.0]
    log_probability = [value - math.log(sum(map(math.exp, logits))) for value in logits]
    target = [1 - smoothing + smoothing / 3, smoothing / 3, smoothing / 3]
    expected = -sum(share * value for share, value in zip(target, log_probability, strict=True))
    objective = Classification(Fixed(logits), ClassificationConfig(smoothing=smoothing))
    losses = objective(batch([0, 0]), progress=0.0)
    assert losses["loss"].item() == pytest.approx(expected, abs=1e-6)
    assert losses["accuracy"].item() == 1.0


def test_accuracy_counts_the_right_ones():
    objective = Classification(Fixed([0.0, 3.0, 0.0]), ClassificationConfig())
    assert objective(batch([1, 0, 1, 2]), progress=0.0)["accuracy"].item() == 0.5


def test_mixup_blends_pictures_and_targets_alike():
    images, targets = batch([0, 1, 2]).images, torch.eye(3)
    mixed, mixed_targets = mixup(images, targets, share=0.75)
    assert torch.allclose(mixed[:, 0, 0, 0], torch.tensor([0.5, 0.75, 1.75]))  # 0.75 * own + 0.25 * the one before
    assert torch.allclose(mixed_targets[0], torch.tensor([0.75, 0.0, 0.25]))


def test_cutmix_blends_targets_by_the_area_that_was_filled():
    images, targets = batch([0, 1, 2], size=16).images, torch.eye(3)
    areas = []
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, mixed_targets = cutmix(images, targets, share=0.5)
        filled = (mixed[1, 0] == 0.0).float().mean().item()
        assert mixed_targets[1].tolist() == pytest.approx([filled, 1 - filled, 0.0], abs=1e-6)
        assert set(mixed[1].unique().tolist()) <= {0.0, 1.0}
        areas.append(filled)
    assert max(areas) == pytest.approx(100 / 256)  # a side of int(16 * sqrt(0.5)) // 2 * 2 pixels
    assert min(areas) < max(areas)
    assert torch.equal(images[1], torch.full((3, 16, 16), 1.0)), "the batch itself is not changed"


def test_pictures_are_mixed_in_training_only_and_as_often_as_asked():
    def mixed(training, probability):
        objective = Classification(Fixed([0.0, 1.0]), ClassificationConfig(mixup=1.0, mix_probability=probability))
        objective.train(training)
        images = [objective._mixed(batch([0, 1]).images, torch.eye(2))[0] for _ in range(200)]
        return sum(not torch.equal(image, batch([0, 1]).images) for image in images) / 200

    assert mixed(True, 0.3) == pytest.approx(0.3, abs=0.12)
    objective = Classification(Fixed([0.0, 1.0]), ClassificationConfig(mixup=1.0)).eval()
    first, second = (objective(batch([0, 1]), progress=0.0)["loss"] for _ in range(2))
    assert first == second


def test_gradients_reach_the_network():
    objective = Classification(Fixed([0.0, 0.0]), ClassificationConfig(smoothing=0.0))
    objective(batch([1, 1]), progress=0.0)["loss"].backward()
    assert objective.network.logits.grad.tolist() == pytest.approx([0.5, -0.5])
