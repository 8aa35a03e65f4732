"""A whole run, on drawn birds: it learns, it can be stopped, and it trains again from what it wrote."""

import errno
import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from birder.data.drawn import DrawnBirds, write_folder
from birder.data.samples import read_samples
from birder.errors import ConfigError, DataError, NotFinite, Stopped
from birder.evaluation.classification import evaluate
from birder.model_file import load_model
from birder.training import fit as fit_module
from birder.training import folder as folder_module
from birder.training.checkpoints import Checkpoints
from birder.training.fit import _Training, fit
from birder.training.folder import RunFolder
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule, read_recipe
from birder.training.validate import named

NETWORK = {"in_channels": (16, 24, 32, 48), "num_layers": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    birds = DrawnBirds(families=3, species=3, difficulty=0.1, size=(40, 40))
    write_folder(birds, folder / "train", 24)
    write_folder(birds, folder / "val", 8, split="val")
    return folder


def recipe_for(folder, **options):
    recipe = Recipe(
        data=str(folder / "train"),
        val=str(folder / "val"),
        network_options=NETWORK,
        size=(32,),
        epochs=3,
        batch_size=8,
        augment=Augment(min_scale=0.7, policy="none"),
        optim=Optim(name="muon", lr=4e-3),
        schedule=Schedule(warmup_epochs=0.5),
        run=Run(device="cpu", dtype="float32", threads=1, workers=0),
    )
    return replace(recipe, **options)


def metrics(path, kind="epoch"):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def state(path):
    (newest, *_) = Checkpoints(path / "checkpoints", keep=2).paths()
    return torch.load(newest, weights_only=True)["engine"]


def weights(path):
    return state(path)["objective"]


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    return fit(recipe_for(folder), out)


def test_it_learns_to_a_known_accuracy(folder, tmp_path):
    """Chance is one third; noise in place of birds would stay there."""
    fitted = fit(recipe_for(folder, epochs=12), tmp_path / "long")
    assert fitted.top1 >= 0.9
    network, info = load_model(fitted.model)
    samples = read_samples(folder / "val", info.class_to_idx)
    assert evaluate(network, info, samples).top1 == fitted.top1


def test_the_folder_holds_what_it_should(run):
    names = sorted(path.name for path in run.folder.iterdir() if path.name != ".lock")
    assert names == ["best.safetensors", "checkpoints", "last.safetensors", "metrics.jsonl", "recipe.toml"]
    assert sorted(path.name for path in (run.folder / "checkpoints").iterdir()) == ["00000018.pt", "00000027.pt"]
    epochs = metrics(run.folder)
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert [line["step"] for line in epochs] == [9, 18, 27]
    assert {"loss", "accuracy", "lr", "images_per_s", "data_wait", "val_top1", "val_macro_f1"} <= set(epochs[0])
    assert run.top1 == max(line["val_top1"] for line in epochs)
    assert metrics(run.folder, "start")[0]["pictures"] == 72


def test_the_model_file_says_how_pictures_are_prepared(run):
    network, info = load_model(run.model)
    assert network.size == (32, 32)
    assert len(info.class_to_idx) == 3
    assert info.rgb_stats["mean"] == (0.485, 0.456, 0.406)


def test_the_written_recipe_trains_the_same_again(run, tmp_path):
    again = fit(read_recipe(run.folder / "recipe.toml"), tmp_path / "again")
    assert equal(weights(run.folder), weights(again.folder))
    losses = [[line["loss"] for line in metrics(path)] for path in (run.folder, again.folder)]
    assert losses[0] == losses[1]


def test_a_stopped_run_goes_on_and_ends_the_same(folder, run, tmp_path, monkeypatch):
    recipe = recipe_for(folder)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit_module, "named", _after(2, stop))
        fit(recipe, tmp_path / "run")
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1]

    fitted = fit(recipe, tmp_path / "run")
    assert equal(weights(run.folder), weights(tmp_path / "run"))
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3]
    assert len(metrics(tmp_path / "run", "start")) == 1
    assert fitted.top1 == run.top1


def _after(calls, stop):
    count = iter(range(1, 100))

    def named_or_stop(*arguments, **options):
        return stop() if next(count) == calls else named(*arguments, **options)

    return named_or_stop


