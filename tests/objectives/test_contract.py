"""Every objective keeps the promises of ``birder.testing``, and each broken promise is noticed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from birder.errors import ConfigError, UnknownName
from birder.networks import create_network
from birder.objectives.base import Batch, Objective
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.objectives.distillation import Distillation
from birder.objectives.methods import objectives
from birder.objectives.teacher import Teacher, follow, frozen_copy
from birder.signature import rgb_stats
from birder.testing import OBJECTIVE_PROMISES, BrokenPromise, check_objective, small_network

# A registered name, and options.
CHECKED: list[tuple[str, dict[str, Any]]] = [
    ("classification", {}),
    ("classification", {"mixup": 0.2, "cutmix": 1.0, "mix_probability": 0.7}),
    ("classification", {"loss": "bce", "bce_threshold": 0.2, "class_weights": "inverse"}),
    ("classification", {"logit_adjustment": 1.0}),
    ("distillation", {"teacher": "a file", "kind": "soft", "mixup": 0.2}),
    ("distillation", {"teacher": "a file", "kind": "hard", "weight": 1.0}),
]


@pytest.mark.parametrize(("name", "options"), CHECKED)
def test_it_keeps_all_promises(name: str, options: dict[str, Any]) -> None:
    check_objective(name, **options)


def test_every_objective_is_checked(root: Path) -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (root / "tests/objectives").glob("test_*.py"))
    checked = set(re.findall(r"check_objective\(\s*\"(\w+)\"", tests)) | {name for name, _ in CHECKED}
    assert checked >= set(objectives)


def test_a_teacher_of_another_kind_and_size_keeps_them_too() -> None:
    size = {"size": (64, 32), "in_channels": (8, 8, 8, 8), "num_layers": (1, 1, 1, 1)}
    teacher = Teacher(
        network=create_network("convnext_v2_atto", 0, **size), class_to_idx={}, rgb_stats=rgb_stats("clip")
    )
    config = DistillationConfig(teacher="a file", kind="embedding", weight=0.9)

    def build() -> Objective:
        return Distillation(small_network(), config, teacher=teacher, class_to_idx={}, rgb_stats=rgb_stats("imagenet"))

    check_objective(build)


class MeanTeacher(Classification):
    """Agree with a moving average of oneself; what the next objectives look like."""

    def __init__(self) -> None:
        super().__init__(small_network(), ClassificationConfig())
        self.teacher_network = self.copy_of_network()

    def copy_of_network(self) -> nn.Module:
        return frozen_copy(self.network)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().forward(batch, progress)
        agreement = (self.network(batch.images) - self.teacher_network(batch.images)).square().mean()
        return losses | {"loss": losses["loss"] + agreement.float()}

    def after_step(self, progress: float) -> None:
        follow(self.teacher_network, self.network, 0.9)


def test_an_objective_with_a_teacher_in_its_state_keeps_them_too() -> None:
    check_objective(MeanTeacher)


def test_mistakes_in_the_arguments_are_the_caller_s() -> None:
    with pytest.raises(UnknownName, match="did you mean classification"):
        check_objective("clasification")
    with pytest.raises(ConfigError, match="goes only with loss bce"):
        check_objective("classification", bce_sum=True)


class Plain(Classification):
    def __init__(self) -> None:
        super().__init__(small_network(), ClassificationConfig())


class NoLoss(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"cross_entropy": super().forward(batch, progress)["loss"]}


class LossPerPicture(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": self.network(batch.images).square().mean(dim=1)}


class HiddenNetwork(Plain):
    def __init__(self) -> None:
        super().__init__()
        network = self.network
        del self.network
        object.__setattr__(self, "network", network)


class SpareWeight(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)


class DeafStem(Plain):
    """It may leave out what stands behind the blocks, and leaves out what stands in front of them."""

    reaches_all = False

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        for weight in self.network.get_submodule("stem").parameters():
            weight.requires_grad_(False)
        losses = super().forward(batch, progress)
        for weight in self.network.get_submodule("stem").parameters():
            weight.requires_grad_(True)
        return losses


class WildGradient(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().forward(batch, progress)
        bias = self.network.get_parameter("classifier.bias")
        return {"loss": losses["loss"] + (bias - bias.detach()).sqrt().sum()}


class TrainedTeacher(MeanTeacher):
    def copy_of_network(self) -> nn.Module:
        return super().copy_of_network().requires_grad_(True)


class HiddenTeacher(MeanTeacher):
    def __init__(self) -> None:
        super().__init__()
        teacher = self.teacher_network.requires_grad_(True)
        del self.teacher_network
        object.__setattr__(self, "teacher_network", teacher)


class Climbs(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, progress)["loss"].neg().exp().detach() + 10 * progress + self._zero()}

    def _zero(self) -> Tensor:
        return sum((weight.sum() for weight in self.parameters()), torch.zeros(())) * 0.0


class ForgetsTeacher(MeanTeacher):
    """It is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        teacher = self.teacher_network
        del self.teacher_network
        object.__setattr__(self, "teacher_network", teacher)


