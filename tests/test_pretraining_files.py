"""Files of a pretraining: the network is taken out of them, whatever stands beside it."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import save_file

from birder.errors import ModelFileError, WeightsMismatch
from birder.model_file import load_model, load_model_with_cfg, read_model
from birder.signature import PRESETS, make_signature
from birder.testing import small_vit

FILES = "golden/checkpoints/files"
CONFIG = {"patch_size": 4, "num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
MIM, SSL = "masked_image_modeling", "self_supervised_learning"

# A task; prefixes of networks that stand in the file, the last of which is right; and other weights.
MODULES = {
    "mae": (MIM, ["encoder."], ["mask_token", "decoder_pos_embed", "decoder.0.norm1.weight", "decoder_embed.weight"]),
    "simmim": (MIM, ["encoder."], ["mask_token", "decoder.weight"]),
    "mmcr": (SSL, ["momentum_encoder.backbone.", "backbone.", "encoder.backbone."], ["encoder.projector.0.weight"]),
    "data2vec": (SSL, ["backbone.", "ema_backbone."], ["mask_token", "head.weight"]),
    "byol": (SSL, ["target_encoder.backbone.", "backbone.", "online_encoder.backbone."], ["online_predictor.0.bias"]),
    "dino": (SSL, ["student.backbone.", "teacher.backbone."], ["student.head.0.weight", "loss.center"]),
    "i_jepa": (SSL, ["encoder.backbone.", "target_encoder.backbone."], ["predictor.0.weight"]),
    "simclr": (SSL, ["backbone."], ["projection_head.0.weight"]),
}


def entries_of(task):
    return {
        "task": task,
        "birder_version": "v0.8.4",
        "class_to_idx": {},
        "signature": {"inputs": [{"data_shape": [0, 3, 32, 32]}], "outputs": [{"data_shape": [0, 3, 32, 32]}]},
        "rgb_stats": PRESETS["imagenet"],
        "config": {"decoder_depth": 1},
    }


def write(path, task, prefixes, others):
    """A file with networks of different weights; returns the last of them."""
    state = {name: torch.randn(2) for name in others}
    for prefix in prefixes:
        network = small_vit()
        state |= {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    if path.suffix == ".pt":
        torch.save({"state": state, **entries_of(task)}, path)
    else:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries_of(task).items()}
        save_file(state, path, texts)
    return network.eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("method", MODULES)
def test_the_network_that_was_learned_is_loaded(method, suffix, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="birder")
    path = tmp_path / f"{method}_dec512d12_vit_t16_eu_30{suffix}"
    expected = write(path, *MODULES[method])
    network, info = load_model(path, config=CONFIG)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(x), expected(x))
    assert (network.name, network.num_classes, network.size) == ("vit_t16", 0, (32, 32))
    assert info.class_to_idx == {}
    assert info.custom_config == CONFIG  # and not those of a decoder
    prefix = re.escape(MODULES[method][1][-1])
    (line,) = caplog.messages
    assert re.search(rf"v0.8.4: of a pretraining, only the network is loaded, 42 weights {prefix}\*$", line), line


def test_the_file_says_what_was_taken(tmp_path):
    write(tmp_path / "mae.pt", *MODULES["mae"])
    file = read_model(tmp_path / "mae.pt")
    assert (file.task, file.taken_from, file.config) == ("image_classification", "encoder.", None)
    assert "conv_proj.weight" in file.state
    assert "mask_token" not in file.state


def test_what_cannot_be_taken_out_is_told(tmp_path):
    path = tmp_path / "mae_vit_t16.pt"
    write(path, MIM, ["model."], ["mask_token"])
    with pytest.raises(ModelFileError, match=r"for masked_image_modeling, but holds no network .* under encoder\.\*"):
        load_model(path)
    write(tmp_path / "mae.pt", *MODULES["mae"])
    with pytest.raises(ModelFileError, match="does not say which network it holds"):
        load_model(tmp_path / "mae.pt")
    write(path, *MODULES["mae"])
    with pytest.raises(WeightsMismatch, match="do not fit vit_t16"):  # without its options
        load_model(path)
    network = small_vit()  # of an ordinary file, the name must begin with that of the network
    entries = entries_of("image_classification") | {"signature": make_signature(0, 3, (32, 32))}
    torch.save({"state": network.state_dict(), **entries}, tmp_path / "a_vit_t16.pt")
    with pytest.raises(ModelFileError, match="which network"):
        load_model(tmp_path / "a_vit_t16.pt")


@pytest.mark.parametrize("part", ["encoder", "base_net"])
def test_a_configuration_of_a_pretraining(part, tmp_path):
    expected = write(tmp_path / "file.pt", *MODULES["mae"])
    content = {
        "name": "mae_vit",
        "task": MIM if part == "encoder" else SSL,
        "model_config": {"decoder_depth": 1},
        "signature": entries_of(MIM)["signature"],
        part: "vit",
        f"{part}_registered_name": "vit_t16",
        f"{part}_config": CONFIG,
    }
    network, returned = load_model_with_cfg(content, tmp_path / "file.pt")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(x), expected(x))
    assert returned == content
    assert load_model_with_cfg(content, None)[0].config == network.config
    older = {**content, f"{part}_registered_name": None, f"{part}_alias": "vit_s16"}
    assert load_model_with_cfg(older, None)[0].name == "vit_s16"
    with pytest.raises(ModelFileError, match="no entry encoder or base_net"):
        load_model_with_cfg({name: value for name, value in content.items() if name != part}, None)
    with pytest.raises(ModelFileError, match="must be tables"):
        load_model_with_cfg({**content, "signature": None}, None)


def test_a_file_of_the_older_package(shared):
    micro = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    network, info = load_model(shared / FILES / "mae_vit_vit_l16_micro_2.pt", config=micro)
    alone, _ = load_model(shared / FILES / "vit_l16_mim-micro_2.pt", config=micro)
    assert (network.name, network.size, info.rgb_stats) == ("vit_l16", (64, 64), PRESETS["birder"])
    assert all(torch.equal(tensor, alone.state_dict()[name]) for name, tensor in network.state_dict().items())
    again, _ = load_model_with_cfg(
        shared / FILES / "mae_vit_vit_l16_micro.json", shared / FILES / "mae_vit_vit_l16_micro_2.pt"
    )
    assert torch.equal(again.state_dict()["class_token"], network.state_dict()["class_token"])
