"""Model files of every age: each gives the numbers that its writer got, and the log says what was adapted."""

import json
import logging
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import birder
from birder.errors import ConfigError, ModelFileError, UnknownName
from birder.model_file import load_model, load_model_with_cfg, save_model
from birder.model_file.versions import adaptation, version_number
from birder.networks import Network, networks
from birder.networks.base import NetworkConfig, Older
from birder.signature import PRESETS, make_signature

SUFFIXES = (".pt", ".safetensors")
FILES = "golden/checkpoints/files"


@dataclass(frozen=True, kw_only=True)
class AgedConfig(NetworkConfig):
    width: int = 4
    norm_eps: float = 1e-6
    stage_norm_eps: float = 1e-6


class Aged(Network):
    """Two norms whose eps changed at different times, and weights whose names did."""

    max_stride = 1
    renamed = ((r"^ln(\d)\.", r"norm\1."), (r"^patch\.", "stem."))
    older = (
        Older(before=(0, 4), options={"norm_eps": 1e-2, "stage_norm_eps": 1e-1}, reason="norms as before 0.4"),
        Older(before=(0, 7), options={"stage_norm_eps": 1e-1}, reason="last norm as before 0.7"),
    )

    def __init__(self, config, **options):
        super().__init__(config, **options, max_stride=1)
        self.stem = nn.Conv2d(3, config.width, 1)
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.norm2 = nn.LayerNorm(config.width, eps=config.stage_norm_eps)
        self.embedding_size = config.width
        self.reset_classifier(self.num_classes)

    def embedding(self, x):
        return self.norm2(self.norm1(self.stem(x).mean(dim=(2, 3))))


def normalised(x, eps):
    """Layer normalisation in float64, by its formula."""
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()


def expected(state, x, first, last):
    """Logits of ``Aged`` in float64, with the eps of the two norms."""
    state, x = {name: tensor.double() for name, tensor in state.items()}, x.double().mean(dim=(2, 3))
    x = x @ state["stem.weight"].flatten(1).T + state["stem.bias"]
    return normalised(normalised(x, first), last) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.fixture
def aged(monkeypatch):
    """A network of that kind; its values are small, so that eps matters."""
    monkeypatch.setitem(networks._entries, "aged", (Aged, AgedConfig()))
    network = birder.create_network("aged", 2, size=(8, 8))
    nn.init.normal_(network.stem.weight, std=0.1)
    return network.eval()


@pytest.fixture
def pictures():
    return torch.randn(4, 3, 8, 8)


def write(path, network, version, *, config=None, entry="rgb_stats", container=tuple, names=()):
    """A file as a version of the older package wrote it; ``names`` are replacements in the names of weights."""
    state = dict(network.state_dict())
    for new, old in names:
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    statistics = {name: container(values) for name, values in PRESETS["clip"].items()}
    entries = {
        "birder_version": version,
        "task": "image_classification",
        "class_to_idx": {"a": 0, "b": 1},
        "signature": make_signature(2, 3, (8, 8)),
        entry: statistics,
        "config": config,
    }
    entries = {name: value for name, value in entries.items() if value is not None}
    if path.suffix == ".pt":
        torch.save({"state": state, **entries}, path)
    else:
        from safetensors.torch import save_file

        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}
        save_file(state, path, texts)
    return path


AGES = [
    (None, 1e-2, 1e-1),
    ("v0.0.6a6", 1e-2, 1e-1),
    ("v0.3.1", 1e-2, 1e-1),
    ("v0.3.99.dev1", 1e-2, 1e-1),
    ("v0.4", 1e-6, 1e-1),
    ("v0.4.0", 1e-6, 1e-1),
    ("0.6.2", 1e-6, 1e-1),
    ("v0.7.0a1", 1e-6, 1e-6),
    ("v0.8.4", 1e-6, 1e-6),
    ("v1.0.0.dev0", 1e-6, 1e-6),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("version", "first", "last"), AGES)
