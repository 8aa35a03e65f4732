"""data2vec 2.0: targets, decoder and loss against loops in float64, and what the decoder is given."""

import math

import pytest
import torch
import torch.nn.functional as F

from birder.errors import ConfigError
from birder.objectives.base import Batch
from birder.objectives.configs import Data2Vec2Config
from birder.objectives.data2vec2 import Data2Vec2, mean_of_instances, scaled_square
from birder.objectives.map_decoder import MapDecoder
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses
from tests.objectives.test_data2vec import double, normed, tiny

SMALL = {"num_masks": 2, "decoder_depth": 2, "decoder_width": 32, "top_layers": 2}


def test_the_target_is_the_mean_of_layers_normed_over_patches():
    layers = [3.0 * double(2, 4, 5) + 1.0 for _ in range(3)]
    target = mean_of_instances(layers)
    for image in range(2):
        channels = [[normed(layer[image, :, channel].tolist()) for layer in layers] for channel in range(5)]
        for patch in range(4):
            mean = [sum(layer[patch] for layer in channel) / 3 for channel in channels]
            assert target[image, patch].tolist() == pytest.approx(normed(mean), abs=1e-12)


def test_the_loss_of_a_token_is_its_squared_difference_over_the_root_of_its_width():
    predictions, targets = double(2, 3, 5), double(2, 3, 5)
    tokens = [sum(value**2 for value in row) / math.sqrt(5) for row in (predictions - targets).flatten(0, 1).tolist()]
    assert scaled_square(predictions, targets).item() == pytest.approx(sum(tokens) / 6, rel=1e-12)


