"""Model files: written and read back, refused when damaged, never executed."""

import json
import os
import pickle
import sys
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import birder
from birder.errors import BirderError, ModelFileError, UnknownName, WeightsMismatch
from birder.model_file import load_model, load_model_with_cfg, load_weights, read_model, save_model, write_model
from birder.signature import PRESETS

TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
CLASSES = {"Grünspecht": 0, "鳥": 1, "Robin": 2}


def tiny(num_classes=3, **options):
    torch.manual_seed(7)
    return birder.create_network("convnext_v2_atto", num_classes, size=(32, 64), **{**TINY, **options})


@pytest.fixture(params=[".pt", ".safetensors"])
def path(request, tmp_path):
    path = tmp_path / f"model{request.param}"
    save_model(path, tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    return path


def test_a_model_comes_back_as_it_was(path):
    network, info = load_model(path)
    assert network.name == "convnext_v2_atto"
    assert network.size == (32, 64)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name, tensor in tiny().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    assert info.class_to_idx == CLASSES
    assert info.signature == {
        "inputs": [{"data_shape": [0, 3, 32, 64]}],
        "outputs": [{"data_shape": [0, 3]}],
    }
    assert info.rgb_stats == PRESETS["clip"]


def test_ready_for_training_when_asked(path):
    network, _ = load_model(path, inference=False)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_two_formats_hold_the_same(tmp_path):
    network = tiny()
    for suffix in (".pt", ".safetensors"):
        save_model(tmp_path / f"m{suffix}", network, class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    first, second = read_model(tmp_path / "m.pt"), read_model(tmp_path / "m.safetensors")
    assert list(first.state) == list(network.state_dict())
    assert sorted(first.state) == sorted(second.state)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    for entry in ("signature", "class_to_idx", "rgb_stats", "task", "birder_version", "network"):
        assert getattr(first, entry) == getattr(second, entry)


def test_the_published_layout_of_pt(tmp_path):
    """The entries, and their types, that readers of the published files rely on."""
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    assert {"state", "task", "signature", "class_to_idx", "rgb_stats", "birder_version", "config"} <= set(entries)
    assert entries["task"] == "image_classification"
    assert entries["birder_version"] == f"v{birder.__version__}"
    assert entries["rgb_stats"]["mean"] == PRESETS["clip"]["mean"]
    assert isinstance(entries["rgb_stats"]["std"], tuple)


def test_registered_options_are_not_written(tmp_path):
    network = birder.create_network("convnext_v2_atto", 3)
    save_model(tmp_path / "m.pt", network, class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    assert "config" not in torch.load(tmp_path / "m.pt", weights_only=True)


def test_the_name_of_the_file_tells_the_network_when_nothing_else_does(path):
    file = read_model(path)
    nameless = path.with_name(f"convnext_v2_atto_my-birds_12{path.suffix}")
    write_model(nameless, type(file)(**{**vars(file), "network": None}))
    assert load_model(nameless)[0].name == "convnext_v2_atto"
    unknown = path.with_name(f"birds{path.suffix}")
    nameless.rename(unknown)
    with pytest.raises(ModelFileError, match="does not say which network"):
        load_model(unknown)
    assert load_model(unknown, network="convnext_v2_atto")[0].num_classes == 3


def test_a_size_can_be_asked_for(path):
    assert load_model(path, size=(96, 96))[0].size == (96, 96)


def test_statistics_under_their_older_name(tmp_path):
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    entries["rgb_values"] = entries.pop("rgb_stats")
    torch.save(entries, tmp_path / "m.pt")
    assert read_model(tmp_path / "m.pt").rgb_stats == PRESETS["clip"]


def test_weights_that_do_not_fit_are_counted_and_named(path):
    state = tiny().state_dict()
    state["classifier.weight"] = torch.zeros(4, 16)
    state["other"] = state.pop("stem.0.bias")
    network = tiny()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsMismatch) as raised:
        load_weights(network, state)
    message = str(raised.value)
    assert "3 of 60 weights do not fit convnext_v2_atto" in message
    assert "classifier.weight is (4, 16), expected (3, 16)" in message
    assert "stem.0.bias is missing" in message
    assert "other is not known" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_older_names_are_translated():
    network = tiny()
    network.renamed = ((r"^trunk\.", "body."), (r"\.conv\.", ".block.0."))
    state = {
        name.replace(".block.0.", ".conv.").replace("body.", "trunk."): tensor + 1
        for name, tensor in network.state_dict().items()
    }
    load_weights(network, state)
    assert torch.equal(network.body.stage1[0].block[0].bias, tiny().body.stage1[0].block[0].bias + 1)


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def damage(path, kind):
    content = path.read_bytes()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_text("not a model")
        case "json":
            path.write_text(json.dumps({"state": {}}))
        case "code":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/data.pkl", pickle.dumps({"state": Malicious()}, protocol=2))
                archive.writestr("a/version", "3")
        case "pickle":
            path.write_bytes(pickle.dumps({"state": Malicious()}, protocol=2))
        case "list":
            torch.save([1, 2], path)
        case "state only":
            torch.save({"state": {}}, path)
        case "no weights":
            torch.save({"state": 3, "signature": {}}, path)
        case "no statistics":
            torch.save({"state": {}, "signature": {}, "rgb_stats": {"mean": (1, 2)}}, path)


KINDS = ("empty", "half", "text", "json", "code", "pickle", "list", "state only", "no weights", "no statistics")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_with_its_name(path, kind, monkeypatch):
    monkeypatch.chdir(path.parent)
    damage(path, kind)
    with pytest.raises(ModelFileError, match=path.name):
        load_model(path)
    assert not (path.parent / "executed").exists()


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("class_to_idx", ["a", "b", "c"], "class_to_idx does not give each"),
        ("class_to_idx", {"a": 0, "b": 0, "c": 2}, "class_to_idx does not give each"),
        ("class_to_idx", {"a": "0", "b": "1", "c": "2"}, "class_to_idx does not give each"),
        ("config", [1], "config is no table"),
        ("network", 5, "or network no name"),
        ("task", "object_detection", "is a model for object_detection"),
        ("signature", {"inputs": []}, r"no outputs\[0\]|no inputs\[0\]"),
    ],
)
def test_entries_of_another_kind_are_refused(tmp_path, entry, value, reason):
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save({**entries, entry: value}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=reason):
        load_model(tmp_path / "m.pt")


