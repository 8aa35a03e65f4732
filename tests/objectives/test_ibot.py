"""iBOT: the loss from first principles, the masks, what is refused, and twenty recorded steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.objectives.base import Batch
from birder.objectives.configs import IBOTConfig
from birder.objectives.ibot import IBOT, hidden_patches, patches_alike
from birder.testing import check_objective, labelled_pictures, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses

HEAD: dict[str, Any] = {
    "prototypes": 24,
    "patch_prototypes": 24,
    "hidden": 32,
    "bottleneck": 8,
    "small_views": 2,
    "small_size": 16,
    "hold_last": 0.0,
}
APART = {"shared_head": False, "patch_prototypes": 12}


def test_it_keeps_all_promises() -> None:
    # The centre moves the teacher's answers, so that the loss of a few steps rises where it moves fast.
    check_objective("ibot", network=small_vit, **(HEAD | APART | {"center_momentum": 0.99, "head_batch_norm": True}))


def ibot(**options: Any) -> tuple[IBOT, Batch]:
    torch.manual_seed(1)
    objective = IBOT(small_vit(), IBOTConfig(**(HEAD | options))).train()
    return objective, labelled_pictures(objective.network, objective.config.views)


def test_the_loss_of_patches_is_a_mean_of_crops_and_not_of_patches() -> None:
    """A loop over crops and patches in float64; one of the crops has no hidden patch."""
    generator = np.random.default_rng(3)
    mask = generator.random((6, 9)) < 0.4
    mask[2] = False
    count = int(mask.sum())
    student, teacher = generator.normal(size=(count, 5)), generator.random((count, 5))
    student -= np.log(np.exp(student).sum(axis=1, keepdims=True))
    teacher /= teacher.sum(axis=1, keepdims=True)
    total, place = 0.0, 0
    for crop in range(6):
        losses = []
        for patch in range(9):
            if mask[crop, patch]:
                losses.append(-sum(teacher[place] * student[place]))
                place += 1
        total += np.mean(losses) if losses else 0.0
    places, shares = hidden_patches(torch.from_numpy(mask))
    assert places.tolist() == np.flatnonzero(mask).tolist()
    found = patches_alike(torch.from_numpy(student), torch.from_numpy(teacher), shares)
    assert found.item() == pytest.approx(total / 6, rel=1e-6)  # the shares are of float32


@pytest.mark.parametrize("options", [{}, APART])
def test_the_loss_is_that_of_the_paper(options: dict[str, Any]) -> None:
    """Student and teacher look at all patches here, and each crop by itself."""
    objective, batch = ibot(
        **options,
        teacher_temperature=(0.05, 0.09),
        patch_temperature=(0.06, 0.08),
        temperature_warmup=0.4,
        patch_warmup_start=0.2,
        patch_weight=0.7,
    )
    torch.nn.init.normal_(objective.teacher_head.mlp[0].weight)  # the teacher is another than the student
    for center in (objective.center, objective.patch_center):
        torch.nn.init.normal_(center.value, std=0.1)
    centers = objective.center.value.clone(), objective.patch_center.value.clone()
    mask = torch.rand(16, 64) < 0.3
    mask[3] = False
    objective.masks = lambda number, grid: mask
    losses = objective(batch, 0.3)

    student, teacher = objective.network, objective.teacher_network
    patch_losses, patch_logits = [], []
    with torch.no_grad():
        for crop in range(2):
            hidden = mask[8 * crop : 8 * crop + 8]
            said = teacher.forward_features(batch.images[:, crop])[:, 1:]
            told = student.encode_masked_tokens(batch.images[:, crop], hidden, objective.mask_token)[:, 1:]
            for picture in range(8):
                logits = objective.teacher_head.nearness(objective.teacher_head(said[picture]), -1)
                patch_logits.append(logits)
                targets = torch.softmax((logits - centers[1]) / 0.065, dim=1)  # a quarter of the warm-up is over
                answers = objective.head.nearness(objective.head(told[picture]), -1) / 0.1
                each = -(targets * answers.log_softmax(dim=1)).sum(dim=1)  # (L,)
                patch_losses.append(each[hidden[picture]].mean() if hidden[picture].any() else torch.zeros(()))
    assert losses["patch_loss"].item() == pytest.approx(torch.stack(patch_losses).mean().item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((losses["picture_loss"] + 0.7 * losses["patch_loss"]).item())

    objective.after_step(0.3)
    expected = 0.9 * centers[1] + 0.1 * torch.cat(patch_logits).mean(dim=0)
    torch.testing.assert_close(objective.patch_center.value, expected, rtol=1e-4, atol=1e-6)
    assert not torch.equal(objective.center.value, centers[0])


def test_without_hidden_patches_it_is_dino() -> None:
    objective, batch = ibot(mask_probability=0.0)
    losses = objective(batch, 0.0)
    assert losses["patch_loss"].item() == 0.0
    assert losses["loss"].item() == losses["picture_loss"].item()
    losses["loss"].backward()
    assert all(weight.grad.isfinite().all() for weight in objective.parameters() if weight.grad is not None)


def test_the_masks_hide_as_much_as_asked_in_some_of_the_crops() -> None:
    objective, _ = ibot(mask_ratio=(0.2, 0.4), mask_probability=0.3)
    shares = objective.masks(4000, (8, 8)).float().mean(dim=1)
    some = shares > 0
    assert some.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert shares.max() <= 0.41
    assert shares[some].mean().item() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(objective.masks(50, (8, 8)), objective.masks(50, (8, 8)))
    objective.eval()
    assert torch.equal(objective.masks(50, (8, 8)), objective.masks(50, (8, 8)))


def test_last_layers_are_shared_or_not_and_both_are_held() -> None:
    for options, number in (({}, 1), (APART, 2)):
        objective, batch = ibot(**options, mask_probability=1.0)
        assert len(objective.head.last) == number
        for held in (0.5, 0.0):
            objective.config = IBOTConfig(**(HEAD | options | {"hold_last": held}))
            objective.zero_grad()
            objective(batch, 0.25)["loss"].backward()
            gradients = [weight.grad for weight in objective.head.last.parameters() if weight.requires_grad]
            assert [gradient is None for gradient in gradients] == [held > 0.25] * number


def test_a_network_without_tokens_is_refused() -> None:
    message = r"^ibot needs a network that can tell the tokens of a picture with hidden patches; .* These can: .*vit"
    with pytest.raises(ConfigError, match=message):
        IBOT(small_network(0), IBOTConfig(**HEAD))


def test_the_recorded_losses_are_reproduced(root: Path) -> None:
    options = APART | {"hold_last": 0.2, "momentum": (0.9, 1.0), "patch_warmup_start": 0.2, "mask_probability": 0.8}
    expect_recorded_losses(root, "ibot", IBOT(small_vit(), IBOTConfig(**(HEAD | options))))