def test_what_a_stopped_run_wrote_too_much_is_forgotten(folder, run, tmp_path):
    recipe = recipe_for(folder)
    out = tmp_path / "run"
    first = fit(replace(recipe, epochs=3), out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "epoch", "step": 99, "epoch": 11}\n{"kind": "ep')
    assert fit(recipe, out).top1 == first.top1
    assert [line["epoch"] for line in metrics(out)] == [1, 2, 3]


def test_a_finished_run_is_left_as_it_is(folder, run):
    before = {path.name: path.stat().st_mtime_ns for path in run.folder.glob("*.safetensors")}
    assert fit(recipe_for(folder), run.folder).top1 == run.top1
    assert {path.name: path.stat().st_mtime_ns for path in run.folder.glob("*.safetensors")} == before


def test_a_folder_of_another_run_is_not_touched(folder, run):
    with pytest.raises(ConfigError, match="holds something else than this run"):
        fit(recipe_for(folder, epochs=4), run.folder)
    assert read_recipe(run.folder / "recipe.toml").epochs == 3


def test_a_folder_with_other_files_is_not_touched(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(ConfigError, match="holds something else"):
        fit(recipe_for(folder), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_a_folder_every_finished_run_gets_the_next(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_for(folder, epochs=1, val=None)
    assert str(fit(recipe).folder) == "runs/convnext_v2_atto"
    fitted = fit(recipe)
    assert str(fitted.folder) == "runs/convnext_v2_atto-2"
    assert fitted.top1 is None
    assert fitted.model.exists()


def test_an_unreadable_picture_is_left_out_and_recorded(folder, tmp_path):
    source = tmp_path / "data"
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), source, 6)
    broken = next(source.glob("*/0001.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    fit(recipe_for(folder, data=str(source), val=None, epochs=1, batch_size=12), tmp_path / "run")
    (line,) = metrics(tmp_path / "run", "unreadable")
    assert line["path"] == str(broken)
    assert "ends before" in line["reason"] or "truncated" in line["reason"]


def test_other_pictures_under_the_same_name_do_not_go_on(folder, tmp_path):
    source = tmp_path / "data"
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), source, 6)
    recipe = recipe_for(folder, data=str(source), val=None, epochs=1)
    fit(recipe, tmp_path / "run")
    first = min(path for path in source.iterdir() if path.is_dir())
    first.rename(source / "Zzz")
    with pytest.raises(ConfigError, match=r"are not those that the run in .*run began with"):
        fit(recipe, tmp_path / "run")


def test_one_bad_file_alone_in_a_batch_stops_nothing(folder, tmp_path):
    source = tmp_path / "data"
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), source, 4)
    next(source.glob("*/0001.jpg")).write_bytes(b"")
    fit(recipe_for(folder, data=str(source), val=None, epochs=1, batch_size=1), tmp_path / "run")
    assert [line["reason"] for line in metrics(tmp_path / "run", "unreadable")] == ["empty: the file is empty"]
    assert metrics(tmp_path / "run")[0]["step"] == 8


def test_a_set_without_one_readable_picture_is_an_error(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="not one picture"):
        fit(recipe_for(folder, data=str(tmp_path / "data"), val=None), tmp_path / "run")


