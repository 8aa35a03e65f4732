"""What is known of a model is kept, so that the next start needs neither its weights nor torch."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import birder
from birder.errors import ConfigError, ModelFileError
from birder.inference import ready
from birder.inference.description import Description, read_description, write_description
from birder.inference.options import Work
from birder.inference.ready import Model
from birder.model_file import Calibration, Novelty, read_model, save_model, write_model
from birder.networks import create_network
from birder.signature import rgb_stats

STATS = rgb_stats("birder")
NAMES = {"Wren": 1, "Jay": 0, "Merlin": 2}
NOVELTY = Novelty(
    kind="mahalanobis",
    threshold=0.9,
    known=np.array([0.5, 1, 2], np.float32),
    arrays={
        "centre": np.arange(16, dtype=np.float32),
        "whitening": np.ones((16, 2), np.float32) / 3,
        "centroids": np.zeros((3, 2), np.float32),
    },
    measured={"auroc": 0.7},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def saved(path: Path, *, seed: int = 0, calibration: Calibration | None = None, channels: int = 3) -> Path:
    torch.manual_seed(seed)
    network = create_network(
        "convnext_v2_atto",
        3,
        size=(32, 48),
        input_channels=channels,
        in_channels=(8, 8, 16, 16),
        num_layers=(1, 1, 1, 1),
    )
    save_model(path, network, class_to_idx=NAMES, rgb_stats=STATS, calibration=calibration)
    return path


def not_loaded(*_: object, **__: object) -> None:
    raise AssertionError("it was loaded again")


def test_the_second_time_nothing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = Calibration(temperature=1.25, pictures=7, data="ab", threshold=0.4, novelty=NOVELTY)
    path = saved(tmp_path / "model.safetensors", calibration=calibration)
    first = Model(path)
    monkeypatch.setattr("birder.model_file.models.read_model", not_loaded)
    second = Model(path)
    assert vars(first.known) | {"calibration": None} == vars(second.known) | {"calibration": None}
    assert second.known.size == (32, 48) and second.known.embedding_size == 16
    assert second.names == ["Jay", "Wren", "Merlin"]
    kept = second.known.calibration
    assert kept is not None and (kept.temperature, kept.threshold) == (1.25, 0.4)
    assert kept.novelty is not None
    for name, array in NOVELTY.arrays.items():
        np.testing.assert_array_equal(kept.novelty.arrays[name], array)
    with pytest.raises(AssertionError, match="loaded again"):
        _ = second.network


def test_another_file_under_the_name_is_another_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors")
    assert Model(path).known.calibration is None
    saved(path, calibration=Calibration(temperature=2, pictures=7, data="ab"))
    known = Model(path).known
    assert known.calibration is not None and known.calibration.temperature == 2


def test_a_copy_under_another_name_is_looked_at_anew(tmp_path: Path) -> None:
    """For the name may tell which network it is."""
    path = saved(tmp_path / "model.safetensors")
    known = Model(path).known
    nameless = tmp_path / "convnext_v2_atto_old.pt"
    write_model(nameless, replace(read_model(path), network=None))
    assert Model(nameless).known.network == known.network
    other = shutil.copy(nameless, tmp_path / "some.pt")
    with pytest.raises(ModelFileError, match="which network"):
        Model(other)
    assert Model(other, network="convnext_v2_atto").known.network == known.network


def test_a_file_that_is_replaced_while_it_is_read_is_no_model(tmp_path: Path, home: Path) -> None:
    """Or names of the one would stand for the weights of the other, and stay in the cache."""
    path = saved(tmp_path / "model.safetensors")
    Model(path)
    late = Model(path)
    saved(path, seed=1)
    os.utime(path, (1, 1))
    with pytest.raises(ModelFileError, match=r"model\.safetensors: was replaced while it was being read; start again"):
        late.ready(Work(backend="torch", precision="fp32", device="cpu"))
    assert not list(home.rglob("converted"))
    Model(path)
    gone = Model(path)
    path.unlink()
    with pytest.raises(ModelFileError, match="no such file"):
        _ = gone.network


def test_a_network_that_is_named_is_told_from_a_file_of_that_name(tmp_path: Path, home: Path) -> None:
    named = Model(saved(tmp_path / "model.safetensors"), network="convnext_v2_atto")
    of_that_name = Model(shutil.copy(tmp_path / "model.safetensors", tmp_path / "convnext_v2_atto.safetensors"))
    assert named.known == of_that_name.known and named.digest == of_that_name.digest
    assert len(list(home.rglob("description.json"))) == 2


def test_what_was_adapted_is_said_at_each_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pvt_v2_b0.safetensors"
    torch.manual_seed(0)
    save_model(path, create_network("pvt_v2_b0", 3, size=(32, 32)), class_to_idx=NAMES, rgb_stats=STATS)
    write_model(path, replace(read_model(path), birder_version="v0.3.1"))
    with caplog.at_level(logging.INFO, logger="birder"):
        adapted = Model(path).known.adapted
        assert "written by birder v0.3.1" in adapted
        assert Model(path).known.adapted == adapted
    assert caplog.messages.count(f"{path}, {adapted}") == 2


def test_networks_of_users_are_loaded_each_time(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.safetensors")
    network_class = type(Model(path).network)
    shutil.rmtree(home)
    monkeypatch.setattr(network_class, "__module__", "their.own")
    assert Model(path).known == Model(path).known
    assert not list(home.rglob("description.json"))


def test_another_version_of_birder_looks_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.safetensors")
    Model(path)
    monkeypatch.setattr(ready, "__version__", "99")
    monkeypatch.setattr("birder.model_file.models.read_model", not_loaded)
    with pytest.raises(AssertionError, match="loaded again"):
        Model(path)


@pytest.mark.parametrize("change", ["cut", "empty", "list", "lacking", "words", "negative", "endless", "calibration"])
def test_what_was_kept_and_is_damaged_is_made_anew(tmp_path: Path, home: Path, change: str) -> None:
    path = saved(tmp_path / "model.safetensors")
    known = Model(path).known
    (kept,) = home.rglob("description.json")
    text = kept.read_text()
    values = json.loads(text)
    damaged = {
        "cut": text[:-20],
        "empty": "",
        "list": "[1, 2]",
        "lacking": json.dumps({name: value for name, value in values.items() if name != "rgb_stats"}),
        "words": json.dumps(values | {"size": ["x", 3]}),
        "negative": json.dumps(values | {"size": [-32, 48]}),
        "endless": json.dumps(values | {"embedding_size": float("inf")}),
        "calibration": json.dumps(values | {"calibration": {"temperature": -1}}),
    }
    kept.write_text(damaged[change])
    assert read_description(kept.parent) is None
    assert Model(path).known == known
    assert read_description(kept.parent) == known


def test_where_nothing_can_be_kept_it_is_loaded_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "file"))
    path = saved(tmp_path / "model.safetensors")
    assert Model(path).known == Model(path).known
    known = Model(path).known
    write_description(tmp_path / "nowhere", known)
    assert read_description(tmp_path / "nowhere") is None


def test_what_is_no_model_is_refused_as_ever(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("folder.pt", "model.onnx", "empty.safetensors"):
        with pytest.raises(ModelFileError, match=name):
            Model(tmp_path / name)
    with pytest.raises(ConfigError, match="this network takes 4"):
        Model(saved(tmp_path / "four.safetensors", channels=4))


def test_a_network_is_loaded_once(tmp_path: Path) -> None:
    model = Model(saved(tmp_path / "model.safetensors"))
    assert model.network is model.network
    chosen = model.ready(Work(backend="torch", precision="fp32", device="cpu")).chosen
    assert chosen.sentence.startswith("torch fp32")


def test_descriptions_are_plain(tmp_path: Path) -> None:
    known = Description(
        network="vit_b16",
        size=(32, 48),
        input_channels=3,
        num_classes=2,
        embedding_size=16,
        class_to_idx={"Größte Möwe": 0, "b\n": 1},
        rgb_stats={"mean": (0.1, 0.2, 1 / 3), "std": (1.0, 2.0, 3.0)},
        calibration=None,
    )
    write_description(tmp_path, known)
    assert read_description(tmp_path) == known


PYTHON = """
import sys
import birder
with birder.Predictor({model!r}, birder.PredictOptions(backend="openvino")) as predictor:
    for row in predictor.stream([{picture!r}]):
        print(row.labels[0], row.scores[0])
"""
COMMAND = """
import sys
from birder.cli.__main__ import main
sys.argv = ["birder", "predict", {model!r}, {picture!r}, "--backend", "openvino"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.skipif(sys.platform != "linux" or torch.accelerator.is_available(), reason="torch finds out about GPUs")
@pytest.mark.parametrize("code", [PYTHON, COMMAND], ids=["python", "command"])
def test_a_start_that_remembers_needs_no_torch(tmp_path: Path, home: Path, code: str) -> None:
    """Run twice, as a user would; OpenVINO computes in both."""
    pytest.importorskip("openvino")
    path, picture = saved(tmp_path / "model.safetensors"), tmp_path / "noise.png"
    Image.effect_noise((64, 64), 90).convert("RGB").save(picture)
    script = code.format(model=str(path), picture=str(picture)) + "\nprint('torch' in sys.modules)"
    environment = os.environ | {"BIRDER_HOME": str(home), "PYTHONPATH": str(Path(birder.__file__).parents[1])}
    said = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=120
        ).stdout.split()
        for _ in range(2)
    ]
    assert [words[-1] for words in said] == ["True", "False"]
    assert said[0][:-1] == said[1][:-1] and len(said[0]) > 2