class CountsSteps(Plain):
    """In an attribute, which is no part of the state."""

    steps = 0

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": super().forward(batch, progress)["loss"] + 0.001 * self.steps}

    def after_step(self, progress: float) -> None:
        self.steps += 1


class SharedCopy(Plain):
    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedCopy":
        return self


class CoarseInHalf(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = super().forward(batch, progress)
        return {"loss": losses["loss"] * (2.0 if torch.is_autocast_enabled("cpu") else 1.0)}


class ComparesPictures(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"loss": (self.network(batch.images) * 10).var(dim=0).mean() + super().forward(batch, progress)["loss"]}


class OtherWhenCompiled(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        loss = super().forward(batch, progress)["loss"]
        return {"loss": loss * (2.0 if torch.compiler.is_compiling() else 1.0)}


class NeverEvaluates(Plain):
    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        noisy = Batch(images=batch.images + torch.randn_like(batch.images), labels=batch.labels)
        return super().forward(noisy, progress)


class StaysBehind(Plain):
    """A tensor that does not move along."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.eye(5)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = torch.mm(self.network(batch.images), self.matrix)
        return {"loss": self.labels(logits, self.labels.mixed(batch)[1])}


BROKEN: list[tuple[type[Objective], str]] = [
    (NoLoss, "gives finite losses: there is no loss among cross_entropy"),
    (LossPerPicture, "gives finite losses: loss is no finite number"),
    (HiddenNetwork, "gives finite losses: network is no part of it"),
    (SpareWeight, "reach all that is trained: none reaches head.weight, head.bias"),
    (DeafStem, r"reach all that is trained: none reaches network.stem\.[\w.]+, "),
    (WildGradient, "reach all that is trained: they are not finite at network.classifier.bias"),
    (TrainedTeacher, "reach nothing else: some reach teacher_network"),
    (HiddenTeacher, r"reach nothing else: some reach a tensor of shape .* that is no part of it"),
    (Climbs, "falls on a fixed batch: it goes from"),
    (ForgetsTeacher, "goes on from its state: the next losses are"),
    (CountsSteps, "goes on from its state: the next losses are"),
    (SharedCopy, "can be copied: the loss, after the copy was trained, is"),
    (CoarseInHalf, "close to float32: the loss in bfloat16 is"),
    (ComparesPictures, "learns from one picture: "),
    (NeverEvaluates, "the same each time: the loss is .*, and then"),
    (OtherWhenCompiled, "can be compiled: the loss of the compiled objective is"),
    (StaysBehind, "moved as a whole: RuntimeError"),
]


@pytest.mark.parametrize(("cls", "problem"), BROKEN, ids=[cls.__name__ for cls, _ in BROKEN])
@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
def test_a_broken_promise_is_noticed(cls: type[Objective], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for promise in list(OBJECTIVE_PROMISES):  # the others take time
        if not promise.endswith(problem.split(":")[0]):
            monkeypatch.delitem(OBJECTIVE_PROMISES, promise)
    with pytest.raises(BrokenPromise, match=f"^the objective: .*{problem}"):
        check_objective(cls)


def test_pictures_that_are_compared_need_not_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ComparesPictures, "compares", True)
    check_objective(ComparesPictures)


def test_every_promise_is_shown_to_break() -> None:
    ends = [problem.split(":")[0] for _, problem in BROKEN]
    assert not [promise for promise in OBJECTIVE_PROMISES if not any(promise.endswith(end) for end in ends)]
