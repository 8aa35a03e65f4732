"""What objectives ask of networks."""

from typing import Protocol, runtime_checkable

import pytest

from birder.errors import ConfigError
from birder.layers.shape import DropPath
from birder.model_file import load_model, save_model
from birder.networks import create_network, networks
from birder.networks.convnext_v2 import ConvNeXtV2
from birder.objectives.base import check_ability
from birder.objectives.configs import Data2VecConfig, FCMAEConfig, IJEPAConfig, MAEConfig, SimMIMConfig
from birder.objectives.methods import create_objective
from birder.signature import rgb_stats
from birder.testing import labelled_pictures, small_network


@runtime_checkable
class Sings(Protocol):
    def sing(self, song: str) -> None: ...


def check(network):
    check_ability(network, Sings, needed_by="choir", ability="sing", otherwise="hum")


def test_the_message_names_networks_that_can(monkeypatch):
    class Singer(ConvNeXtV2):
        def sing(self, song: str) -> None: ...

    with pytest.raises(ConfigError, match=r"^choir needs a network that can sing; convnext_v2_atto cannot\. "
                                          r"No registered network can: hum$"):  # fmt: skip
        check(small_network())
    for number in range(9):
        monkeypatch.setitem(networks._entries, f"singer_{number}", (Singer, None))
    with pytest.raises(ConfigError, match=r"These can: singer_0, singer_1, .*singer_7, …$"):
        check(small_network())
    network = small_network()
    network.__class__ = Singer
    check(network)


SMALL_VIT = {"size": (32, 32), "patch_size": 4, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
SMALL_CONV = {"size": (64, 64), "in_channels": (8, 8, 16, 24), "num_layers": (1, 1, 1, 1)}
KEEP_ALL_PATHS = [
    (MAEConfig(decoder_depth=1, decoder_width=32), "vit_b16", SMALL_VIT, 0.1),
    (IJEPAConfig(predictor_depth=1, predictor_width=32, predictor_heads=2), "vit_b16", SMALL_VIT, 0.1),
    (FCMAEConfig(decoder_width=16, mask_ratio=0.5), "convnext_v2_tiny", SMALL_CONV, 0.2),
]
DROP_PATHS = [
    (SimMIMConfig(cell=8), "vit_b16", SMALL_VIT, 0.1),
    (Data2VecConfig(min_masked=4), "vit_b16", SMALL_VIT, 0.1),
]


def rates(network):
    return [module.rate for module in network.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize(
    ("config", "name", "options", "rate"), KEEP_ALL_PATHS, ids=lambda value: getattr(value, "name", "")
)
def test_some_objectives_drop_no_paths_and_their_files_still_say_the_rate(config, name, options, rate, tmp_path):
    network = create_network(name, 0, **options)
    before = rates(network)
    assert max(before) == pytest.approx(rate)
    objective = create_objective(config, network).train()
    assert not any(rates(objective.network))
    masks = (objective.blocks if config.name == "i_jepa" else objective.masks)(8)
    images = labelled_pictures(network).images
    run = (
        (lambda: objective.predictions(images, *masks))
        if config.name == "i_jepa"
        else (lambda: objective.draw(images, masks))
    )
    assert (run() == run()).all(), "nothing but the masks is left to chance"

    path = tmp_path / "model.safetensors"
    save_model(path, objective.result, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    loaded, _ = load_model(path, inference=False)
    assert rates(loaded) == before
    assert loaded.config == network.config == create_network(name, 0, **options).config


@pytest.mark.parametrize(
    ("config", "name", "options", "rate"), DROP_PATHS, ids=lambda value: getattr(value, "name", "")
)
def test_others_drop_paths_as_the_network_says(config, name, options, rate):
    objective = create_objective(config, create_network(name, 0, **options))
    assert max(rates(objective.network)) == pytest.approx(rate)
