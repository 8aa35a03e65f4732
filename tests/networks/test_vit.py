"""ViT: its tokens, its positions, what is hidden and left out, and its start."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.moe import SoftMoE
from birder.layers.pool import AttentionPool
from birder.layers.position import resample_positions
from birder.layers.shape import DropPath
from birder.model_file import load_weights
from birder.networks import create_network
from birder.networks.base import DropsTokens, MasksTokens, ShowsLayers
from birder.networks.vit import ViT

SMALL: dict[str, Any] = {"num_layers": 3, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}


def small(name: str = "vit_reg4_b16", num_classes: int = 4, **options: Any) -> ViT:
    """A small network in evaluation mode, none of whose weights is what a constructor makes."""
    network = create_network(name, num_classes, **{"size": (64, 96), **SMALL, **options})
    assert isinstance(network, ViT)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return network.eval()


def pictures(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width)


@pytest.mark.parametrize(
    ("name", "num_classes", "side", "count"),
    [
        ("vit_l16", 707, 256, 304_087_747),
        ("vit_parallel_s16_18x2_ls_avg", 735, 384, 64_708_575),
    ],
)
def test_number_of_parameters(name: str, num_classes: int, side: int, count: int) -> None:
    with torch.device("meta"):
        network = create_network(name, num_classes, size=(side, side))
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_tokens_come_in_order_registers_class_patches() -> None:
    network = small()
    x = pictures()
    tokens = network.tokens(network.patches(x))
    assert network.num_special_tokens == 5
    assert network.pos_embedding is not None and network.reg_tokens is not None and network.class_token is not None
    expected = torch.cat([network.reg_tokens[0], network.class_token[0]]) + network.pos_embedding[0, :5]
    torch.testing.assert_close(tokens[0, :5], expected)
    weight, bias = network.conv_proj.weight, network.conv_proj.bias
    row, column = 2, 3
    pixels = x[1, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    patch = torch.einsum("dcyx,cyx->d", weight, pixels) + bias
    torch.testing.assert_close(tokens[1, 5 + 6 * row + column], patch + network.pos_embedding[0, 5 + 6 * row + column])


@pytest.mark.parametrize("options", [{}, {"class_token": False, "num_reg_tokens": 0}, {"abs_pos_embed": False}])
def test_channels_of_a_token_lie_side_by_side(options: dict[str, Any]) -> None:
    network = small(**options)
    assert network.tokens(network.patches(pictures())).is_contiguous()


def test_special_tokens_may_have_no_positions() -> None:
    network = small(pos_embed_special_tokens=False)
    tokens = network.tokens(network.patches(pictures()))
    assert network.pos_embedding is not None and network.reg_tokens is not None and network.class_token is not None
    assert network.pos_embedding.shape == (1, 24, 16)
    assert torch.equal(tokens[0, :5], torch.cat([network.reg_tokens[0], network.class_token[0]]))


def test_positions_may_be_left_out() -> None:
    network = small(abs_pos_embed=False)
    assert not any("pos" in name for name in network.state_dict())
    x = pictures()
    patches = network.patches(x)
    assert torch.equal(network.tokens(patches)[:, 5:], patches.flatten(2).transpose(1, 2))


def test_each_embedding_is_of_its_tokens() -> None:
    features = torch.randn(2, 5 + 24, 16)
    assert torch.equal(small().pool(features), features[:, 4])
    average = small(class_token=False)
    torch.testing.assert_close(average.pool(features[:, 1:]), features[:, 5:].mean(dim=1))
    for special in (False, True):
        gathers = small(attn_pool_head=True, attn_pool_special_tokens=special)
        assert gathers.attn_pool is not None
        torch.testing.assert_close(gathers.pool(features), gathers.attn_pool(features[:, 0 if special else 5 :]))


def test_the_norm_may_come_after_pooling() -> None:
    network = small("vit_reg1_s16_nap_avg")
    x = pictures()
    features = network.forward_features(x)
    torch.testing.assert_close(features, network.encoder(network.tokens(network.patches(x))))
    weight, bias = (network.get_parameter(f"embedding_norm.{name}") for name in ("weight", "bias"))
    torch.testing.assert_close(
        network.embedding(x), F.layer_norm(features[:, 1:].mean(dim=1), (16,), weight, bias, 1e-6)
    )


def test_adjust_size_smooths_the_table() -> None:
    network = small()
    before = network.pos_embedding
    assert before is not None
    network.freeze()
    network.adjust_size((32, 160))
    after = network.pos_embedding
    assert after is not None
    expected = resample_positions(before.detach(), (4, 6), (2, 10), special=5, antialias=True)
    assert torch.equal(after, expected)
    assert isinstance(after, nn.Parameter)
    assert not after.requires_grad
    assert network.grid == (2, 10)
    assert torch.isfinite(network(pictures(32, 160))).all()


def test_adjust_size_keeps_type_and_learning() -> None:
    network = small().to(torch.bfloat16)
    network.adjust_size((32, 96))
    assert network.pos_embedding is not None
    assert network.pos_embedding.dtype == torch.bfloat16
    assert network.pos_embedding.requires_grad
    table = network.pos_embedding
    network.adjust_size((32, 96))
    assert network.pos_embedding is table


@pytest.mark.parametrize("antialias", [False, True])
def test_dynamic_size_smooths_when_asked_to(antialias: bool) -> None:
    network = small(pos_embed_antialias=antialias)
    x = pictures(32, 48)
    network.set_dynamic_size()
    dynamic = network(x)
    network.adjust_size((32, 48))
    assert torch.allclose(dynamic, network(x), atol=1e-5) == antialias


def test_the_table_is_resampled_as_configured() -> None:
    network = small(pos_embed_interpolation_mode="bilinear")
    before = network.pos_embedding
    assert before is not None
    network.adjust_size((128, 96))
    expected = resample_positions(before.detach(), (4, 6), (8, 6), special=5, mode="bilinear", antialias=True)
    assert network.pos_embedding is not None
    assert torch.equal(network.pos_embedding, expected)


def test_a_wrong_size_is_explained() -> None:
    network = small()
    with pytest.raises(
        ConfigError, match=r"vit_reg4_b16 is set to pictures of \(64, 96\), not \(96, 64\): call adjust"
    ):
        network(pictures(96, 64))
    network.set_dynamic_size()
    network(pictures(96, 64))
    for wrong in (
        lambda: network(pictures(90, 64)),
        lambda: network.adjust_size((90, 64)),
        lambda: small(size=(90, 64)),
    ):
        with pytest.raises(ConfigError, match=r"multiples of the patch size 16, such as \(96, 64\), not \(90, 64\)"):
            wrong()
    assert network.size == (64, 96)


def test_visible_patches_keep_their_places() -> None:
    network = small()
    x = pictures()
    everything = torch.arange(24).expand(2, -1)
    torch.testing.assert_close(network.encode_visible(x, everything), network.forward_features(x))
    keep = torch.stack([torch.randperm(24)[:7] for _ in range(2)])
    tokens = network.tokens(network.patches(x))
    chosen = torch.stack([torch.cat([image[:5], image[5:][kept]]) for image, kept in zip(tokens, keep, strict=True)])
    torch.testing.assert_close(network.encode_visible(x, keep), network.norm(network.encoder(chosen)))


@pytest.mark.parametrize("size", [(64, 96), (96, 48)])
def test_hidden_patches_are_replaced_before_positions(size: tuple[int, int]) -> None:
    network = small()
    network.set_dynamic_size()
    x = pictures(*size)
    rows, columns = size[0] // 16, size[1] // 16
    mask = (torch.rand(2, rows * columns) < 0.5).float()
    for token in (torch.randn(1, 1, 1, network.stem_width), None):
        patches = network.patches(x)
        filling = torch.zeros(16) if token is None else token[0, 0, 0]
        for image in range(2):
            for place in mask[image].nonzero().flatten().tolist():
                patches[image, :, place // columns, place % columns] = filling
        expected = network.norm(network.encoder(network.tokens(patches)))
        torch.testing.assert_close(network.encode_masked_tokens(x, mask, token), expected)
        places = expected[:, 5:].mT.reshape(2, 16, rows, columns)
        torch.testing.assert_close(network.encode_masked(x, mask, token), places)


def test_layers_are_those_behind_the_blocks() -> None:
    network = small(pre_norm=True)
    x = pictures()
    seen: list[Tensor] = []
    for block in network.blocks():
        block.register_forward_hook(lambda _module, _given, output: seen.append(output))
    layers = network.encode_layers(x)
    assert len(layers) == len(seen) == 3
    for layer, output in zip(layers[:-1], seen, strict=False):
        assert torch.equal(layer, output)
    torch.testing.assert_close(layers[-1], network.forward_features(x))


def test_one_map_is_the_neck_before_the_norm() -> None:
    network = small()
    x = pictures()
    maps = network.detection_features(x)
    assert list(maps) == ["neck"] == list(network.stages)
    tokens = network.encoder(network.tokens(network.patches(x)))
    torch.testing.assert_close(maps["neck"], tokens[:, 5:].mT.reshape(2, 16, 4, 6))


def test_several_maps_are_those_of_their_blocks() -> None:
    network = small(out_indices=(0, 1))
    x = pictures()
    maps = network.detection_features(x)
    assert list(maps) == ["stage1", "stage2"]
    layers = network.encode_layers(x)
    for name, layer in zip(maps, layers, strict=False):
        torch.testing.assert_close(maps[name], layer[:, 5:].mT.reshape(2, 16, 4, 6))
    network.freeze(1)
    assert network.frozen[-1].startswith("encoder.block.0.")
    assert not network.conv_proj.weight.requires_grad
    assert network.get_parameter("encoder.block.1.norm1.weight").requires_grad


def test_the_hmlp_stem_does_not_look_across_patches() -> None:
    for name in ("vit_b16_hmlp", "vit_b16_hmlp_bn"):
        network = small(name)
        x = pictures()
        changed = x.clone()
        changed[:, :, 16:32, 48:64] += 1.0
        differs = (network.patches(x) - network.patches(changed)).abs().amax(dim=(0, 1)) > 1e-4
        assert differs.nonzero().tolist() == [[1, 3]]


def test_the_hmlp_stem_is_that_of_its_paper() -> None:
    """Table 5: 4 x 4, 2 x 2 and 2 x 2 pixels to one, each with a norm behind it, and GELU in between."""
    network = small("vit_b16_hmlp")
    state, original = network.state_dict(), pictures()
    x = original
    for layer, side in ((0, 4), (3, 2), (6, 2)):
        x = F.gelu(x) if layer else x
        x = F.conv2d(x, state[f"conv_proj.{layer}.weight"], state[f"conv_proj.{layer}.bias"], stride=side)
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
        weight, bias = (state[f"conv_proj.{layer + 1}.{name}"].reshape(-1, 1, 1) for name in ("weight", "bias"))
        x = (x - mean) / (variance + 1e-6).sqrt() * weight + bias
    torch.testing.assert_close(network.patches(original), x)
    assert any(name.endswith("running_mean") for name in small("vit_b16_hmlp_bn").state_dict())


def test_dropout_comes_before_the_first_block() -> None:
    network = small(dropout=0.5, pre_norm=True).train()
    tokens = torch.ones(1, 29, 16)
    share = (network.encoder[0](tokens) == 0).float().mean()
    assert share.item() == pytest.approx(0.5, abs=0.1)


def test_experts_stand_in_the_second_half() -> None:
    network = small("vit_s16_soft_moe_32e_4s_avg", soft_moe_num_experts=2, num_layers=5)
    assert [isinstance(block.get_submodule("mlp"), SoftMoE) for block in network.blocks()] == [False] * 2 + [True] * 3


def test_options_reach_their_layers() -> None:
    network = small(attn_pool_head=True, attn_pool_num_heads=4, attn_pool_act_layer_type="relu", qkv_bias=False)
    assert isinstance(network.attn_pool, AttentionPool)
    assert network.attn_pool.num_heads == 4
    assert isinstance(network.attn_pool.mlp[1], nn.ReLU)
    assert not [name for name in network.state_dict() if name.endswith("qkv.bias")]
    uniform = small(drop_path_rate=0.3, drop_path_uniform=True)
    assert {module.rate for module in uniform.modules() if isinstance(module, DropPath)} == {0.3}


@torch.no_grad()
def test_it_starts_as_its_paper_says() -> None:
    network = create_network("vit_reg1_s16", 10)
    assert isinstance(network, ViT)
    assert network.pos_embedding is not None and network.reg_tokens is not None and network.class_token is not None
    assert not network.reg_tokens.any()
    assert not network.class_token.any()
    assert float(network.pos_embedding.std()) == pytest.approx(0.02, rel=0.05)
    # A normal distribution, cut at +-2 whatever its deviation is: nothing is cut off here.
    assert float(network.conv_proj.weight.std()) == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.05)
    block = network.blocks()[0]
    assert float(block.get_parameter("attn.qkv.weight").std()) == pytest.approx(0.02, rel=0.05)
    # Uniform between +-1 / sqrt(fan_in).
    assert float(block.get_parameter("mlp.0.weight").abs().max()) == pytest.approx(384**-0.5, rel=0.01)
    for name in ("conv_proj.bias", "classifier.weight", "classifier.bias", "encoder.block.0.attn.qkv.bias"):
        assert not network.get_parameter(name).any(), name
    assert network(torch.randn(1, 3, 224, 224)).std() == 0


def test_a_larger_head_starts_at_zero_in_its_last_layer() -> None:
    network = create_network("vit_t16", 4, size=(32, 32), mlp_head=True, **SMALL)
    assert not network.get_parameter("classifier.3.weight").any()
    assert network.get_parameter("classifier.0.weight").any()


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "projection_dropout", "drop_path_rate"])
def test_dropout_is_of_the_training_alone(option: str) -> None:
    network = small(pre_norm=True, **{"drop_path_rate": 0.0, option: 0.5})
    assert list(network.state_dict()) == list(small(pre_norm=True).state_dict())
    x = pictures()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_checkpointing_keeps_gradients() -> None:
    """With a classifier that is not zero, as it is in the checks of every network."""
    network = small("vit_b16_qkn_ls").train()
    x = pictures()

    def gradients() -> list[Tensor]:
        network.zero_grad()
        torch.manual_seed(0)  # of the drop paths
        network(x).square().sum().backward()
        return [weight.grad for weight in network.parameters() if weight.grad is not None]

    plain = gradients()
    network.set_gradient_checkpointing()
    again = gradients()
    assert len(plain) == len(again) == len(list(network.parameters()))
    assert network.conv_proj.weight.grad is not None and network.conv_proj.weight.grad.any()
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_reg4_b16", {}),
        pytest.param("vit_b16_nf_swiglu", {"attn_pool_head": True}, marks=pytest.mark.slow),
        pytest.param("vit_s16_soft_moe_32e_4s_avg", {"soft_moe_num_experts": 2}, marks=pytest.mark.slow),
        pytest.param("vit_reg4_so150m_p14_eps", {"patch_size": 16, "hidden_dim": 32}, marks=pytest.mark.slow),
    ],
)
def test_it_compiles_in_one_piece_for_any_number_of_pictures(name: str, options: dict[str, Any]) -> None:
    network = small(name, num_layers=2, **options)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (pictures(),), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for x in (pictures(), pictures()[:1].expand(5, -1, -1, -1)):
        torch.testing.assert_close(program(x), network(x))
        torch.testing.assert_close(compiled(x), network(x))
    torch._dynamo.reset()


def test_nothing_hides_from_the_state() -> None:
    with torch.device("meta"):
        network = create_network("vit_b16_hmlp_bn", 4)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    names = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    assert names == set(network.state_dict())


def test_it_does_what_objectives_ask() -> None:
    network = small()
    assert isinstance(network, MasksTokens) and isinstance(network, DropsTokens) and isinstance(network, ShowsLayers)


class OldBlock(nn.Module):
    """A block as files before 0.4 have it, with torch's own attention."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.ln2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width), nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln1(x)
        x = x + self.self_attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


