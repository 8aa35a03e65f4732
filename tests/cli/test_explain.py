"""``birder explain``: what it makes, says and returns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.cli.explain import explain
from birder.errors import ConfigError, DataError, ModelFileError, UnknownName
from birder.model_file import save_model
from birder.model_file.calibration import Calibration
from birder.networks import create_network
from birder.signature import rgb_stats

Lines = Callable[[], list[list[str]]]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model.safetensors")


def write_model(path: Path, calibration: Calibration | None = None) -> str:
    torch.manual_seed(1)
    options = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
    net = create_network("convnext_v2_atto", 3, size=(64, 64), **options)
    torch.nn.init.normal_(net.classifier.weight)
    names = {"Wren": 0, "Great [Tit]": 1, "Größe": 2}
    save_model(path, net, class_to_idx=names, rgb_stats=rgb_stats("birder"), calibration=calibration)
    return str(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b [bold].jpg", "deep/a.png", "deep/A_2.png"):
        small = Image.fromarray(random.integers(0, 255, (4, 6, 3), np.uint8))
        small.resize((300, 200), Image.Resampling.BICUBIC).save(folder / name)
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """The lines printed so far, cut at the tabs."""
    return lambda: [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_a_panel_for_each_photograph(model: str, photos: Path, tmp_path: Path, lines: Lines) -> None:
    out = tmp_path / "out"
    assert explain(model, [photos], output=out, device="cpu") == 0
    rows = lines()
    assert [row[0] for row in rows] == [
        str(photos / p) for p in ("a.png", "b [bold].jpg", "deep/A_2.png", "deep/a.png")
    ]
    files = [Path(row[5]) for row in rows]
    assert [file.name for file in files] == ["a.png", "b [bold].png", "A_2.png", "a_3.png"]
    assert sorted(out.iterdir()) == sorted(files)
    for row, file in zip(rows, files, strict=True):
        assert row[1:3] == ["ok", ""] and row[3] in ("Wren", "Great [Tit]", "Größe") and 1 / 3 < float(row[4]) < 1
        with Image.open(file) as panel:
            assert panel.mode == "RGB" and panel.width > 4 * 320


def test_the_photograph_and_its_overlays(model: str, photos: Path, tmp_path: Path) -> None:
    panel = tmp_path / "why.png"
    assert explain(model, [photos / "a.png"], output=panel, top=2, device="cpu") == 0
    pixels = np.asarray(Image.open(panel)).astype(int)
    top, (width, height) = 12 + 26 + (320 - 213) // 2, (320, 213)
    tiles = [pixels[top : top + height, left : left + width] for left in (12, 344, 676)]
    small = Image.open(photos / "a.png").resize((width, height), Image.Resampling.LANCZOS)
    assert np.abs(tiles[0] - np.asarray(small)).max() < 3
    for tile in tiles[1:]:
        assert 2 < np.abs(tile - tiles[0]).mean() < 90
    assert np.abs(tiles[1] - tiles[2]).max() > 30


def test_one_class_by_name(model: str, photos: Path, tmp_path: Path, lines: Lines) -> None:
    for name in ("Wren", "Größe"):
        assert explain(model, [photos / "a.png"], output=tmp_path / f"{name}.jpg", label=name, device="cpu") == 0
    assert [row[3] for row in lines()] == ["Wren", "Größe"]
    with Image.open(tmp_path / "Wren.jpg") as panel:
        assert panel.format == "JPEG" and panel.width < 3 * 332
    with pytest.raises(UnknownName, match="did you mean Wren"):
        explain(model, [photos], output=tmp_path / "out", label="Wrens", device="cpu")


def test_scores_are_calibrated(model: str, photos: Path, tmp_path: Path, lines: Lines) -> None:
    cooler = write_model(
        tmp_path / "cooler.safetensors", Calibration(temperature=2.0, pictures=9, data="", novelty=None)
    )
    for one in (model, cooler):
        explain(one, [photos / "a.png"], output=tmp_path / "out", top=3, device="cpu")
    hot, cool = (float(row[4]) for row in lines())
    assert 1 / 3 < cool < hot - 0.01


def test_some_that_cannot_be_read(model: str, photos: Path, tmp_path: Path, lines: Lines) -> None:
    (photos / "c.jpg").write_text("no picture")
    out = tmp_path / "out"
    assert explain(model, [photos, photos / "gone.jpg"], output=out, device="cpu") == 1
    rows = {Path(row[0]).name: row for row in lines()}
    assert rows["c.jpg"][1:] == ["error", "not_an_image: not a picture", "", "", ""]
    assert rows["gone.jpg"][1:] == ["error", "missing: no such file", "", "", ""]
    assert len(list(out.iterdir())) == 4


def test_a_network_whose_answer_is_no_number(photos: Path, tmp_path: Path, lines: Lines) -> None:
    net = create_network("convnext_v2_atto", 2, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.constant_(net.classifier.weight, 1e38)
    torch.nn.init.constant_(net.stem[0].weight, 1e6)
    path = tmp_path / "wild.safetensors"
    save_model(path, net, class_to_idx={"a": 0, "b": 1}, rgb_stats=rgb_stats("birder"))
    assert explain(str(path), [photos / "a.png"], output=tmp_path / "out.png", device="cpu") == 1
    assert lines()[0][2].startswith("not_finite")


def test_nothing_can_be_done(model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        explain(model, [empty])
    with pytest.raises(ConfigError, match="4 photographs need a folder"):
        explain(model, [photos], output=tmp_path / "why.png")
    with pytest.raises(ConfigError, match="lies among the photographs"):
        explain(model, [photos / "a.png"], output=photos / "a.png")
    with pytest.raises(ConfigError, match="lies among the photographs"):
        explain(model, [photos / "a.png"], output=photos)
    monkeypatch.chdir(photos)
    with pytest.raises(ConfigError, match="explained: lies among the photographs"):
        explain(model, [Path()])
    with pytest.raises(ConfigError, match="a folder is needed"):
        explain(model, [photos], output=photos / "notes.txt")
    with pytest.raises(ConfigError, match="stage1, stage2"):
        explain(model, [photos], output=tmp_path / "out", stage="stage9", device="cpu")
    with pytest.raises((ModelFileError, UnknownName)):
        explain(str(photos / "none.safetensors"), [photos], output=tmp_path / "out", device="cpu")
    assert {path.name for path in photos.rglob("*")} == {"a.png", "b [bold].jpg", "deep", "A_2.png", "notes.txt"}
