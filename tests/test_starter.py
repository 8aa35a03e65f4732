"""The model that comes with birder: whole, small, honest about itself, and taken when no model is named."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import birder
from birder.catalogue import STARTER, find
from birder.cli.__main__ import app
from birder.cli.options import model_and_pictures
from birder.data.drawn import DrawnBirds
from birder.errors import ConfigError, ModelFileError
from birder.hub import fetch
from birder.inference.classification import infer_image
from birder.model_file import load_model, read_model

ENTRY = find(STARTER)
assert ENTRY.folder is not None
FILE = ENTRY.folder / ENTRY.file_name("safetensors")
CARD = (ENTRY.folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "bird.png"
    DrawnBirds(species=4, size=(96, 80)).draw(label=1, index=0).image.save(path)
    return path


def test_it_is_small_half_precision_and_the_one_in_the_catalogue() -> None:
    assert FILE.stat().st_size <= 8_000_000
    assert fetch.locate(STARTER) == (FILE, ENTRY.network)
    assert fetch.local_file(ENTRY, "safetensors") == FILE
    assert {str(tensor.dtype) for tensor in read_model(FILE).state.values()} == {"torch.float16", "torch.int64"}
    assert f"{ENTRY.file('safetensors').file_size:.1f}" == f"{FILE.stat().st_size / 2**20:.1f}"


def test_it_is_loaded_by_name_and_calibrated() -> None:
    net, info = birder.load_pretrained_model(STARTER, inference=True)
    assert (net.name, net.size, net.num_classes) == (ENTRY.network, ENTRY.resolution, 100)
    assert info.calibration is not None and info.calibration.threshold is not None
    assert "Bald Eagle" not in info.class_to_idx and "American Goldfinch" in info.class_to_idx


def test_a_copy_is_put_where_it_is_asked_for(tmp_path: Path) -> None:
    copy = tmp_path / "mine.safetensors"
    assert fetch.locate(STARTER, dst=copy) == (copy, ENTRY.network)
    assert copy.read_bytes() == FILE.read_bytes()


def test_an_installation_without_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("birder.catalogue._FILE", tmp_path / "weights.toml")
    with pytest.raises(ModelFileError, match="it comes with birder, so install birder again"):
        fetch.locate(STARTER)


def test_the_code_of_its_card_runs_to_the_letter(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", CARD, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, object] = {}
        code = block.replace("path/to/image.jpeg", str(picture))
        exec(code, names)
        if "out" in names:
            assert np.shape(names["out"]) == (1, 100)
        if "embedding" in names:
            assert f"(1, {np.shape(names['embedding'])[1]})" in block
    shown = "\n".join(line for line in blocks[2].splitlines() if line.startswith("#  ("))
    features = names["features"]
    assert isinstance(features, dict)
    assert shown == "\n".join(f"#  ('{name}', {tuple(value.shape)})" for name, value in features.items())


def test_its_card_says_what_it_is_not_for() -> None:
    for words in ("CUB-200-2011", "non-commercial research and education", "not for science", "must not be used for"):
        assert words in CARD
    assert "{" not in re.sub(r"```.*?```", "", CARD, flags=re.DOTALL)


def test_a_model_may_be_left_out(tmp_path: Path, picture: Path) -> None:
    assert model_and_pictures(str(picture), []) == (STARTER, [picture])
    assert model_and_pictures(str(tmp_path), [picture]) == (STARTER, [tmp_path, picture])
    assert model_and_pictures("model.pt", [picture]) == ("model.pt", [picture])
    assert model_and_pictures(STARTER, [picture]) == (STARTER, [picture])
    assert model_and_pictures("not there", [picture]) == ("not there", [picture])  # which is said when it is looked for
    for words in ("model.safetensors", STARTER, "not there"):
        with pytest.raises(ConfigError, match="which pictures"):
            model_and_pictures(words, [])


def test_it_predicts_when_no_model_is_named(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    command = ["predict", str(picture), "--backend", "torch", "--precision", "fp32", "--output", str(out)]
    assert app(command, result_action="return_value") == 0
    with open(out, encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    net, info = load_model(FILE)
    transform = birder.classification_transform(net.size, info.rgb_stats)
    with Image.open(picture) as image:
        wanted, _ = infer_image(net, image.convert("RGB"), transform)
    assert info.class_to_idx[row["label_1"]] == int(wanted.argmax())


def test_it_names_the_birds_it_has_learned(shared: Path) -> None:
    """A tenth of the validation pictures; the card says what it reaches on all, and a tenth may be 10 % worse."""
    net, info = load_model(FILE)
    transform = birder.classification_transform(net.size, info.rgb_stats)
    right = total = 0
    for folder in sorted((shared / "birds" / "val").iterdir()):
        path = min(folder.iterdir())
        out, _ = infer_image(net, path, transform)
        right, total = right + (int(out.argmax()) == info.class_to_idx[folder.name]), total + 1
    assert total == 100 and right >= 70