def test_the_numbers_of_the_writer(version, first, last, suffix, tmp_path, aged, pictures, caplog):
    caplog.set_level(logging.INFO, logger="birder")
    path = write(tmp_path / f"aged_x_3{suffix}", aged, version)
    network, info = load_model(path)
    reference = expected(aged.state_dict(), pictures, first, last)
    assert torch.allclose(network(pictures).double(), reference, atol=1e-5)
    unlike = [pair for pair in ((1e-2, 1e-1), (1e-6, 1e-1), (1e-6, 1e-6)) if pair != (first, last)]
    for pair in unlike:
        assert (expected(aged.state_dict(), pictures, *pair) - reference).abs().max() > 1e-3
    assert (network.config.norm_eps, network.config.stage_norm_eps) == (first, last)
    if (first, last) == (1e-6, 1e-6):
        assert info.custom_config is None
        assert not caplog.messages
    else:
        changed = {"norm_eps": first, "stage_norm_eps": last} if first == 1e-2 else {"stage_norm_eps": last}
        assert info.custom_config == changed
        (line,) = caplog.messages
        assert line.startswith(f"{path}, " + (f"written by birder {version}: " if version else "without a version: "))
        reason = "norms as before 0.4 (norm_eps = 0.01, " if first == 1e-2 else "last norm as before 0.7 ("
        assert line.endswith(f": {reason}stage_norm_eps = 0.1)")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_that_is_saved_again_keeps_its_numbers(suffix, tmp_path, aged, pictures, caplog):
    network, _ = load_model(write(tmp_path / f"aged_x_3{suffix}", aged, "v0.3.1"))
    again = tmp_path / f"again{suffix}"
    save_model(again, network, class_to_idx={"a": 0, "b": 1}, rgb_stats=PRESETS["clip"])
    caplog.set_level(logging.INFO, logger="birder")
    twice, info = load_model(again)
    assert torch.equal(twice(pictures), network(pictures))
    assert info.custom_config == {"norm_eps": 1e-2, "stage_norm_eps": 1e-1}
    assert not caplog.messages


def test_options_that_are_set_stay(tmp_path, aged, caplog):
    caplog.set_level(logging.INFO, logger="birder")
    path = write(tmp_path / "aged.pt", aged, "v0.3.1", config={"norm_eps": 0.5})
    config = load_model(path)[0].config
    assert (config.norm_eps, config.stage_norm_eps) == (0.5, 1e-1)
    assert caplog.messages[-1].endswith("(stage_norm_eps = 0.1)")
    config = load_model(path, config={"norm_eps": 0.25, "stage_norm_eps": 0.125})[0].config
    assert (config.norm_eps, config.stage_norm_eps) == (0.25, 0.125)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_older_names_are_counted_in_the_log(suffix, tmp_path, aged, pictures, caplog):
    caplog.set_level(logging.INFO, logger="birder")
    path = write(tmp_path / f"aged{suffix}", aged, "v0.8.0", names=[("norm", "ln"), ("stem", "patch")])
    assert torch.equal(load_model(path)[0](pictures), aged(pictures))
    assert caplog.messages == [f"{path}, written by birder v0.8.0: 6 weights have other names today"]


def test_a_weight_under_both_names_is_refused(tmp_path, aged):
    path = write(tmp_path / "aged.pt", aged, None)
    entries = torch.load(path, weights_only=True)
    entries["state"]["ln1.bias"] = torch.zeros(4)
    torch.save(entries, path)
    with pytest.raises(ValueError, match="twice, under its older and its present name"):
        load_model(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("entry", ["rgb_stats", "rgb_values"])
@pytest.mark.parametrize("container", [tuple, list])
def test_statistics_under_both_names_as_tuples_or_lists(container, entry, suffix, tmp_path, aged):
    path = write(tmp_path / f"aged{suffix}", aged, None, entry=entry, container=container)
    assert load_model(path)[1].rgb_stats == PRESETS["clip"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, ()),
        ("v0.3.1", (0, 3, 1)),
        ("0.3", (0, 3)),
        ("v0.0.6a6", (0, 0, 6)),
        ("v1.0.0.dev0", (1, 0, 0)),
        ("v1.0.0rc1.dev3+g12ab", (1, 0, 0)),
        ("v10.20.30.post1", (10, 20, 30)),
    ],
)
def test_versions(text, number):
    assert version_number(text) == number


@pytest.mark.parametrize("text", ["", "v", "latest", "v0.3.x", "0,3", "v-1.0", "1.0 or so", "٣.٤", "v0.4\n"])
def test_what_is_no_version(text, tmp_path, aged):
    with pytest.raises(ModelFileError, match="no version such as"):
        version_number(text)
    with pytest.raises(ModelFileError, match=r"aged\.pt: birder_version is"):
        load_model(write(tmp_path / "aged.pt", aged, text))


