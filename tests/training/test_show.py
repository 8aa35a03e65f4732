"""What a run makes of pictures: the columns, the masks, the weights, and runs that cannot be shown."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from birder.data.drawn import DrawnBirds, write_folder
from birder.data.images import read_image
from birder.errors import ConfigError, DataError, WeightsMismatch
from birder.evaluation.feature_map import feature_colours
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.objectives import configs
from birder.objectives.masking import uniform_masks
from birder.objectives.methods import create_objective
from birder.objectives.pixels import PixelObjective, to_images
from birder.signature import rgb_stats
from birder.testing import small_network, small_vit
from birder.training.fit import fit
from birder.training.folder import RunFolder
from birder.training.recipe import Recipe, Run, read_recipe, write_recipe
from birder.training.show import (
    sheet_of_view,
    spread,
    trained_objective,
    view_of_drawing,
    view_of_features,
    view_of_run,
)

VIT = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "drop_path_rate": 0.5}
CONVNEXT = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
MAE = configs.MAEConfig(decoder_depth=1, decoder_width=32, normalized_targets=False)
CLIP = rgb_stats("clip")


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(DrawnBirds(families=1, species=2, size=(64, 64)), folder, 4)
    return folder


@pytest.fixture(scope="module")
def photos(birds: Path) -> list[Path]:
    return sorted(birds.rglob("*.jpg"))[:3]


@pytest.fixture(scope="module")
def pixels(photos: list[Path]) -> Tensor:
    """(3, 3, 64, 64), uint8."""
    return torch.stack([torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1) for path in photos])


def train(out: Path, birds: Path, **options: object) -> Path:
    """A run of two steps, whose pictures are gone afterwards."""
    data = out.with_name(f"{out.name} pictures")
    shutil.copytree(birds, data)
    (data / "boxes.csv").unlink()
    recipe = Recipe(data=str(data), size=(64,), epochs=1, batch_size=4, rgb="clip")
    recipe = replace(recipe, run=Run(device="cpu", dtype="float32", threads=1, workers=0), **options)
    fit(recipe, out)
    shutil.rmtree(data)
    return out


@pytest.fixture(scope="module")
def mae(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mae"
    return train(out, birds, network="vit_t16", network_options=VIT, objective=MAE)


def hidden_pixels(mask: Tensor, patch: int) -> Tensor:
    """(B, L) of square pictures -> (B, 1, H, W)."""
    side = round(mask.shape[1] ** 0.5)
    return torch.stack(
        [torch.from_numpy(np.kron(one, np.ones((patch, patch), bool))) for one in mask.view(-1, side, side)]
    )[:, None]


def test_what_is_seen_and_what_is_drawn(mae: Path, pixels: Tensor) -> None:
    seen, drawn = view_of_run(mae, seed=5).see(pixels).values()
    torch.manual_seed(5)
    hidden = hidden_pixels(uniform_masks(3, (8, 8), 0.75), 8).expand_as(pixels)
    assert hidden.float().mean() == 0.75
    assert torch.equal(seen[~hidden], pixels[~hidden] / 255)
    assert set(seen[hidden].tolist()) == {0.5}
    own = (drawn * 255).round()
    assert torch.equal(own[~hidden], pixels[~hidden].float())
    assert (own[hidden] != pixels[hidden]).float().mean() > 0.9


def test_it_is_drawn_with_the_weights_of_the_newest_checkpoint(mae: Path, pixels: Tensor) -> None:
    folder = RunFolder(mae)
    objective, stats = trained_objective(folder, read_recipe(folder.recipe))
    assert stats == CLIP
    for name, weight in load_file(folder.last).items():
        assert torch.equal(objective.network.state_dict()[name], weight)
    (newest,) = folder.checkpoints(2).paths()
    saved = torch.load(newest, weights_only=True)["engine"]["objective"]
    assert all(torch.equal(weight, saved[name]) for name, weight in objective.state_dict().items())

    drawn = view_of_run(mae, seed=5).see(pixels)["reconstruction"]
    view = view_of_drawing(objective, stats)
    torch.manual_seed(5)
    mask = uniform_masks(3, (8, 8), 0.75)
    with torch.no_grad():  # in evaluation: half of the paths would be dropped otherwise
        expected = to_images(objective.eval().draw(view.transform.normalize(pixels), mask), (8, 8), 8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP["mean"], CLIP["std"]))
    hidden = hidden_pixels(mask, 8).expand_as(drawn)
    torch.testing.assert_close(drawn[hidden], (expected * std + mean)[hidden])


def test_the_seed_fixes_the_masks(mae: Path, pixels: Tensor) -> None:
    first = view_of_run(mae, seed=1).see(pixels)["seen"]
    torch.manual_seed(9)
    before = torch.get_rng_state()
    view = view_of_run(mae, seed=1)
    torch.set_rng_state(before)
    assert torch.equal(view.see(pixels)["seen"], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(view_of_run(mae, seed=2).see(pixels)["seen"], first)


@pytest.mark.parametrize(
    ("name", "config", "column"),
    [
        ("fcmae", configs.FCMAEConfig(decoder_width=64), "reconstruction, true contrast"),
        ("fcmae", configs.FCMAEConfig(decoder_width=64, normalized_targets=False), "reconstruction"),
        ("simmim", configs.SimMIMConfig(), "reconstruction, true contrast"),
    ],
)
def test_other_objectives_that_draw(name: str, config: configs.ObjectiveConfig, column: str, pixels: Tensor) -> None:
    network = small_network(0)
    network.adjust_size((64, 64))
    objective = create_objective(config, network)
    assert isinstance(objective, PixelObjective)
    columns = view_of_drawing(objective, CLIP).see(pixels)
    assert list(columns) == ["seen", column]
    seen, drawn = columns.values()
    hidden = (seen == 0.5).all(dim=1, keepdim=True).expand_as(drawn)
    assert hidden.float().mean() == 0.75  # of four squares, one is seen
    assert torch.equal((drawn * 255).round()[~hidden], pixels[~hidden].float())
    assert (drawn[hidden] - pixels[hidden] / 255).abs().mean() > 0.01
    assert objective.training is False


def test_the_sheet_has_the_pictures_pixel_by_pixel(mae: Path, photos: list[Path], pixels: Tensor) -> None:
    view = view_of_run(mae)
    sheet, unreadable = sheet_of_view(view, photos)
    assert unreadable == []
    columns = {"picture": pixels / 255, **view.see(pixels)}
    for place, column in enumerate(columns.values()):
        left, top = 12 + place * (192 + 12), 12 + 26  # of the first row, enlarged three times
        tile = np.asarray(sheet.crop((left, top, left + 192, top + 192)))
        expected = (column[0] * 255).round().clamp(0, 255).permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
        np.testing.assert_array_equal(tile, expected)
    assert sheet.width == 12 + 3 * (192 + 12)
    assert sheet.height == 12 + 3 * (26 + 192 + 20 + 12)


def test_features_of_any_other_run_are_those_of_its_model(
    birds: Path, tmp_path: Path, photos: list[Path], pixels: Tensor
) -> None:
    common = {"network": "convnext_v2_atto", "network_options": CONVNEXT}
    for name, objective in (("simclr", configs.SimCLRConfig()), ("species", configs.ClassificationConfig())):
        run = train(tmp_path / name, birds, objective=objective, **common)
        view = view_of_run(run)
        network, info = load_model(run / "last.safetensors")
        assert info.rgb_stats == CLIP
        colours = feature_colours(network, view.transform.normalize(pixels))  # (3, 3, 2, 2)
        expected = colours.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)
        (column,) = view.see(pixels).items()
        assert column[0] == "features"
        torch.testing.assert_close(column[1], expected)
        assert view_of_run(run, size=(96, 128)).transform.size == (96, 128)
        (run / "last.safetensors").unlink()
        with pytest.raises(ConfigError, match="has no model yet"):
            view_of_run(run)


def test_features_of_tokens_stand_where_their_patches_are(pixels: Tensor) -> None:
    """One patch that differs from all others has another colour than all others, which have one."""
    network = small_vit()
    plain = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    plain[:, :, 8:12, 20:24] = 250
    network.pos_embedding.data.zero_()
    colours = view_of_features(network, CLIP).see(plain)["features"]
    odd = torch.zeros(32, 32, dtype=torch.bool)
    odd[8:12, 20:24] = True
    spread_of = [colours[0][:, place].std(dim=1).max() for place in (odd, ~odd)]
    assert max(spread_of) < 0.01
    assert (colours[0][:, odd].mean(dim=1) - colours[0][:, ~odd].mean(dim=1)).abs().max() > 0.5


def test_a_start_that_is_gone_is_not_needed(birds: Path, tmp_path: Path, pixels: Tensor) -> None:
    network = create_network("vit_t16", 0, size=(64, 64), **VIT)
    save_model(tmp_path / "start.pt", network, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    run = train(tmp_path / "run", birds, start=str(tmp_path / "start.pt"), rgb=None, objective=MAE)
    (tmp_path / "start.pt").unlink()
    assert list(view_of_run(run).see(pixels)) == ["seen", "reconstruction"]


def test_runs_that_cannot_be_shown(mae: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the folder of a run: it has no recipe.toml"):
        view_of_run(tmp_path)
    with pytest.raises(ConfigError, match=r"draws pictures of \(64, 64\) only; .*last.safetensors shows features"):
        view_of_run(mae, size=(96, 96))
    run = tmp_path / "run"
    shutil.copytree(mae, run)
    recipe = read_recipe(run / "recipe.toml")
    write_recipe(run / "recipe.toml", replace(recipe, objective=replace(MAE, decoder_depth=2)))
    with pytest.raises(WeightsMismatch, match=r"\.pt: 18 weights are not those of recipe.toml: decoder\.1\."):
        view_of_run(run)
    (checkpoint,) = RunFolder(run).checkpoints(2).paths()
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"all checkpoints in .* are damaged"):
        view_of_run(run)
    checkpoint.unlink()
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        view_of_run(run)
    with pytest.raises(ConfigError, match="this network takes 1"):
        view_of_features(create_network("vit_t16", 0, input_channels=1, size=(64, 64), **VIT), CLIP)


def test_what_cannot_be_read_is_left_out(mae: Path, photos: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    view = view_of_run(mae)
    sheet, unreadable = sheet_of_view(view, [text, photos[0], tmp_path / "gone.jpg"])
    assert unreadable == [(text, "not a picture"), (tmp_path / "gone.jpg", "no such file")]
    assert sheet.size == sheet_of_view(view, photos[:1])[0].size
    with pytest.raises(DataError, match=r"none of 1 pictures can be read; .*text.jpg: not a picture"):
        sheet_of_view(view, [text])


def test_a_large_picture_is_not_enlarged(tmp_path: Path) -> None:
    network = create_network("vit_t16", 0, size=(128, 256), **VIT)
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    sheet, _ = sheet_of_view(view_of_features(network, CLIP), [tmp_path / "red.png"])
    assert sheet.width == 12 + 2 * (256 + 12)


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(10, 2, [2, 7]), (3, 8, [0, 1, 2]), (9, 3, [1, 4, 7]), (0, 4, []), (5, 1, [2])]
)
def test_pictures_are_taken_evenly(total: int, count: int, expected: list[int]) -> None:
    assert spread([Path(str(number)) for number in range(total)], count) == [Path(str(number)) for number in expected]