def test_the_decoder_convolves_in_groups_with_residuals_and_answers_at_some_places():
    decoder, x = MapDecoder(16, 32, 3).double(), double(2, 16, 4, 5)
    where = torch.tensor([[3, 0, 19], [7, 8, 9]])
    result = decoder(x, where)
    for number, layer in enumerate(decoder.layers):
        weight, bias = layer[0].weight, layer[0].bias
        padded = F.pad(x, (1, 1, 1, 1))
        y = torch.zeros(2, 32, 4, 5, dtype=torch.float64)
        inputs, outputs = x.shape[1] // 16, 2
        for group in range(16):
            part = padded[:, group * inputs : (group + 1) * inputs]
            for channel in range(group * outputs, (group + 1) * outputs):
                for row in range(4):
                    for column in range(5):
                        window = part[:, :, row : row + 3, column : column + 3]
                        y[:, channel, row, column] = (window * weight[channel]).sum(dim=(1, 2, 3)) + bias[channel]
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        x = y if number == 0 else x + y
    for image in range(2):
        for place, position in enumerate(where[image].tolist()):
            token = x[image, :, position // 5, position % 5]
            expected = decoder.projection.weight @ token + decoder.projection.bias
            assert torch.allclose(result[image, place], expected, atol=1e-12)


def a_step(network=None, **options):
    objective = Data2Vec2(network or tiny(), Data2Vec2Config(**SMALL | options))
    images = torch.randn(3, 3, 48, 64)
    masks = objective.masks(3)
    return objective, images, masks, objective.noise(masks, images)


def test_the_loss_is_that_of_hidden_patches_of_all_masks_and_of_the_class_token():
    objective, images, masks, noise = a_step(class_weight=0.3)
    network, targets = objective.network, objective.targets(images)
    patches, classes = [], []
    for number, mask in enumerate(masks):
        image = number // 2
        visible = (~mask).nonzero().flatten()
        tokens = network.encode_visible(images[image : image + 1], visible[None])[0]  # register, class token, patches
        grid = torch.empty(48, 16)
        grid[visible] = tokens[2:]
        grid[mask] = noise[number]
        hidden = mask.nonzero().flatten()
        prediction = objective.decoder(grid.T.reshape(1, 16, 6, 8), hidden[None])[0]
        patches.append((prediction - targets[image][mask]).square().sum(1).mean() / 4)  # the root of 16
        classes.append((tokens[1] - targets[image].mean(dim=0)).square().sum() / 4)
    losses = objective.losses(images, masks, noise)
    patch_loss, class_loss = (torch.stack(each).mean() for each in (patches, classes))
    assert losses["patch_loss"].item() == pytest.approx(patch_loss.item(), rel=1e-5)
    assert losses["class_loss"].item() == pytest.approx(class_loss.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((patch_loss + 0.3 * class_loss).item(), rel=1e-5)


def test_the_teacher_is_asked_for_the_last_blocks_without_special_tokens():
    objective, images, _, _ = a_step()
    teacher, seen = objective.teacher_network, []
    for block in teacher.blocks():
        block.register_forward_hook(lambda block, given, out: seen.append(out))
    targets = objective.targets(images)
    assert torch.allclose(targets, mean_of_instances([seen[1][:, 2:], teacher.norm(seen[2])[:, 2:]]), atol=1e-6)


def test_a_network_without_class_token_learns_from_patches_alone():
    for network, options in ((tiny("vit_t16", class_token=False), {}), (tiny(), {"class_weight": 0.0})):
        objective, images, masks, noise = a_step(network, **options)
        assert objective.losses(images, masks, noise).keys() == {"loss"}


def test_masks_leave_the_same_number_visible_and_the_noise_is_small():
    objective, images, masks, noise = a_step(num_masks=4, mask_ratio=0.75)
    assert masks.shape == (12, 48)
    assert masks.sum(dim=1).tolist() == [36] * 12
    assert len({tuple(mask) for mask in masks.tolist()}) == 12
    assert noise.shape == (12, 36, 16)
    assert noise.std().item() == pytest.approx(0.01, rel=0.05)
    again = objective.noise(masks, images)
    assert not torch.equal(again, noise)
    objective.eval()
    assert torch.equal(objective.masks(3), objective.masks(3))
    assert torch.equal(objective.noise(masks, images), objective.noise(masks, images))


def test_what_is_visible_are_squares():
    objective = Data2Vec2(tiny(), Data2Vec2Config(**SMALL | {"num_masks": 100}))
    visible = (~objective.masks(2)).float().unflatten(1, (1, 6, 8))  # 9 of 48 patches: one square inside, or at an edge
    squares = F.avg_pool2d(visible, 3, stride=1) > 0.99
    # The centres of half of the squares lie inside; single patches at random would never be one.
    assert squares.flatten(1).any(dim=1).float().mean().item() == pytest.approx(24 / 48, abs=0.15)


def test_the_default_decoder_has_the_width_of_the_paper():
    objective = Data2Vec2(tiny(), Data2Vec2Config())
    shapes = [tuple(layer[0].weight.shape) for layer in objective.decoder.layers]
    assert shapes == [(768, 1, 3, 3), *[(768, 48, 3, 3)] * 5]
    assert len(list(objective.decoder.parameters())) == 2 * 6 + 2  # the norms learn nothing
    batch = Batch(images=torch.randn(1, 3, 48, 64), labels=torch.zeros(1, dtype=torch.int64))
    assert objective(batch, 0.0)["loss"].isfinite()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="data2vec2 needs a network that can drop tokens and show its layers; conv"):
        Data2Vec2(small_network(0), Data2Vec2Config())
    with pytest.raises(ConfigError, match="widths of network and decoder must be multiples of 16 groups, not 24"):
        Data2Vec2(tiny("vit_t16", hidden_dim=24), Data2Vec2Config())
    with pytest.raises(ConfigError, match="decoder_width: must be a multiple of the 16 groups, not 40"):
        Data2Vec2Config(decoder_width=40)


def test_it_keeps_the_promises_of_every_objective():
    check_objective("data2vec2", network=small_vit, **SMALL)


def test_the_golden_losses_are_reproduced(root):
    expect_recorded_losses(root, "data2vec2", Data2Vec2(small_vit(), Data2Vec2Config(**SMALL)))
