"""Classification: the loss against closed forms, mixing, and learning."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from birder.errors import ConfigError
from birder.objectives.base import Batch
from birder.objectives.classification import (
    Classification,
    binary_cross_entropy,
    class_weights,
    cross_entropy,
    cutmix,
    log_shares,
    mixup,
)
from birder.objectives.configs import ClassificationConfig
from birder.testing import small_network


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
        images = [objective.labels.mixed(batch([0, 1]))[0] for _ in range(200)]
        return sum(not torch.equal(image, batch([0, 1]).images) for image in images) / 200

    assert mixed(True, 0.3) == pytest.approx(0.3, abs=0.12)
    assert mixed(False, 1.0) == 0.0
    objective = Classification(Fixed([0.0, 1.0]), ClassificationConfig(mixup=1.0)).eval()
    first, second = (objective(batch([0, 1]), progress=0.0)["loss"] for _ in range(2))
    assert first == second


def test_gradients_reach_the_network():
    objective = Classification(Fixed([0.0, 0.0]), ClassificationConfig(smoothing=0.0))
    objective(batch([1, 1]), progress=0.0)["loss"].backward()
    assert objective.network.logits.grad.tolist() == pytest.approx([0.5, -0.5])


# Three pictures of four classes: one label, two labels, and one label whose class is rare.
LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.3, 0.1, -0.2, 1.0], [-3.0, 0.0, 4.0, 1.0]], dtype=torch.float64)
TARGETS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.7, 0.3, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)


def log_softmax(row):
    total = sum(math.exp(value) for value in row)
    return [value - math.log(total) for value in row]


def smoothed(row, smoothing):
    return [share * (1 - smoothing) + smoothing / len(row) for share in row]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_the_closed_form(smoothing, weights):
    """Each label of a picture counts by its share and its weight, with a smoothed target of its own."""
    expected = 0.0
    for row, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        for label, share in enumerate(target):
            weight = 1.0 if weights is None else weights[label].item()
            wanted = smoothed([float(other == label) for other in range(4)], smoothing)
            values = zip(wanted, log_softmax(row), strict=True)
            expected += share * weight * -sum(part * value for part, value in values) / 3
    loss = cross_entropy(LOGITS, TARGETS, smoothing=smoothing, weights=weights)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_is_torch_s_own():
    plain = F.cross_entropy(LOGITS, TARGETS, label_smoothing=0.1)
    assert torch.equal(cross_entropy(LOGITS, TARGETS, smoothing=0.1), plain)
    weighted = F.cross_entropy(LOGITS, TARGETS, weight=WEIGHTS)
    assert cross_entropy(LOGITS, TARGETS, weights=WEIGHTS).item() == pytest.approx(weighted.item(), rel=1e-14)
    labels = torch.tensor([0, 2, 3])
    by_index = F.cross_entropy(LOGITS, labels, weight=WEIGHTS, reduction="none").mean()
    one_hot = cross_entropy(LOGITS, F.one_hot(labels, 4).double(), weights=WEIGHTS)
    assert one_hot.item() == pytest.approx(by_index.item(), rel=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
def test_binary_cross_entropy_is_the_closed_form(smoothing, weights, summed, threshold):
    expected = 0.0
    for row, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        hard = target if threshold is None else [float(share > threshold) for share in target]
        loss = 0.0
        for logit, wanted in zip(row, smoothed(hard, smoothing), strict=True):
            probability = 1 / (1 + math.exp(-logit))
            loss -= wanted * math.log(probability) + (1 - wanted) * math.log(1 - probability)
        weight = 1.0 if weights is None else sum(w * t for w, t in zip(weights.tolist(), target, strict=True))
        expected += weight * loss / (1 if summed else 4) / 3
    options = {"smoothing": smoothing, "threshold": threshold, "summed": summed, "weights": weights}
    assert binary_cross_entropy(LOGITS, TARGETS, **options).item() == pytest.approx(expected, rel=1e-12)


def test_binary_cross_entropy_is_torch_s_own():
    assert binary_cross_entropy(LOGITS, TARGETS).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(LOGITS, TARGETS).item(), rel=1e-14
    )


def test_inverse_weights_are_those_of_balanced_classes():
    counts = torch.tensor([1, 10, 100, 1000])
    expected = [1111 / (4 * count) for count in counts.tolist()]
    assert class_weights(counts).tolist() == pytest.approx(expected, rel=1e-14)


def test_effective_weights_are_the_closed_form():
    counts, beta = [1, 10, 100, 100_000], 0.99
    effective = [(1 - beta**count) / (1 - beta) for count in counts]
    weights = class_weights(torch.tensor(counts), beta)
    ratios = [effective[0] / number for number in effective]
    assert (weights / weights[0]).tolist() == pytest.approx(ratios, rel=1e-12)
    assert sum(count * weight for count, weight in zip(counts, weights.tolist(), strict=True)) == pytest.approx(100_111)
    assert weights[2] / weights[3] == pytest.approx(1 / (1 - beta**100), rel=1e-12), "the number levels off at 100"


def test_the_effective_number_lies_between_none_and_the_number():
    counts = torch.tensor([1, 10, 1000])
    assert class_weights(counts, 0.0).tolist() == [1.0, 1.0, 1.0]
    almost = class_weights(counts, 1.0 - 1e-9)
    assert almost.tolist() == pytest.approx(class_weights(counts).tolist(), rel=1e-5)


def test_a_class_without_pictures_counts_as_if_it_had_one():
    some, none = torch.tensor([5, 1, 3]), torch.tensor([5, 0, 3])
    assert torch.equal(class_weights(none), class_weights(some))
    assert torch.equal(class_weights(none, 0.9), class_weights(some, 0.9))
    assert torch.equal(log_shares(none), log_shares(some))
    for options in ({"class_weights": "inverse"}, {"class_weights": "effective"}, {"logit_adjustment": 1.0}):
        objective = Classification(Fixed([1.0, 2.0, 3.0]), ClassificationConfig(**options), class_counts=[0, 0, 9])
        loss = objective(batch([2, 2]), progress=0.0)["loss"]
        loss.backward()
        assert loss.isfinite()
        assert objective.network.logits.grad.isfinite().all()


def test_logits_are_adjusted_by_the_shares_in_training_only():
    logits, counts, tau = [1.0, 0.0, -1.0], [70, 20, 10], 0.5
    config = ClassificationConfig(smoothing=0.0, logit_adjustment=tau)
    objective = Classification(Fixed(logits), config, class_counts=counts)
    adjusted = [value + tau * math.log(count / 100) for value, count in zip(logits, counts, strict=True)]
    losses = objective(batch([2, 0]), progress=0.0)
    expected = -(log_softmax(adjusted)[2] + log_softmax(adjusted)[0]) / 2
    assert losses["loss"].item() == pytest.approx(expected, abs=1e-6)
    plain = objective.eval()(batch([2, 0]), progress=0.0)
    assert plain["loss"].item() == pytest.approx(-(log_softmax(logits)[2] + log_softmax(logits)[0]) / 2, abs=1e-6)
    assert plain["accuracy"] == losses["accuracy"] == 0.5


def test_full_adjustment_learns_balanced_logits():
    """On pictures that say nothing, the adjusted loss is least where all logits are equal (Menon et al., theorem 1)."""
    config = ClassificationConfig(smoothing=0.0, logit_adjustment=1.0)
    objective = Classification(Fixed([0.0, 0.0]), config, class_counts=[30, 10])
    objective(batch([0, 0, 0, 1]), progress=0.0)["loss"].backward()
    assert objective.network.logits.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-7)
    unadjusted = Classification(Fixed([0.0, 0.0]), ClassificationConfig(smoothing=0.0))
    unadjusted(batch([0, 0, 0, 1]), progress=0.0)["loss"].backward()
    assert unadjusted.network.logits.grad.tolist() == pytest.approx([-0.25, 0.25])


def test_every_option_is_used():
    """Each changes the loss of the objective to that of its function."""
    logits, labels = torch.tensor([[0.5, -1.0, 2.0]] * 2), [0, 1]
    targets, weights = F.one_hot(torch.tensor(labels), 3).float(), class_weights(torch.tensor([8, 1, 1]), 0.9).float()
    cases = {
        cross_entropy(logits, targets, smoothing=0.1, weights=weights): {
            "class_weights": "effective",
            "effective_beta": 0.9,
        },
        binary_cross_entropy(logits, targets, smoothing=0.1, weights=weights, summed=True, threshold=0.5): {
            "loss": "bce",
            "bce_sum": True,
            "bce_threshold": 0.5,
            "class_weights": "effective",
            "effective_beta": 0.9,
        },
    }
    for expected, options in cases.items():
        objective = Classification(Fixed([0.5, -1.0, 2.0]), ClassificationConfig(**options), class_counts=[8, 1, 1])
        assert torch.equal(objective(batch(labels), progress=0.0)["loss"], expected)


def test_a_threshold_makes_whole_labels_of_mixed_ones():
    config = ClassificationConfig(loss="bce", smoothing=0.0, bce_threshold=0.2, mixup=1000.0)  # halves, nearly
    objective = Classification(Fixed([0.0, 1.0, -1.0]), config)
    expected = F.binary_cross_entropy_with_logits(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert objective(batch([0, 1]), progress=0.0)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("option", [{"class_weights": "inverse"}, {"logit_adjustment": 1.0}])
def test_counts_that_are_missing_or_do_not_fit_are_told(option):
    (name,) = option
    config = ClassificationConfig(**option)
    with pytest.raises(ConfigError, match=rf"{name}: needs class_counts, .* each of the 2 classes; there are none"):
        Classification(Fixed([0.0, 1.0]), config)
    for counts, given in (([1, 2, 3], "3, the least 1"), ([1, -1], "2, the least -1")):
        with pytest.raises(ConfigError, match=f"there are {given}"):
            Classification(Fixed([0.0, 1.0]), config, class_counts=counts)


def test_a_network_without_classes_is_told():
    with pytest.raises(ConfigError, match="a network with classes only"):
        Classification(small_network(0), ClassificationConfig())


def test_the_state_is_that_of_the_network():
    config = ClassificationConfig(class_weights="inverse")
    objective = Classification(Fixed([0.0, 1.0]), config, class_counts=[1, 2])
    assert list(objective.state_dict()) == ["network.logits"]
