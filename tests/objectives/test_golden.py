"""Twenty steps of every objective, float32, one thread: a change of the code must not change the losses.

The defaults of classification are recorded in ``tests/training/test_engine.py``, with the engine.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from birder.networks import networks
from birder.networks.convnext_v2 import ConvNeXtV2
from birder.objectives.base import Batch
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.objectives.methods import create_objective, objectives
from birder.objectives.teacher import Teacher
from birder.signature import rgb_stats
from birder.testing import check_objective, small_network

CONFIGS = {
    "classification_bce": ClassificationConfig(loss="bce", bce_threshold=0.2, bce_sum=True, mixup=0.5, cutmix=1.0),
    "classification_weights": ClassificationConfig(class_weights="effective", effective_beta=0.9, mixup=0.5),
    "classification_logit_adjustment": ClassificationConfig(logit_adjustment=1.0),
    "distillation_soft": DistillationConfig(teacher="a file", mixup=0.5),
    "distillation_hard": DistillationConfig(teacher="a file", kind="hard"),
    "distillation_deit": DistillationConfig(teacher="a file", kind="deit"),
    "distillation_embedding": DistillationConfig(teacher="a file", kind="embedding", weight=0.8),
}


class TwoHeads(ConvNeXtV2):
    """Has a second classifier for the teacher's opinion."""

    def reset_classifier(self, num_classes: int) -> None:
        super().reset_classifier(num_classes)
        self.distillation_classifier = nn.Linear(self.embedding_size, num_classes)

    def classify_twice(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embedding(x)
        return self.classifier(embedding), self.distillation_classifier(embedding)

    def classify(self, embedding: Tensor) -> Tensor:
        return (self.classifier(embedding) + self.distillation_classifier(embedding)) / 2


def network(*, heads=1, wide=False):
    cls = networks["convnext_v2_atto"][0] if heads == 1 else TwoHeads
    small = small_network(4)
    config = small.config
    if wide:
        config = type(config)(in_channels=(8, 8, 16, 32), num_layers=(1, 1, 1, 1))
    return cls(config, num_classes=4, size=(32, 32))


def with_numbers(module, seed):
    """Weights of numpy's generator, as torch's versions do not start weights from the same numbers."""
    generator = np.random.default_rng(seed)
    for parameter in module.parameters():
        start = 1.0 if parameter.dim() == 1 else 0.0
        parameter.data = torch.from_numpy(start + 0.05 * generator.standard_normal(parameter.shape, np.float32))
    return module


def objective_for(config):
    kind = getattr(config, "kind", None)
    teacher = with_numbers(network(wide=kind == "embedding"), seed=6)
    teacher.adjust_size((64, 32))
    objective = create_objective(
        config,
        network(heads=2 if kind == "deit" else 1),
        class_counts=[50, 20, 5, 0],
        class_to_idx={"a": 0, "b": 1, "c": 2, "d": 3},
        rgb_stats=rgb_stats("imagenet"),
        teacher=Teacher(network=teacher, class_to_idx={"d": 0, "c": 1, "b": 2, "a": 3}, rgb_stats=rgb_stats("birder")),
    )
    return with_numbers(objective, seed=5)


def a_batch(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 8)
    images = generator.standard_normal((8, 3, 32, 32), np.float32) + labels.reshape(-1, 1, 1, 1).astype(np.float32)
    return Batch(images=torch.from_numpy(images), labels=torch.from_numpy(labels))


def losses_of(config):
    objective = objective_for(config).train()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.02, momentum=0.9)
    torch.manual_seed(1)
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = objective(a_batch(step), step / 20)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(step / 20)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", CONFIGS)
def test_the_golden_losses_are_reproduced(name, root):
    recorded = [float(line) for line in (root / f"tests/golden/losses/{name}.txt").read_text().split()]
    assert len(recorded) == 20
    assert losses_of(CONFIGS[name]) == pytest.approx(recorded, rel=1e-5)


def test_every_objective_is_recorded(root):
    recorded = {path.stem for path in (root / "tests/golden/losses").glob("*.txt")}
    missing = [name for name in objectives if not any(f"{stem}_".startswith(f"{name}_") for stem in recorded)]
    assert not missing


def test_deit_keeps_the_promises_of_every_objective():
    check_objective(lambda: objective_for(CONFIGS["distillation_deit"]))