def test_what_a_run_killed_at_its_first_write_left_is_no_hindrance(folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.abc.tmp.toml").write_text("half")
    assert fit(recipe_for(folder, epochs=1, val=None), tmp_path / "run").model.exists()


def test_validation_pictures_must_be_of_known_species(folder, tmp_path):
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40), seed=9), tmp_path / "other", 2)
    with pytest.raises(DataError, match="other"):
        fit(recipe_for(folder, val=str(tmp_path / "other")), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing is written before everything is checked"


def test_a_damaged_checkpoint_is_passed_over(folder, run, tmp_path):
    """Cut off anywhere, the newest is no hindrance: the run goes on from the one before, and ends the same."""
    out, lines = tmp_path / "run", []
    shutil.copytree(run.folder, out)
    newest = out / "checkpoints" / "00000027.pt"
    whole = newest.read_bytes()
    for length in (0, 1, 1000, len(whole) // 2, len(whole) - 1):
        newest.write_bytes(whole[:length])
        fit(recipe_for(folder), out, console=Listener(lines))
        assert f"{newest} is damaged and passed over" in lines[0]
        assert any("goes on at step 18 of 27" in line for line in lines)
        assert equal(weights(out), weights(run.folder))
        assert [line["epoch"] for line in metrics(out)] == [1, 2, 3]
        lines.clear()
    newest.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    fit(recipe_for(folder), out, console=Listener(lines))
    assert "the checksum of" in lines[0]
    assert equal(weights(out), weights(run.folder))


def test_without_one_whole_checkpoint_nothing_is_overwritten(folder, run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"half")
    with pytest.raises(
        DataError, match=r"all checkpoints in .*run/checkpoints are damaged: remove .*run to begin again"
    ):
        fit(recipe_for(folder), tmp_path / "run")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_costs_a_checkpoint_not_the_run(folder, run, tmp_path):
    """The checkpoints of the copy lie on a disk that has room for one and a half."""
    out, lines = tmp_path / "run", []
    shutil.copytree(run.folder, out)
    older = (out / "checkpoints" / "00000018.pt").read_bytes()
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    size = f"size={len(older) * 3 // 2}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", out / "checkpoints"], check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        (out / "checkpoints" / "00000018.pt").write_bytes(older)
        fit(recipe_for(folder), out, console=Listener(lines))
        assert any("step 27 could not be written: No space left on device; the newest is" in line for line in lines)
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["00000018.pt"]
        assert equal(load_file(out / "last.safetensors"), load_file(run.folder / "last.safetensors"))

        subprocess.run(["mount", "-o", "remount,size=64m", out / "checkpoints"], check=True)
        fit(recipe_for(folder), out, console=Listener(lines))
        assert any("goes on at step 18 of 27" in line for line in lines)
        assert equal(weights(out), weights(run.folder))
    finally:
        subprocess.run(["umount", "--lazy", out / "checkpoints"], check=True)


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_run_goes_on(folder, run, tmp_path, monkeypatch):
    lines, write = [], Checkpoints.write

    def full(self, step, state):
        if step == 18:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, step, state)

    monkeypatch.setattr(Checkpoints, "write", full)
    fit(recipe_for(folder), tmp_path / "run", console=Listener(lines))
    assert any("step 18 could not be written: No space left on device; the newest is" in line for line in lines)
    assert equal(weights(tmp_path / "run"), weights(run.folder))


def test_stopped_behind_the_last_step_of_an_epoch_it_is_still_validated(folder, run, tmp_path, monkeypatch):
    """Asked to stop in that step, it saves before the validation; going on, it begins with that."""
    step = _Training._step

    def asked(self, pictures, count, run_folder):
        step(self, pictures, count, run_folder)
        self.interrupt.asked = self.engine.step == 9

    with (
        monkeypatch.context() as patch,
        pytest.raises(Stopped, match="stopped at step 9 of 27; the same command goes on"),
    ):
        patch.setattr(_Training, "_step", asked)
        fit(recipe_for(folder), tmp_path / "run")
    assert metrics(tmp_path / "run") == []
    fit(recipe_for(folder), tmp_path / "run")
    assert equal(weights(tmp_path / "run"), weights(run.folder))
    once, twice = metrics(run.folder), metrics(tmp_path / "run")
    for name in ("epoch", "step", "loss", "accuracy", "val_top1"):
        assert [line[name] for line in twice] == [line[name] for line in once], name


def test_metrics_of_an_epoch_that_was_stopped_are_those_of_all_of_it(folder, run, tmp_path, monkeypatch):
    step = _Training._step

    def asked(self, pictures, count, run_folder):
        step(self, pictures, count, run_folder)
        self.interrupt.asked = self.engine.step == 13

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped at step 14 of 27"):
        patch.setattr(_Training, "_step", asked)
        fit(recipe_for(folder), tmp_path / "run")
    fit(recipe_for(folder), tmp_path / "run")
    assert [line["loss"] for line in metrics(tmp_path / "run")] == [line["loss"] for line in metrics(run.folder)]


def test_two_do_not_train_in_one_folder(folder, run, monkeypatch):
    monkeypatch.setattr(folder_module, "LOCK_TIMEOUT_S", 0.1)
    with RunFolder(run.folder).locked(), pytest.raises(ConfigError, match="another process trains in"):
        fit(recipe_for(folder), run.folder)


def test_a_loss_that_is_no_number_names_its_pictures(folder, tmp_path):
    recipe = recipe_for(folder, optim=Optim(name="sgd", lr=1e6, clip=0.0), schedule=Schedule(warmup_epochs=0.0))
    with pytest.raises(NotFinite, match=r"at step \d+ of 27.*; the pictures of the step are .*train.*\.jpg, .*\.jpg"):
        fit(recipe, tmp_path / "run")


class Listener:
    """A console that keeps what it is told."""

    is_terminal = False

    def __init__(self, lines):
        self.lines = lines

    def print(self, text, **options):
        self.lines.append(text)


def test_an_unknown_device_is_an_error_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ConfigError, match="this machine has no device 'gpu'"):
        fit(recipe_for(folder, run=Run(device="gpu")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