def test_json_takes_the_version_of_the_weights(tmp_path, aged, pictures):
    path = write(tmp_path / "aged.pt", aged, "v0.3.1")
    content = {"registered_name": "aged", "birder_version": "v0.8.4", "signature": make_signature(2, 3, (8, 8))}
    network, _ = load_model_with_cfg(content, path)
    assert torch.equal(network.eval()(pictures), load_model(path)[0](pictures))
    assert network.config.norm_eps == 1e-2
    network, _ = load_model_with_cfg({**content, "model_config": {"norm_eps": 0.5}}, path)
    assert (network.config.norm_eps, network.config.stage_norm_eps) == (0.5, 1e-1)
    assert load_model_with_cfg(content, None)[0].config == AgedConfig()


SIZE = {"signature": make_signature(2, 3, (64, 64))}
WIDTHS = {"model_config": {"in_channels": [8, 8, 8, 8], "num_layers": [1, 1, 1, 1]}}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"registered_name": "convnext_v2_pico", "name": "convnext_v2"}, "convnext_v2_pico"),
        ({"registered_name": None, "alias": None, "name": "convnext_v2_nano"}, "convnext_v2_nano"),
        ({"alias": "convnext_v2_pico", "name": "convnext_v2"}, "convnext_v2_pico"),
        ({"alias": None, "name": "aged", "net_param": None}, "aged"),
        ({"name": "aged", "net_param": 50}, "aged"),
        ({"name": "aged", "net_param": 3}, "aged_3"),
    ],
)
def test_json_under_the_words_of_any_version(content, name, aged, monkeypatch):
    monkeypatch.setitem(networks._entries, "aged_3", (Aged, AgedConfig()))
    options = WIDTHS if name.startswith("convnext") else {"model_config": None}
    assert load_model_with_cfg({**content, **SIZE, **options}, None)[0].name == name


def test_json_that_names_the_architecture_alone():
    """Its options are complete, so any network of the architecture is the one that is meant."""
    content = {"name": "convnext_v2", "registered_name": None, **SIZE, **WIDTHS}
    network, _ = load_model_with_cfg(content, None)
    assert (network.config.in_channels, network.config.num_layers) == ((8, 8, 8, 8), (1, 1, 1, 1))
    with pytest.raises(ModelFileError, match=r"which network it describes .*; add its registered_name"):
        load_model_with_cfg({**content, "model_config": None}, None)
    with pytest.raises(ModelFileError, match="which network it describes"):
        load_model_with_cfg({**SIZE, **WIDTHS}, None)
    with pytest.raises(UnknownName, match=r"the configuration: .*did you mean convnext_v2_pico"):
        load_model_with_cfg({**content, "registered_name": "convnext_v2_picco"}, None)
    with pytest.raises(ConfigError, match=r"the configuration: .*widths: no such option"):
        load_model_with_cfg({**content, "model_config": {"widths": 3}}, None)
    for wrong in ({"signature": None}, {"model_config": [1]}, {"signature": {"inputs": []}}):
        with pytest.raises(ModelFileError, match=r"the configuration: .*signature"):
            load_model_with_cfg({**content, **wrong}, None)


def test_the_rules_of_pvt_v2():
    cls, _ = networks["pvt_v2_b2"]
    assert adaptation(cls, "v0.3.1", {})[0] == {"norm_eps": 1e-5, "stage_norm_eps": 1e-5}
    assert adaptation(cls, "v0.6.2", {})[0] == {"stage_norm_eps": 1e-5}
    assert adaptation(cls, "v0.8.4", {}) == ({}, "")


@pytest.mark.parametrize("name", ["atto_micro_3.pt", "atto_micro.safetensors", "atto_4ch_1.pt"])
def test_files_of_the_older_package(name, shared):
    network, info = load_model(shared / FILES / f"convnext_v2_{name}")
    assert network.name == "convnext_v2_atto"
    assert network.num_classes == len(info.class_to_idx)
    assert len(info.rgb_stats["mean"]) == network.input_channels


def test_a_state_of_a_training_of_the_older_package_is_something_else(shared):
    with pytest.raises(ModelFileError, match="the state of a training"):
        load_model(shared / FILES / "mae_vit_vit_l16_micro_2_states.pt")
