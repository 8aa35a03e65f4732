"""Model files: written and read back; what a loaded network shares with its file."""

import json
import mmap
import sys
import zipfile
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import birder
from birder.errors import BirderError, ModelFileError, UnknownName, WeightsMismatch
from birder.model_file import (
    ModelFile,
    load_model,
    load_model_with_cfg,
    load_weights,
    read_model,
    save_model,
    write_model,
)
from birder.model_file.weights import build_with_weights
from birder.networks import Network, networks
from birder.networks.base import NetworkConfig
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
    write_model(nameless, replace(file, network=None))
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
    monkeypatch.setattr("birder.model_file.formats.save_file", _full_disk)
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
    with pytest.raises(BirderError, match=r"m\.json.*\n?.*depth: no such option"):
        (tmp_path / "m.json").write_text(json.dumps({**config, "model_config": {"depth": 3}}))
        load_model_with_cfg(tmp_path / "m.json", path)


def rewrite(path, **changes):
    """Other entries in a model file."""
    write_model(path, replace(read_model(path), **changes))


def own_memory(network):
    """Whether every parameter and buffer has its memory for itself, and no more than it needs."""
    tensors = list(network.state_dict().values())
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    fit = all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    return fit and len(places) == len(tensors)


def mapped(network, path):
    """Whether all weights lie where the file is mapped into memory."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        ranges = [line.split()[0].split("-") for line in lines if line.rstrip().endswith(str(path))]
    return all(
        any(int(first, 16) <= tensor.data_ptr() < int(end, 16) for first, end in ranges)
        for tensor in network.state_dict().values()
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the list of mapped files is Linux's")
def test_weights_are_mapped_and_not_copied(path):
    network, _ = load_model(path)
    assert mapped(network, path)
    assert own_memory(network)
    assert not mapped(tiny(), path)


def test_training_leaves_the_file_alone(path):
    before = path.read_bytes()
    network, _ = load_model(path, inference=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=10.0)
    network(torch.randn(2, 3, 32, 64)).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(1)
    assert path.read_bytes() == before
    assert torch.equal(load_model(path)[0].classifier.weight, tiny().classifier.weight)


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is mapped there")
def test_a_shared_mapping_that_others_asked_for_is_not_ours(path):
    before = path.read_bytes()
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        load_model(path)[0].classifier.weight.add_(1)
        assert torch.serialization.get_default_mmap_options() == mmap.MAP_SHARED
    assert path.read_bytes() == before


def test_a_file_that_is_replaced_does_not_change_the_network(path):
    network, _ = load_model(path)
    other = tiny()
    with torch.no_grad():
        other.classifier.weight.add_(1)
    save_model(path, other, class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    assert torch.equal(network.classifier.weight, tiny().classifier.weight)
    assert torch.equal(load_model(path)[0].classifier.weight, other.classifier.weight)


def test_a_network_can_be_saved_over_its_own_file(path):
    before = path.read_bytes()
    save_model(path, load_model(path)[0], class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    assert len(path.read_bytes()) == len(before)
    assert torch.equal(load_model(path)[0].stem[0].weight, tiny().stem[0].weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_another_type_become_float32(path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in tiny().state_dict().items()}
    rewrite(path, state=state)
    network, _ = load_model(path)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].float())
    assert own_memory(network)


def test_the_type_that_is_asked_for(path):
    network, _ = load_model(path, dtype=torch.bfloat16)
    assert torch.equal(network.classifier.weight, tiny().classifier.weight.bfloat16())


def test_tensors_that_share_memory_or_lie_across_it(tmp_path):
    """A ``.pt`` file keeps such relations; the weights of the network have none."""
    path = tmp_path / "m.pt"
    save_model(path, tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    state = read_model(path).state
    shared, wide, block = torch.randn(8), torch.randn(100), "body.stage1.0.block."
    state |= {"stem.0.bias": shared, "stem.1.bias": shared, "stem.1.weight": wide[10:18]}
    state[f"{block}2.weight"] = torch.randn(1).expand(8)
    state[f"{block}3.weight"] = torch.randn(8, 32).T
    state["stem.0.weight"] = state["stem.0.weight"].to(memory_format=torch.channels_last)
    state["classifier.bias"] = nn.Parameter(torch.randn(3))
    rewrite(path, state=state)
    network, _ = load_model(path, inference=False)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert all(tensor.is_contiguous() for tensor in loaded.values())
    assert own_memory(network)


def test_a_compressed_archive_loads(tmp_path):
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as source,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for record in source.namelist():
            target.writestr(record, source.read(record))
    assert torch.equal(load_model(tmp_path / "small.pt")[0].stem[0].weight, tiny().stem[0].weight)


def test_a_file_without_checksums_or_of_another_pickle_loads(tmp_path):
    save_model(tmp_path / "m.pt", tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(entries, tmp_path / "unchecked.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(entries, tmp_path / "newer.pt", pickle_protocol=3)  # of which torch warns
    for name in ("unchecked.pt", "newer.pt"):
        assert load_model(tmp_path / name)[1].class_to_idx == CLASSES


def test_a_network_without_memory_takes_the_tensors():
    with torch.device("meta"):
        network = tiny()
    state = tiny().state_dict()
    load_weights(network, state)
    assert network.stem[0].weight.data_ptr() == state["stem.0.weight"].data_ptr()
    in_memory = tiny()
    load_weights(in_memory, state)
    assert in_memory.stem[0].weight.data_ptr() != state["stem.0.weight"].data_ptr()


@dataclass(frozen=True, kw_only=True)
class OddConfig(NetworkConfig):
    kind: str = "plain"


class Odd(Network):
    """A network with a batch norm, and more than its state says."""

    max_stride = 1

    def __init__(self, config, **options):
        super().__init__(config, **options, max_stride=1)
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        match config.kind:
            case "buffer":
                self.register_buffer("mask", torch.arange(4), persistent=False)
            case "tied":
                self.second.weight = self.first.weight
            case "tensor":
                self.mask = [torch.arange(4)]
            case "value":
                self.rate = torch.linspace(0, 1, 3)[1].item()
        self.embedding_size = 4
        self.reset_classifier(self.num_classes)


@pytest.mark.parametrize("kind", ["plain", "buffer", "tied", "tensor", "value"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_nothing_is_left_without_memory(kind, suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(networks._entries, "odd", (Odd, OddConfig(kind=kind)))
    network = birder.create_network("odd", 2, size=(8, 8))
    network.norm.running_var.fill_(3.0)
    network.norm.num_batches_tracked.fill_(70_000)
    path = tmp_path / f"odd{suffix}"
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    entries = {"signature": {"inputs": [{"data_shape": [0, 3, 8, 8]}], "outputs": [{"data_shape": [0, 2]}]}}
    write_model(path, ModelFile(state=state, class_to_idx={}, rgb_stats=PRESETS["clip"], **entries))
    loaded, _ = load_model(path, inference=False)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in state.items())
    assert loaded.norm.num_batches_tracked.dtype == torch.int64
    match kind:
        case "buffer":
            assert torch.equal(loaded.mask, torch.arange(4))
        case "tensor":
            assert torch.equal(loaded.mask[0], torch.arange(4))
        case "tied":
            assert loaded.first.weight is loaded.second.weight
        case "value":
            assert loaded.rate == 0.5
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


@pytest.mark.parametrize("kind", ["plain", "buffer"])
def test_what_does_not_fit_is_seen_before_memory_is_spent(kind, monkeypatch):
    monkeypatch.setitem(networks._entries, "odd", (Odd, OddConfig(kind=kind)))
    devices = []

    def build():
        network = birder.create_network("odd", 2, size=(8, 8))
        devices.append(network.first.weight.device.type)
        return network

    with pytest.raises(WeightsMismatch, match="classifier"):
        build_with_weights(build, birder.create_network("odd", 3, size=(8, 8)).state_dict())
    assert devices == ["meta"]
    build_with_weights(build, birder.create_network("odd", 2, size=(8, 8)).state_dict())
    assert devices == ["meta", "meta", *(["cpu"] if kind == "buffer" else [])]