def test_entries_of_others_in_a_safetensors_header_are_passed_over(tmp_path):
    save_model(tmp_path / "m.safetensors", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
    save_file(tiny().state_dict(), tmp_path / "m.safetensors", {**metadata, "format": "pt", "author": "me"})
    assert load_model(tmp_path / "m.safetensors")[1].class_to_idx == CLASSES


def test_a_file_of_old_torch_loads(tmp_path):
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save(entries, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_model(tmp_path / "old.pt")[0].stem[0].weight, tiny().stem[0].weight)


def test_what_is_no_file_is_refused(tmp_path):
    for name, reason in (("a.onnx", "ends in .pt or .safetensors"), ("a.pt", "no such file")):
        with pytest.raises(ModelFileError, match=reason):
            load_model(tmp_path / name)
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ModelFileError, match="a folder"):
        load_model(tmp_path / "folder.pt")


def test_classes_must_be_those_of_the_network(tmp_path):
    with pytest.raises(ModelFileError, match="each of the 3 classes"):
        save_model(tmp_path / "m.pt", tiny(), class_to_idx={"a": 0, "b": 1}, rgb_stats=PRESETS["clip"])
    assert not list(tmp_path.iterdir())


def test_a_typo_in_the_network_or_its_options_is_an_error(path):
    with pytest.raises(UnknownName, match="did you mean convnext_v2_atto"):
        load_model(path, network="convnext_v2_ato")
    with pytest.raises(BirderError, match="drop_path_rat: no such option; did you mean drop_path_rate"):
        load_model(path, config={"drop_path_rat": 0.1})


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such permission there")
def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", _full_disk)
    monkeypatch.setattr("birder.model_file.save_file", _full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(path, tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["imagenet"])
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def _full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_network_described_by_json(tmp_path, path):
    file = read_model(path)
    config = {
        "name": "convnext_v2",
        "registered_name": "convnext_v2_atto",
        "task": "image_classification",
        "model_config": file.config,
        "signature": file.signature,
        "rgb_stats": file.rgb_stats,
    }
    (tmp_path / "m.json").write_text(json.dumps(config))
    network, returned = load_model_with_cfg(tmp_path / "m.json", path)
    assert network.training
    assert torch.equal(network.classifier.weight, tiny().classifier.weight)
    assert returned["registered_name"] == "convnext_v2_atto"
    assert load_model_with_cfg(config, None)[0].num_classes == 3
    with pytest.raises(ModelFileError, match="no readable JSON"):
        load_model_with_cfg(tmp_path / "missing.json", None)
    with pytest.raises(ModelFileError, match="object_detection"):
        load_model_with_cfg({**config, "task": "object_detection"}, None)
