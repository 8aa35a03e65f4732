"""MAE: what is drawn and the loss against the paper's own order of doing it, and what the network sees."""

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.layers.position import sincos_positions
from birder.networks import create_network
from birder.objectives.configs import MAEConfig
from birder.objectives.mae import MAE
from birder.testing import check_objective, small_network, small_vit
from tests.objectives.curves import expect_recorded_losses

TINY = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "drop_path_rate": 0.0}


def tiny(name="vit_reg1_t16", **options):
    return create_network(name, 0, size=(32, 48), **TINY | options)


def mae(network=None, **options):
    return MAE(network or tiny(), MAEConfig(**{"decoder_depth": 1, "decoder_width": 16} | options))


def drawn_as_in_the_paper(objective, images, mask):
    """Mask tokens behind the visible ones, put back in order; then positions, one token after the other."""
    network, special = objective.network, objective.network.num_special_tokens
    rows = []
    for image, hidden in zip(images, mask, strict=True):
        order = [k for k in range(len(hidden)) if not hidden[k]] + [k for k in range(len(hidden)) if hidden[k]]
        count = len(order) - int(hidden.sum())
        seen = objective.embed(network.encode_visible(image[None], torch.tensor(order[:count])[None]))[0]
        tokens = [*seen[special:], *objective.mask_token[0].expand(len(order) - count, -1)]
        back = [tokens[order.index(k)] for k in range(len(order))]
        together = torch.stack([*seen[:special], *back]) + objective.positions
        rows.append(objective.decoder(together[None])[0, special:])
    return torch.stack(rows)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("name", ["vit_t16", "vit_reg1_t16", "vit_parallel_s16_18x2_ls_avg"])
def test_all_patches_are_drawn_from_the_visible_ones(name, learned):
    objective = mae(tiny(name), learned_positions=learned).double().eval()
    images, mask = torch.randn(3, 3, 32, 48, dtype=torch.float64), objective.masks(3)
    drawn = objective.draw(images, mask)
    assert drawn.shape == (3, 24, 192)
    torch.testing.assert_close(drawn, drawn_as_in_the_paper(objective, images, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_loss_is_the_mean_square_over_the_hidden_patches(normalized):
    objective = mae(normalized_targets=normalized).double().eval()
    images, mask = 2.0 * torch.randn(2, 3, 32, 48, dtype=torch.float64) + 1.0, objective.masks(2)
    drawn = objective.draw(images, mask).detach().numpy()
    errors = []
    for image in range(2):
        for place in range(24):
            row, column = 8 * (place // 6), 8 * (place % 6)
            patch = images[image, :, row : row + 8, column : column + 8].permute(1, 2, 0).numpy().ravel()
            if normalized:
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            if mask[image, place]:
                errors.append(np.mean((drawn[image, place] - patch) ** 2))
    assert len(errors) == 2 * 18
    assert objective.loss(images, mask).item() == pytest.approx(np.mean(errors), rel=1e-12)


def test_the_network_sees_the_visible_patches_alone():
    objective = mae().eval()
    images, mask = torch.randn(2, 3, 32, 48), objective.masks(2)
    shapes = []
    for block in objective.network.blocks():
        block.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    drawn = objective.draw(images, mask)
    assert shapes == [(2, 2 + 6, 16)] * 2
    hidden = mask.view(2, 1, 4, 6).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert torch.equal(objective.draw(torch.where(hidden, 100.0, images), mask), drawn)
    assert not torch.equal(objective.draw(torch.where(hidden, images, -images), mask), drawn)


def test_the_decoder_is_plain_and_of_the_network_s_kind():
    network = tiny("vit_parallel_s16_18x2_ls_avg", drop_path_rate=0.5, dropout=0.5)
    objective = mae(network, decoder_depth=3)
    assert len(objective.decoder) == 3 + 2
    assert type(objective.decoder[0]) is type(network.blocks()[0])
    assert not [name for name, _ in objective.decoder.named_parameters() if "gamma" in name]
    x = torch.randn(2, 5, 16)
    assert torch.equal(objective.decoder.train()(x), objective.decoder(x))


def test_special_tokens_have_no_fixed_positions():
    objective = mae()
    assert torch.equal(objective.positions, torch.cat([torch.zeros(2, 16), sincos_positions((4, 6), 16)]))
    assert "positions" not in dict(objective.named_parameters())
    assert mae(learned_positions=True).positions.requires_grad


@pytest.mark.parametrize(
    "options",
    [{}, {"learned_positions": True, "normalized_targets": False, "mask_ratio": 0.5}],
)
def test_it_keeps_the_promises_of_every_objective(options):
    check_objective("mae", network=small_vit, **{"decoder_depth": 1, "decoder_width": 32} | options)


def test_what_pools_the_tokens_may_learn_nothing():
    pooled = tiny("vit_t16", attn_pool_head=True, norm_after_pool=True)
    objective = mae(pooled)
    objective.loss(torch.randn(2, 3, 32, 48), objective.masks(2)).backward()
    without = {name.split(".")[0] for name, weight in pooled.named_parameters() if weight.grad is None}
    assert without == {"attn_pool", "embedding_norm"}
    assert not objective.reaches_all


def test_bad_input_is_told():
    with pytest.raises(
        ConfigError, match=r"mae needs a network that can drop tokens; convnext_v2_atto cannot\. .*vit_"
    ):
        mae(small_network(0))
    with pytest.raises(ConfigError, match="decoder_width: must be a multiple of its 16 heads, not 100"):
        MAEConfig(decoder_width=100)
    with pytest.raises(ConfigError, match=r"mask_ratio: 0\.97 leaves 0 visible"):
        mae(mask_ratio=0.97)
    uneven = torch.zeros(2, 24, dtype=torch.bool)
    uneven[0, 3] = True
    with pytest.raises(ConfigError, match=r"mask_ratio of 0\.75 leave 6 of 24 .*, and these \[23, 24\]"):
        mae().draw(torch.randn(2, 3, 32, 48), uneven)


def test_the_recorded_losses_are_reproduced(root):
    expect_recorded_losses(root, "mae", mae())
