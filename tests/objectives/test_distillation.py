"""Distillation: the losses against closed forms, and a teacher that sees what it should and stays as it is."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from birder.data.transforms import classification_transform
from birder.errors import ConfigError
from birder.networks import create_network
from birder.networks.base import Network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.objectives.distillation import Distillation, embedding_loss, hard_loss, soft_loss
from birder.objectives.teacher import Teacher
from birder.signature import rgb_stats
from birder.testing import labelled_pictures, small_network

CLASSES = {"wren": 0, "robin": 1, "dunnock": 2}


class Table(Network):
    """Gives fixed logits and a fixed embedding, and remembers the pictures."""

    def __init__(self, logits, embedding=(1.0, 0.0), size=(32, 32), channels=3):
        super().__init__(None, num_classes=len(logits), size=size, input_channels=channels)
        self.logits = nn.Parameter(torch.tensor(logits))
        self.vector = nn.Parameter(torch.tensor(embedding))
        self.embedding_size = len(embedding)
        self.seen = None

    def embedding(self, x):
        self.seen = x
        return self.vector.expand(len(x), -1)

    def classify(self, embedding):
        return self.logits.expand(len(embedding), -1)


class TwoTables(Table):
    def classify_twice(self, x):
        return self(x), 2.0 * self(x)


def teacher_of(network, classes=CLASSES, stats="imagenet"):
    return Teacher(network=network, class_to_idx=classes, rgb_stats=rgb_stats(stats))


def distillation(network, teacher, classes=CLASSES, stats="imagenet", **options):
    return Distillation(
        network,
        DistillationConfig(teacher="a file", **options),
        teacher=teacher,
        class_to_idx=classes,
        rgb_stats=rgb_stats(stats),
    )


def batch(labels, size=(32, 32)):
    generator = torch.Generator().manual_seed(0)
    return Batch(images=torch.rand(len(labels), 3, *size, generator=generator), labels=torch.tensor(labels))


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


STUDENT, TEACHER = [0.5, -1.0, 2.0], [1.0, 3.0, -2.0]


def as_rows(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_soft_is_the_divergence_of_softened_probabilities():
    temperature = 4.0
    expected = 0.0
    for student, teacher in ((STUDENT, TEACHER), (TEACHER, [0.0, 0.0, 0.0])):
        p, q = (softmax([value / temperature for value in row]) for row in (teacher, student))
        expected += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    loss = soft_loss(as_rows(STUDENT, TEACHER), as_rows(TEACHER, [0.0, 0.0, 0.0]), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_soft_at_a_high_temperature_matches_logits():
    """Its gradient tends to the difference of the centred logits, over N (Hinton et al., section 2.1, equation 4)."""
    student = as_rows([0.5, -1.0, 0.5]).requires_grad_()
    teacher = as_rows([1.0, -2.0, 1.0])
    soft_loss(student, teacher, 1e4).backward()
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, rtol=1e-3)


def test_hard_takes_the_first_choice_of_the_teacher_as_the_label():
    expected = -(math.log(softmax(STUDENT)[1]) + math.log(softmax(TEACHER)[2])) / 2
    loss = hard_loss(as_rows(STUDENT, TEACHER), as_rows(TEACHER, STUDENT))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_embedding_is_one_minus_the_cosine():
    first, second = as_rows([3.0, 4.0], [1.0, 0.0]), as_rows([4.0, 3.0], [0.0, 7.0])
    assert embedding_loss(first, second).item() == pytest.approx(1 - (24 / 25 + 0) / 2, rel=1e-12)
    assert embedding_loss(first, 5.0 * second).item() == pytest.approx(embedding_loss(first, second).item(), rel=1e-12)


def test_each_kind_has_its_share_in_the_loss():
    student = {"soft": STUDENT, "hard": STUDENT, "deit": [2.0 * value for value in STUDENT]}
    expected = {
        "soft": soft_loss(as_rows(student["soft"]), as_rows(TEACHER), 2.0).item(),
        "hard": hard_loss(as_rows(student["hard"]), as_rows(TEACHER)).item(),
        "deit": hard_loss(as_rows(student["deit"]), as_rows(TEACHER)).item(),
        "embedding": embedding_loss(as_rows([3.0, 4.0]), as_rows([4.0, 3.0])).item(),
    }
    labels = Classification(Table(STUDENT), ClassificationConfig())(batch([2, 0]), 0.0)
    for kind, value in expected.items():
        options = {"temperature": 2.0} if kind == "soft" else {}
        teacher = teacher_of(Table(TEACHER, [4.0, 3.0]))
        objective = distillation(TwoTables(STUDENT, [3.0, 4.0]), teacher, kind=kind, weight=0.3, **options)
        losses = objective(batch([2, 0]), 0.0)
        assert losses["teacher_loss"].item() == pytest.approx(value, rel=1e-5), kind
        assert torch.equal(losses["label_loss"], labels["loss"])
        assert torch.equal(losses["accuracy"], labels["accuracy"])
        share = 0.7 * losses["label_loss"].item() + 0.3 * losses["teacher_loss"].item()
        assert losses["loss"].item() == pytest.approx(share, rel=1e-6)


def test_labels_are_learned_as_in_classification():
    options = {"loss": "bce", "class_weights": "inverse", "smoothing": 0.2, "cutmix": 1.0}
    plain = Classification(Table(STUDENT), ClassificationConfig(**options), class_counts=[5, 3, 1])
    distilled = Distillation(
        Table(STUDENT),
        DistillationConfig(teacher="a file", **options),
        teacher=teacher_of(Table(TEACHER)),
        class_to_idx=CLASSES,
        rgb_stats=rgb_stats("imagenet"),
        class_counts=[5, 3, 1],
    )
    losses = []
    for objective, name in ((plain, "loss"), (distilled, "label_loss")):
        torch.manual_seed(3)
        losses.append(objective(batch([2, 0, 1]), 0.0)[name])
    assert torch.equal(*losses)


def test_the_teacher_sees_the_mixed_pictures():
    student, teacher = Table(STUDENT), Table(TEACHER)
    objective = distillation(student, teacher_of(teacher), mixup=1.0)
    objective(batch([0, 1]), 0.0)
    assert torch.equal(teacher.seen, student.seen)
    assert not torch.equal(student.seen, batch([0, 1]).images)


def photograph(size):
    """Smooth colours with some noise, neither black nor white, uint8 (3, H, W)."""
    generator = torch.Generator().manual_seed(4)
    coarse = F.interpolate(torch.rand(1, 3, 5, 5, generator=generator), size=size, mode="bicubic")[0]
    return (30 + 160 * coarse.clamp(0, 1) + 40 * torch.rand(3, *size, generator=generator)).to(torch.uint8)


def shown_to_teacher(pixels, size, stats):
    """What a teacher of that size and with those statistics gets of a student with its own."""
    teacher = Table(TEACHER, size=size)
    objective = distillation(Table(STUDENT), teacher_of(teacher, stats=stats), stats="birder")
    own = classification_transform(tuple(pixels.shape[1:]), rgb_stats("birder"))
    objective(Batch(images=own.normalize(pixels[None]), labels=torch.tensor([0])), 0.0)
    return teacher.seen[0]


def test_other_colours_are_those_of_the_teacher_s_own_transform():
    pixels = photograph((48, 64))
    expected = classification_transform((48, 64), rgb_stats("clip")).normalize(pixels)
    assert torch.allclose(shown_to_teacher(pixels, (48, 64), "clip"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(32, 40), (96, 80), (48, 32)])
@pytest.mark.parametrize("stats", ["birder", "clip"])
def test_another_size_is_that_of_the_teacher_s_own_transform(size, stats):
    """But for the rounding to bytes that Pillow does after each of its two passes."""
    pixels = photograph((48, 64))
    expected = classification_transform(size, rgb_stats(stats))(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    shown = shown_to_teacher(pixels, size, stats)
    std = torch.tensor(rgb_stats(stats)["std"]).view(3, 1, 1)
    difference = ((shown - expected) * std * 255).abs()  # in levels of 0 to 255
    assert difference.max() < 1.3
    assert difference.mean() < 0.5


def test_pictures_that_fit_are_passed_on_as_they_are():
    objective = distillation(Table(STUDENT), teacher_of(Table(TEACHER)))
    images = batch([0]).images
    assert objective.for_teacher(images) is images


def test_overshoot_is_cut_off_where_pictures_are_resized():
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    pixels[:, :, 16:] = 255
    shown = shown_to_teacher(pixels, (96, 96), "neutral")
    assert shown.min() == 0.0
    assert shown.max() == 1.0


def test_classes_are_mapped_by_name():
    """A teacher that has the classes in another order, among others, teaches the same."""
    order = {"jay": 0, "dunnock": 1, "wren": 2, "robin": 3}
    logits = [9.0, *(TEACHER[CLASSES[name]] for name in ("dunnock", "wren", "robin"))]
    for kind in ("soft", "hard"):
        losses = [
            distillation(Table(STUDENT), teacher, kind=kind)(batch([0, 1]), 0.0)["loss"]
            for teacher in (teacher_of(Table(TEACHER)), teacher_of(Table(logits), order))
        ]
        assert torch.equal(*losses)


def test_classes_of_the_student_may_be_listed_in_any_order():
    shuffled = {name: CLASSES[name] for name in ("dunnock", "wren", "robin")}
    assert distillation(Table(STUDENT), teacher_of(Table(TEACHER)), shuffled).columns.tolist() == [0, 1, 2]


def test_classes_that_the_teacher_does_not_know_are_named():
    with pytest.raises(ConfigError, match=r"does not know 2 of 3 classes: wren, dunnock\. Leave them out"):
        distillation(Table(STUDENT), teacher_of(Table([0.0]), {"robin": 0}))
    many = {f"bird {number}": number for number in range(12)}
    with pytest.raises(ConfigError, match=r"12 of 12 classes: bird 0, .*, bird 9, …\. Leave"):
        distillation(Table([0.0] * 12), teacher_of(Table(TEACHER)), many)


def test_an_embedding_needs_no_common_classes():
    objective = distillation(Table(STUDENT), teacher_of(Table([]), {}), kind="embedding")
    assert objective(batch([0]), 0.0)["teacher_loss"] == 0.0


def test_an_embedding_of_another_size_is_projected():
    network = small_network(3)
    teacher = Table(TEACHER, [1.0, 2.0, 3.0])
    objective = distillation(network, teacher_of(teacher), kind="embedding")
    images = batch([0, 1]).images
    projected = network.embedding(images) @ objective.projection.weight.T + objective.projection.bias
    expected = 1 - F.cosine_similarity(projected, torch.tensor([[1.0, 2.0, 3.0]])).mean()
    losses = objective(batch([0, 1]), 0.0)
    assert losses["teacher_loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    losses["teacher_loss"].backward()
    assert objective.projection.weight.grad.abs().sum() > 0
    own = [name for name in objective.state_dict() if not name.startswith("network.")]
    assert own == ["projection.weight", "projection.bias"]


def small_teacher():
    """One that would change and drop paths, were it trained."""
    network = create_network(
        "convnext_v2_atto", 5, size=(32, 32), in_channels=(8, 8, 16, 24), num_layers=(1, 1, 1, 1), drop_path_rate=0.9
    )
    network.features.append(nn.BatchNorm1d(network.embedding_size))
    return network


@pytest.mark.parametrize("kind", ["soft", "hard", "embedding"])
def test_the_teacher_stays_as_it_is(kind):
    teacher = small_teacher().train()
    classes = {str(label): label for label in range(5)}
    objective = distillation(small_network(), teacher_of(teacher, classes), classes, kind=kind)
    objective.train()
    before = deepcopy(teacher.state_dict())
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        loss = objective(labelled_pictures(objective.network), step / 3)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(step / 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())


def test_the_teacher_gets_no_gradients_even_if_it_could():
    teacher = Table(TEACHER)
    objective = distillation(Table(STUDENT), teacher_of(teacher))
    teacher.requires_grad_(True)
    objective(batch([0]), 0.0)["loss"].backward()
    assert teacher.logits.grad is None


def test_the_teacher_is_in_no_checkpoint_but_moves_along():
    network, teacher = small_network(3), small_teacher()
    classes = {str(label): label for label in range(3)}
    known = {str(label): label for label in range(5)}
    objective = distillation(network, teacher_of(teacher, known), classes)
    assert list(objective.state_dict()) == [f"network.{name}" for name in network.state_dict()]
    assert {id(weight) for weight in objective.parameters()} == {id(weight) for weight in network.parameters()}
    objective.to(torch.float64)
    assert {weight.dtype for weight in teacher.parameters()} == {torch.float64}
    twin = deepcopy(objective)
    assert twin.teacher is not objective.teacher


def test_deit_needs_a_second_head():
    with pytest.raises(ConfigError, match=r"distillation of the kind deit needs a network that can learn from a "
                                          r"teacher with a head of its own; convnext_v2_atto cannot\. No registered "
                                          r"network can: take the kind hard"):  # fmt: skip
        distillation(small_network(3), teacher_of(Table(TEACHER)), kind="deit")


def test_channels_must_be_the_same():
    with pytest.raises(ConfigError, match="the teacher takes pictures of 4 channels, and Table of 3"):
        distillation(Table(STUDENT), teacher_of(Table(TEACHER, channels=4)))