def test_older_files_give_the_same_numbers() -> None:
    network = small()
    old = nn.Sequential(*(OldBlock(16, 2, 24) for _ in range(3)))
    for weight in old.parameters():
        nn.init.normal_(weight, std=0.3)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("encoder.block.")}
    state.update({f"encoder.block.{name}": tensor for name, tensor in old.state_dict().items()})
    load_weights(network, state)
    x = pictures()
    expected = network.norm(old(network.tokens(network.patches(x))))
    torch.testing.assert_close(network.forward_features(x), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.5, "attention_dropout": 0.5, "projection_dropout": 0.5, "drop_path_rate": 0.5},
        {"layer_scale_init_value": 1e-5, "norm_layer_type": "RMSNorm", "qk_norm": True, "attn_norm": True},
        {"mlp_layer_type": "SoftMoE_FFN", "soft_moe_num_experts": 2, "soft_moe_num_slots": 2},
        {"attn_pool_head": True, "attn_pool_num_heads": 16},
        {"attn_pool_head": True, "attn_pool_type": "EfficientProbing", "hidden_dim": 32},
        {"stem_type": "hmlp", "stem_norm_layer_type": "BatchNorm2d"},
    ],
)
def test_blocks_for_decoders_are_plain_whatever_the_network_has(options: dict[str, Any]) -> None:
    """Of a width and heads that would not go with some of the options."""
    block = small(**options).token_block(18, num_heads=3).train()
    x = torch.randn(2, 7, 18)
    assert torch.equal(block(x), block(x))
    shapes = {name: tuple(weight.shape) for name, weight in block.named_parameters()}
    assert shapes["attn.qkv.weight"] == (3 * 18, 18)
    assert shapes["mlp.0.weight"] == (4 * 18, 18)
    assert not [name for name in shapes if "layer_scale" in name]
    assert block.get_submodule("attn").num_heads == 3
    assert ("attn.q_norm.weight" in shapes) == ("qk_norm" in options)
