"""A calibration in model files: as it was in both formats, no weight to any reader, and never believed when damaged."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import birder
from birder.errors import ModelFileError
from birder.model_file import Calibration, Novelty, load_model, read_model, save_model, write_model
from birder.model_file.calibration import KINDS, from_entry, to_entry
from birder.networks import Network
from birder.signature import PRESETS

CLASSES = {"Grünspecht": 0, "鳥": 1, "Robin": 2}
SIZES = {"K": 2, "D": 16, "R": 5}


def tiny() -> Network:
    torch.manual_seed(7)
    return birder.create_network(
        "convnext_v2_atto", 3, size=(32, 64), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1)
    )


def calibration(kind: str | None = "relative_mahalanobis") -> Calibration:
    random = np.random.default_rng(0)
    novelty = kind and Novelty(
        kind=kind,
        threshold=0.95,
        known=np.sort(random.normal(size=40)).astype(np.float32),
        arrays={
            name: random.normal(size=[SIZES[letter] for letter in letters]).astype(np.float32)
            for name, letters in KINDS[kind].items()
        },
        measured={"auroc": 0.1 + 0.2, "pictures": 7},
    )
    return Calibration(
        temperature=1 / 3, pictures=120, data="ab12", max_error=0.05, threshold=2 / 3, novelty=novelty or None
    )


def same(one: Calibration | None, other: Calibration | None) -> bool:
    """Whether two calibrations are equal to the last bit."""
    assert one is not None and other is not None
    assert all(getattr(one, item.name) == getattr(other, item.name) for item in fields(one) if item.name != "novelty")
    first, second = one.novelty, other.novelty
    if first is None or second is None:
        return first is second
    assert (first.kind, first.threshold, first.measured) == (second.kind, second.threshold, second.measured)
    assert first.arrays.keys() == second.arrays.keys()
    pairs = [(first.known, second.known), *((first.arrays[name], second.arrays[name]) for name in first.arrays)]
    return all(left.dtype == right.dtype == np.float32 and np.array_equal(left, right) for left, right in pairs)


def save(path: Path, found: Calibration | None) -> None:
    save_model(path, tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"], calibration=found)


@pytest.fixture(params=[".pt", ".safetensors"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"model{request.param}"
    save(path, calibration())
    return path


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_comes_back_as_it_was(tmp_path: Path, suffix: str, kind: str | None) -> None:
    path = tmp_path / f"m{suffix}"
    save(path, calibration(kind))
    network, info = load_model(path)
    assert same(info.calibration, calibration(kind))
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in tiny().state_dict().items())


def test_without_one_there_is_none(tmp_path: Path) -> None:
    for suffix in (".pt", ".safetensors"):
        save(tmp_path / f"m{suffix}", None)
        assert load_model(tmp_path / f"m{suffix}")[1].calibration is None
    assert "calibration" not in torch.load(tmp_path / "m.pt", weights_only=True)


def test_it_is_no_weight_to_a_reader_that_does_not_know_it(tmp_path: Path) -> None:
    for suffix in (".pt", ".safetensors"):
        save(tmp_path / f"m{suffix}", calibration())
    entries = torch.load(tmp_path / "m.pt", weights_only=True)
    assert entries["state"].keys() == tiny().state_dict().keys()
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert set(file.keys()) == tiny().state_dict().keys()
        assert json.loads(file.metadata()["calibration"]) == entries["calibration"]


def test_half_precision_weights_leave_the_arrays_exact(path: Path) -> None:
    file = read_model(path)
    write_model(path, replace(file, state={name: tensor.half() for name, tensor in file.state.items()}))
    assert same(load_model(path, dtype=torch.float16)[1].calibration, calibration())


def test_another_network_than_the_calibrated_one_has_none(path: Path) -> None:
    assert load_model(path, size=(32, 64))[1].calibration is not None
    assert load_model(path, size=(64, 64))[1].calibration is None
    assert load_model(path, config={"drop_path_rate": 0.5})[1].calibration is None


def test_whoever_saves_the_network_again_does_not_save_it(path: Path) -> None:
    network, info = load_model(path)
    save_model(path, network, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)
    assert load_model(path)[1].calibration is None


def changed(*keys: str, to: Any) -> Callable[[dict[str, Any]], Any]:
    def change(entry: dict[str, Any]) -> Any:
        if not keys:
            return to
        place = entry
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        return entry

    return change


NAN = {
    "shape": [16],
    "float32": "AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfw==",
}
ARRAYS = ("novelty", "arrays")
DAMAGE = {
    "no table": (changed(to=[1]), "calibration is no table"),
    "no temperature": (changed("temperature", to=None), "temperature is no number"),
    "temperature 0": (changed("temperature", to=0), "temperature of 0"),
    "temperature nan": (changed("temperature", to=float("nan")), "temperature is no number"),
    "temperature true": (changed("temperature", to=True), "temperature is no number"),
    "temperature text": (changed("temperature", to="1.5"), "temperature is no number"),
    "pictures": (changed("pictures", to=-1), "pictures -1"),
    "data": (changed("data", to=3), "data '3'"),
    "threshold": (changed("threshold", to=1.5), "threshold is 1.5"),
    "max_error": (changed("max_error", to="x"), "max_error is no number"),
    "novelty": (changed("novelty", to=[]), "calibration.novelty is no table"),
    "kind": (changed("novelty", "kind", to="tea leaves"), "'tea leaves'; this version knows max_softmax"),
    "kind of a list": (changed("novelty", "kind", to=["energy"]), "this version knows"),
    "threshold of novelty": (changed("novelty", "threshold", to=-1), "threshold is -1.0"),
    "known": (changed("novelty", "known", to=None), "known is no table"),
    "known falls": (changed("novelty", "known", "float32", to="AACAPwAAAAAAAAAA"), "known is damaged"),
    "no arrays": (changed("novelty", "arrays", to=None), "arrays is no table"),
    "missing": (changed(*ARRAYS, to={}), "novelty.centre is no table"),
    "base64": (changed(*ARRAYS, "centre", "float32", to="!!!"), "novelty.centre is damaged"),
    "a number": (changed(*ARRAYS, "centre", "float32", to=5), "novelty.centre is damaged"),
    "cut off": (changed(*ARRAYS, "centre", "float32", to="AAAAAA=="), r"4 bytes are not \[16\] numbers"),
    "shape": (changed(*ARRAYS, "centre", "shape", to=[4, 4]), r"centre is \(4, 4\), which fits neither"),
    "negative": (changed(*ARRAYS, "centre", "shape", to=[-4, -4]), "its shape is none"),
    "huge": (changed(*ARRAYS, "centre", "shape", to=[10**9, 10**9]), "centre is damaged"),
    "nan": (changed(*ARRAYS, "centre", to=NAN), "centre has values that are infinite or no numbers"),
    "centroids": (
        changed(*ARRAYS, "centroids", to={"shape": [1, 2], "float32": "AAAAAAAAAAA="}),
        r"centroids is \(1, 2\), which fits neither",
    ),
    "measured": (changed("novelty", "measured", to={"auroc": "much"}), "auroc is no number"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damage_is_told_with_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, name: str
) -> None:
    change, message = DAMAGE[name]
    path = tmp_path / f"m{suffix}"
    monkeypatch.setattr("birder.model_file.contents.to_entry", lambda found: change(to_entry(found)))
    save(path, calibration())
    with pytest.raises(ModelFileError, match=message) as raised:
        load_model(path)
    assert str(path) in str(raised.value) and "birder calibrate" in str(raised.value)


def test_quantiles_rise(tmp_path: Path) -> None:
    entry = to_entry(calibration())
    known = np.sort(np.random.default_rng(0).normal(size=40)).astype(np.float32)[::-1]
    entry["novelty"]["known"] = to_entry(replace(calibration(), novelty=replace(calibration().novelty, known=known)))[
        "novelty"
    ]["known"]
    with pytest.raises(ModelFileError, match="no row of rising numbers"):
        from_entry(entry, 3)


def test_more_centroids_than_classes() -> None:
    assert from_entry(to_entry(calibration()), 2).novelty is not None
    with pytest.raises(ModelFileError, match="fits neither the others nor 1 classes"):
        from_entry(to_entry(calibration()), 1)


def test_statistics_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "D", 17)
    save(tmp_path / "m.pt", calibration())
    with pytest.raises(ModelFileError, match=r"m.pt: .*made for another network: the embedding of this one has 16"):
        load_model(tmp_path / "m.pt")
