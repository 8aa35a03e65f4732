"""I-JEPA: what is seen, what is asked and what is compared, one target after the other."""

import pytest
import torch

from birder.errors import ConfigError
from birder.layers.position import sincos_positions
from birder.networks import create_network
from birder.networks.base import MasksTokens
from birder.objectives.base import Batch
from birder.objectives.configs import IJEPAConfig
from birder.objectives.i_jepa import IJEPA
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses
from tests.objectives.test_data2vec import normed, tiny

SMALL = {"predictor_depth": 2, "predictor_width": 32, "predictor_heads": 4}


def vit(size):
    return create_network("vit_t16", 0, size=size, patch_size=4, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)


CONTEXT = torch.tensor([[7, 0, 20, 13], [1, 2, 3, 40]])
TARGETS = torch.tensor([[[5, 6, 30], [47, 9, 10]], [[8, 5, 0], [21, 22, 23]]])


def a_step(**options):
    return IJEPA(tiny(), IJEPAConfig(**SMALL | options)), torch.randn(2, 3, 48, 64)


def test_the_target_is_what_the_teacher_makes_of_the_whole_picture_layer_normed():
    objective, images = a_step()
    answer = objective.targets(images, TARGETS)
    assert answer.shape == (2, 2, 3, 16)
    tokens = objective.teacher_network.forward_features(images)[:, 2:]  # without a register and the class token
    for image in range(2):
        for target in range(2):
            for place in range(3):
                token = tokens[image, TARGETS[image, target, place]].tolist()
                assert answer[image, target, place].tolist() == pytest.approx(normed(token), abs=1e-5)


def test_the_prediction_of_a_target_depends_on_the_context_and_on_its_positions_alone():
    objective, images = a_step()
    objective.double()
    images = images.double()
    predictions = objective.predictions(images, CONTEXT, TARGETS)
    assert predictions.shape == (2, 2, 3, 16)
    parts, positions = objective.predictor, sincos_positions((6, 8), 32).double()
    for image in range(2):
        tokens = objective.network.encode_visible(images[image : image + 1], CONTEXT[image : image + 1])[0, 2:]
        seen = [parts.embed(token) + positions[place] for token, place in zip(tokens, CONTEXT[image], strict=True)]
        for target in range(2):
            asked = [parts.mask_token[0, 0] + positions[place] for place in TARGETS[image, target]]
            x = torch.stack([*seen, *asked])[None]
            for block in parts.blocks:
                x = block(x)
            expected = parts.projection(parts.norm(x))[0, 4:]
            assert torch.allclose(predictions[image, target].double(), expected, atol=1e-6)


def test_the_loss_is_the_mean_of_smooth_differences(monkeypatch):
    objective, images = a_step()
    monkeypatch.setattr(objective, "blocks", lambda num_images: (CONTEXT, TARGETS))
    loss = objective(Batch(images=images, labels=torch.zeros(2, dtype=torch.int64)), 0.0)["loss"].item()
    differences = objective.predictions(images, CONTEXT, TARGETS) - objective.targets(images, TARGETS)
    sizes = differences.abs().flatten().tolist()
    assert min(sizes) < 1.0 < max(sizes)
    expected = sum(size**2 / 2 if size < 1 else size - 0.5 for size in sizes) / len(sizes)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_context_and_targets_do_not_overlap_and_are_drawn_anew():
    objective, _ = a_step(num_targets=3, min_context=5)
    context, targets = objective.blocks(4)
    assert len(context) == 4
    assert context.shape[1] >= 5
    assert targets.shape[:2] == (4, 3)
    for seen, told in zip(context.tolist(), targets.flatten(1).tolist(), strict=True):
        assert not set(seen) & set(told)
    draws = {str(objective.blocks(4)) for _ in range(4)}
    assert len(draws) == 4
    objective.eval()
    assert str(objective.blocks(4)) == str(objective.blocks(4))


def test_a_grid_that_blocks_hardly_fit_is_refused_before_the_run(monkeypatch):
    with pytest.raises(ConfigError, match=r"leave less than 10 positions of a context .* on a grid of 4 x 4"):
        IJEPA(vit((16, 16)), IJEPAConfig(**SMALL))
    monkeypatch.setattr("birder.objectives.i_jepa.IJEPA._check_grid", lambda self: None)
    with pytest.raises(ConfigError, match="leave less than 10 positions"):
        IJEPA(vit((16, 16)), IJEPAConfig(**SMALL)).blocks(64)


@pytest.mark.parametrize("grid", [(5, 5), (6, 6)])
def test_a_small_grid_that_is_let_through_never_fails(grid):
    objective = IJEPA(vit((4 * grid[0], 4 * grid[1])), IJEPAConfig(**SMALL))
    for _ in range(40):
        assert objective.blocks(64)[0].shape[1] >= 10


def test_the_check_of_the_grid_takes_no_random_numbers_of_the_run():
    objective, _ = a_step()
    before = torch.get_rng_state()
    objective._check_grid()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_predictor_has_the_size_of_the_paper():
    predictor = IJEPA(tiny(), IJEPAConfig()).predictor
    assert len(predictor.blocks) == 12
    assert predictor.embed.weight.shape == (384, 16)
    assert predictor.blocks[0].attn.num_heads == 12
    assert torch.equal(predictor.positions, sincos_positions((6, 8), 384))


def test_what_does_not_fit_is_refused():
    assert isinstance(small_network(0), MasksTokens)  # which is not enough
    with pytest.raises(ConfigError, match="i_jepa needs a network that can drop tokens; convnext_v2_atto cannot"):
        IJEPA(small_network(0), IJEPAConfig())
    message = "predictor_width: must be a multiple of the {} heads and of 4, for the table of positions, not {}"
    with pytest.raises(ConfigError, match=message.format(12, 100)):
        IJEPAConfig(predictor_width=100)
    with pytest.raises(ConfigError, match=message.format(3, 54)):
        IJEPAConfig(predictor_width=54, predictor_heads=3)


def test_it_keeps_the_promises_of_every_objective():
    check_objective("i_jepa", network=small_vit, **SMALL)


def test_the_golden_losses_are_reproduced(root):
    expect_recorded_losses(root, "i_jepa", IJEPA(small_vit(), IJEPAConfig(**SMALL)))
