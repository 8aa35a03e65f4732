"""data2vec: targets and loss against loops in float64, and what is hidden from whom."""

import math

import pytest
import torch

from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.configs import Data2VecConfig
from birder.objectives.data2vec import Data2Vec, masked_loss, mean_of_layers
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses

TINY = {"patch_size": 8, "num_layers": 3, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "drop_path_rate": 0.0}


def tiny(name="vit_reg1_t16", size=(48, 64), **options):
    return create_network(name, 0, size=size, **TINY | options)


def double(*shape):
    return torch.randn(shape, dtype=torch.float64)


def normed(row):
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    return [(value - mean) / math.sqrt(variance + 1e-5) for value in row]


def smooth(difference, beta):
    size = abs(difference)
    if not beta:
        return size**2
    return size**2 / (2 * beta) if size < beta else size - beta / 2


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("number", [1, 3])
def test_the_target_is_the_mean_of_normed_layers_with_the_last_as_it_is(normalized, number):
    layers = [3.0 * double(2, 4, 5) + 1.0 for _ in range(number)]
    target = mean_of_layers(layers, normalized=normalized)
    for image in range(2):
        for patch in range(4):
            *rows, last = [layer[image, patch].tolist() for layer in layers]
            columns = zip(*[normed(row) for row in rows], last, strict=True)
            mean = [sum(column) / number for column in columns]
            assert target[image, patch].tolist() == pytest.approx(normed(mean) if normalized else mean, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_the_loss_is_the_mean_over_the_patches_of_a_picture_then_over_pictures(beta):
    predictions, targets = 2.0 * double(3, 4, 5), double(3, 4, 5)
    where = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
    pictures = []
    for image in range(3):
        patches = [
            sum(smooth(difference, beta) for difference in (predictions - targets)[image, patch].tolist())
            for patch in range(4)
            if where[image, patch]
        ]
        pictures.append(sum(patches) / len(patches) if patches else 0.0)
    assert masked_loss(predictions, targets, where, beta).item() == pytest.approx(sum(pictures) / 3, rel=1e-12)


def test_the_teacher_is_asked_for_the_last_blocks_without_special_tokens():
    objective = Data2Vec(tiny(), Data2VecConfig(top_layers=2)).double()
    teacher, images = objective.teacher_network, double(2, 3, 48, 64)
    seen = []
    for block in teacher.blocks():
        block.register_forward_hook(lambda block, given, out: seen.append(out))
    targets = objective.targets(images)
    assert targets.shape == (2, 48, 16)
    assert len(seen) == 3
    expected = mean_of_layers([seen[1][:, 2:], teacher.norm(seen[2])[:, 2:]], normalized=True)
    assert torch.allclose(targets.double(), expected, atol=1e-5)  # the class token and a register are left out
    more = Data2Vec(objective.network, Data2VecConfig(top_layers=20))
    more.teacher_network.load_state_dict(teacher.state_dict())
    expected = mean_of_layers([*(layer[:, 2:] for layer in seen[:2]), teacher.norm(seen[2])[:, 2:]], normalized=True)
    assert torch.allclose(more.targets(images).double(), expected, atol=1e-5)


def a_step(**options):
    objective = Data2Vec(tiny(), Data2VecConfig(**options))
    images, mask = torch.randn(3, 3, 48, 64), torch.rand(3, 48) < torch.tensor([[0.2], [0.5], [0.7]])
    return objective, images, mask


def test_the_loss_is_that_of_hidden_patches_and_parts_of_a_batch_add_up():
    objective, images, mask = a_step(beta=1.5)
    map_ = objective.network.encode_masked(images, mask, objective.mask_token)
    targets = objective.targets(images)
    pictures = []
    for image in range(3):
        patches = []
        for patch in mask[image].nonzero().flatten().tolist():
            prediction = objective.head(map_[image, :, patch // 8, patch % 8])
            patches.append(sum(smooth(a, 1.5) for a in (prediction - targets[image, patch]).tolist()))
        pictures.append(sum(patches) / len(patches))
        alone = objective.loss(images[image : image + 1], mask[image : image + 1]).item()
        assert alone == pytest.approx(pictures[-1], rel=1e-5)
    assert objective.loss(images, mask).item() == pytest.approx(sum(pictures) / 3, rel=1e-5)


def test_the_historical_mistake_takes_the_visible_patches():
    objective, images, mask = a_step(loss_on="visible")
    map_ = objective.network.encode_masked(images, mask, objective.mask_token)
    predictions = objective.head(map_.flatten(2).mT)
    expected = masked_loss(predictions, objective.targets(images), ~mask, 2.0).item()
    assert objective.loss(images, mask).item() == pytest.approx(expected, rel=1e-6)
    hidden = masked_loss(predictions, objective.targets(images), mask, 2.0).item()
    assert abs(hidden - expected) > 1e-3 * hidden


def test_the_student_does_not_see_what_is_hidden_and_the_teacher_does():
    objective, images, mask = a_step()
    squares = mask.unflatten(1, (6, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1)
    others = torch.where(squares, torch.randn_like(images), images)
    maps = [objective.network.encode_masked(each, mask, objective.mask_token) for each in (images, others)]
    assert torch.allclose(*maps, atol=1e-6)
    assert not torch.allclose(objective.targets(images), objective.targets(others), atol=1e-2)


def test_masks_hide_about_one_number_in_all_pictures_that_is_drawn_anew():
    objective = Data2Vec(tiny(), Data2VecConfig(min_masked=8, max_masked=0.5))
    counts = []
    for _ in range(30):
        mask = objective.masks(8)
        assert mask.shape == (8, 48)
        numbers = mask.sum(dim=1)
        assert numbers.max() <= 24
        counts.append(int(numbers.max()))
    assert min(counts) >= 8
    assert len(set(counts)) > 8
    objective.eval()
    assert torch.equal(objective.masks(8), objective.masks(8))


def test_a_network_that_lacks_an_ability_is_refused():
    with pytest.raises(ConfigError) as raised:
        Data2Vec(small_network(0), Data2VecConfig())
    message = str(raised.value)
    assert "data2vec needs a network that can mask tokens and show its layers; convnext_v2_atto cannot" in message
    assert "vit_" in message.split("These can: ")[1]
    assert "convnext" not in message.split("These can: ")[1]


def test_too_few_patches_are_refused():
    with pytest.raises(ConfigError, match=r"min_masked: 16 patches are more than max_masked, 0\.6 of 4 x 4"):
        Data2Vec(tiny(size=(32, 32)), Data2VecConfig())


def test_it_keeps_the_promises_of_every_objective():
    check_objective("data2vec", network=small_vit)


def test_the_golden_losses_are_reproduced(root):
    expect_recorded_losses(root, "data2vec", Data2Vec(small_vit(), Data2VecConfig(top_layers=2)))
