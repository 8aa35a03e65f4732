"""What all networks share: creating, listing, classifiers, sizes, channels."""

import pytest
import torch

from birder.errors import ConfigError, UnknownName
from birder.networks import Network, create_network, list_networks, networks
from birder.networks.base import MasksTokens, NetworkConfig

SMALL = {"in_channels": (8, 16, 24, 32), "num_layers": (1, 1, 2, 1)}


def small(num_classes: int = 4, **options: object) -> Network:
    return create_network("convnext_v2_atto", num_classes, **SMALL, **options)


def test_names_are_those_of_the_table() -> None:
    assert list_networks() == list(networks)
    assert list_networks("convnext_v2_n*") == ["convnext_v2_nano"]
    assert list_networks("nothing*") == []


def test_upper_case_will_do() -> None:
    assert create_network("ConvNeXt_v2_Atto", 2, **SMALL).name == "convnext_v2_atto"


def test_it_knows_what_it_was_built_with() -> None:
    network = small(7, input_channels=4, size=(64, 96))
    assert (network.num_classes, network.input_channels, network.size) == (7, 4, (64, 96))
    assert network.config.in_channels == SMALL["in_channels"]
    assert isinstance(network, MasksTokens)


def test_options_leave_the_registered_configuration_alone() -> None:
    before = networks["convnext_v2_atto"][1]
    small()
    assert networks["convnext_v2_atto"][1] == before


@pytest.mark.parametrize("size", [(64,), (64, 0), (64.0, 64), 64, (64, -64), ("64", "64"), (64, 64, 64), (64, 31)])
def test_a_size_is_two_whole_numbers_that_the_network_can_take(size: object) -> None:
    with pytest.raises(ConfigError, match=r"size must be \(height, width\), 32 pixels or more each, not"):
        small(size=size)
    with pytest.raises(ConfigError, match=r"size must be \(height, width\), 32 pixels or more each, not"):
        small().adjust_size(size)  # type: ignore[arg-type]


def test_impossible_numbers_of_classes_and_channels() -> None:
    with pytest.raises(ConfigError, match="num_classes must be 0 or more"):
        small(-1)
    with pytest.raises(ConfigError, match="input_channels 1 or more"):
        small(input_channels=0)
    with pytest.raises(ConfigError, match="at least one input channel"):
        small().adjust_input_channels(0)


def test_an_unknown_network_is_a_key_error_too() -> None:
    with pytest.raises(KeyError):
        create_network("resnet_one_billion", 10)
    with pytest.raises(UnknownName) as caught:
        create_network("zzz", 10)
    assert str(caught.value) == "no network is called 'zzz'"


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, 4, 6, 7])
def test_other_channels_give_the_same_answer_to_gray(channels: int) -> None:
    network = small().eval()
    gray = torch.randn(1, 1, 64, 64)
    before = network(gray.expand(-1, 3, -1, -1))
    network.adjust_input_channels(channels)
    assert network.input_channels == channels
    after = network(gray.expand(-1, channels, -1, -1))
    if channels in (1, 3, 6):  # whole copies of the weights; others repeat some channels more often
        torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-4)


def test_other_channels_keep_what_is_frozen_frozen() -> None:
    network = small().requires_grad_(False)
    network.adjust_input_channels(4)
    assert not any(weight.requires_grad for weight in network.parameters())


def test_the_configuration_has_defaults() -> None:
    assert NetworkConfig() == NetworkConfig(head_bias=True, mlp_head=False)


def test_a_new_classifier_is_where_and_what_the_network_is() -> None:
    network = small().bfloat16().eval()
    network.reset_classifier(7)
    assert network(torch.zeros(1, 3, 32, 32).bfloat16()).shape == (1, 7)
    assert not network.classifier.training
    network = small().to("meta")
    network.reset_classifier(7)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_a_hidden_layer_before_the_classifier_can_learn() -> None:
    """Only the last layer starts near zero; were the norm before it as small, no gradient would come through."""
    network = small(mlp_head=True)
    hidden, _, norm, last = network.classifier
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert hidden.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert last.weight.std().item() == pytest.approx(0.02e-3, rel=0.2)


@pytest.mark.parametrize(
    "options",
    [{"drop_path_rate": 1.0}, {"drop_path_rate": -0.1}, {"num_layers": (1, 0, 1, 1)}, {"in_channels": (0,) * 4}],
)
def test_options_out_of_range_are_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        create_network("convnext_v2_atto", 10, **options)


def test_freezing_goes_through_the_stages_in_order() -> None:
    network = small(drop_path_rate=0.1).train()
    network.freeze(2)
    learning = {
        name.split(".")[0] + "." + name.split(".")[1] for name, w in network.named_parameters() if w.requires_grad
    }
    assert learning == {"body.stage3", "body.stage4", "features.1", "classifier.weight", "classifier.bias"}
    assert not network.stem.training and not network.body.stage2.training and network.body.stage3.training
    network.eval().train()
    assert not network.body.stage2.training, "the mode of frozen parts was not kept"
    network.freeze(0)
    assert [name for name, weight in network.named_parameters() if not weight.requires_grad] == list(network.frozen)
    assert {name.split(".")[0] for name in network.frozen} == {"stem"}
    assert network.body.stage2.training
    network.freeze()
    assert [name for name, w in network.named_parameters() if w.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]


@pytest.mark.parametrize("stages", [-1, 5])
def test_no_more_stages_than_there_are_can_be_frozen(stages: int) -> None:
    with pytest.raises(ConfigError, match=f"freeze: .* has 4 stages: give 0 to 4, not {stages}"):
        small().freeze(stages)


def test_a_new_classifier_of_a_frozen_network_learns() -> None:
    network = small()
    network.freeze()
    network.reset_classifier(9)
    assert network.classifier.weight.requires_grad
