"""From a model and pictures to a calibration and its figures."""

import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from birder.calibration.calibrate import FEWEST, Found, calibrate, fit_and_measure, seen
from birder.calibration.novelty import Seen, fit_arrays
from birder.calibration.output import check_output, write_calibrated
from birder.calibration.temperature import fit_temperature
from birder.calibration.wanted import Kind, Wanted
from birder.data.samples import read_pictures, read_samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, DataError, ModelFileError
from birder.inference.bulk.run import Summary
from birder.inference.classification import infer_image
from birder.inference.embeddings import embeddings
from birder.inference.job import Job
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.rows import Row
from birder.model_file import Calibration, ModelInfo, load_model, read_model
from birder.model_file.calibration import KINDS
from birder.networks import Network, create_network
from birder.training.fit import fit
from birder.training.recipe import Recipe, Run, Schedule

HEAT = 2.5  # see conftest.py


@pytest.fixture(scope="module")
def loaded(model: Path) -> tuple[Network, ModelInfo]:
    return load_model(model)


@pytest.fixture(scope="module")
def found(loaded: tuple[Network, ModelInfo], data: Path) -> Found:
    net, info = loaded
    return calibrate(net, info, read_samples(data, info.class_to_idx), Wanted(novelty="relative_mahalanobis"))


def test_the_temperature_is_the_one_that_the_labels_were_drawn_at(found: Found) -> None:
    assert found.calibration.temperature == pytest.approx(HEAT, rel=0.25)
    assert found.nll[1] < found.nll[0] and found.ece[1] < found.ece[0]
    assert found.calibration.pictures == 300 and not found.failures


def test_what_is_stored_is_of_all_pictures(found: Found, loaded: tuple[Network, ModelInfo], data: Path) -> None:
    net, info = loaded
    samples = read_samples(data, info.class_to_idx)
    known, _ = seen(net, embeddings(net, info.rgb_stats, samples))
    assert found.calibration.temperature == pytest.approx(fit_temperature(known.logits, known.labels), rel=1e-6)
    assert found.calibration.data == samples.fingerprint()
    assert found.accuracy == (known.logits.argmax(1) == known.labels).mean()


def test_the_promises_are_kept(found: Found) -> None:
    assert found.covered == pytest.approx(0.9, abs=0.04) and 0.9 < found.set_size < 4
    if found.threshold is not None:
        assert found.threshold.error <= 0.05 and found.calibration.threshold == found.threshold.threshold


def test_seen_is_what_infer_image_says(loaded: tuple[Network, ModelInfo], data: Path) -> None:
    net, info = loaded
    samples = read_samples(data, info.class_to_idx).select(range(5))
    known, failures = seen(net, embeddings(net, info.rgb_stats, samples, batch_size=2))
    transform = classification_transform(net.size, info.rgb_stats)
    for index, path in enumerate(samples.paths):
        logits, embedding = infer_image(net, path, transform, return_embedding=True, return_logits=True)
        np.testing.assert_allclose(known.logits[index], logits[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(known.embeddings[index], embedding[0], rtol=1e-4, atol=1e-5)  # type: ignore[index]
    assert known.labels.tolist() == samples.labels.tolist() and failures == []


def test_pictures_that_cannot_be_read_are_told(loaded: tuple[Network, ModelInfo]) -> None:
    net, _ = loaded
    row = Row(path="x", status="error", reason="missing: x")
    known, failures = seen(net, [row])
    assert len(known) == 0 and failures == [row] and known.logits.shape == (0, 4)


def test_too_few_pictures(loaded: tuple[Network, ModelInfo], data: Path) -> None:
    net, info = loaded
    few = read_samples(data, info.class_to_idx).select(range(FEWEST - 1))
    with pytest.raises(DataError, match="99 pictures that can be read are too few to calibrate with: it takes 100"):
        calibrate(net, info, few, Wanted())


def test_other_classes_and_no_classes(loaded: tuple[Network, ModelInfo], data: Path) -> None:
    net, info = loaded
    with pytest.raises(DataError, match="do not have the model's classes"):
        calibrate(net, info, read_pictures(data), Wanted())
    bare = create_network("convnext_v2_atto", 0, in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    with pytest.raises(ModelFileError, match="no classifier"):
        calibrate(bare, info, read_pictures(data), Wanted())


@pytest.mark.parametrize(
    "options",
    [{"max_error": 1.0}, {"coverage": 1.0}, {"kept": 0.5}, {"coverage": float("nan")}],
)
def test_wishes_that_make_no_sense(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Wanted(**options)  # type: ignore[arg-type]


def test_every_kind_can_be_asked_for() -> None:
    assert get_args(Kind) == tuple(KINDS)


def cloud(count: int, middle: float) -> Seen:
    random = np.random.default_rng(int(middle))
    logits = random.normal(size=(count, 5))
    logits[:, 0] += 6  # everyone is as sure
    return Seen(embeddings=random.normal(middle, 1, (count, 8)), logits=logits, labels=np.zeros(count, int))


def test_novelty_is_stored_only_where_it_is_better_than_a_low_score() -> None:
    better, measured = fit_and_measure(Wanted(novelty="mahalanobis"), cloud(200, 0), cloud(150, 3))
    assert better is not None and measured is not None and measured.better.low > 0
    assert better.measured["pictures"] == 150
    assert better.measured["auroc"] == measured.auroc.value > 0.95
    assert better.measured["auroc_max_softmax"] == pytest.approx(measured.auroc.value - measured.better.value)
    none, same = fit_and_measure(Wanted(novelty="max_softmax"), cloud(200, 0), cloud(150, 3))
    assert none is None and same is not None and same.better.value == 0
    assert fit_and_measure(Wanted(novelty="mahalanobis"), cloud(200, 0), None)[1] is None


def test_with_pictures_of_other_things(loaded: tuple[Network, ModelInfo], data: Path, others: Path) -> None:
    net, info = loaded
    samples, strange = read_samples(data, info.class_to_idx), read_pictures(others)
    found = calibrate(net, info, samples, Wanted(novelty="mahalanobis"), others=strange)
    assert found.separation is not None
    assert (found.calibration.novelty is not None) == (found.separation.better.low > 0)
    without = calibrate(net, info, samples, Wanted(novelty="none"), others=strange)
    assert without.calibration.novelty is None and without.separation is None
    trained = calibrate(net, info, samples, Wanted(novelty="centroids"), training=samples.select(range(0, 300, 2)))
    known, _ = seen(net, embeddings(net, info.rgb_stats, samples.select(range(0, 300, 2))))
    assert trained.calibration.novelty is not None
    stored = trained.calibration.novelty.arrays["centroids"]
    np.testing.assert_allclose(stored, fit_arrays("centroids", known)["centroids"], atol=1e-6)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_new_file_is_the_old_one_and_a_calibration(found: Found, model: Path, tmp_path: Path, suffix: str) -> None:
    before = model.read_bytes()
    write_calibrated(model, tmp_path / f"new{suffix}", found.calibration, network="convnext_v2_atto")
    old, new = read_model(model), read_model(tmp_path / f"new{suffix}")
    assert old.state.keys() == new.state.keys()
    assert all(np.array_equal(old.state[name], new.state[name]) for name in old.state)
    assert replace(new, state={}, calibration=None) == replace(old, state={})
    assert new.calibration is not None and new.calibration.temperature == found.calibration.temperature
    assert model.read_bytes() == before


def test_where_it_goes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output(model, None) == Path("birds-calibrated.safetensors")
    Path("birds-calibrated.safetensors").touch()
    with pytest.raises(ConfigError, match="exists already; --output birds-calibrated"):
        check_output(model, None)
    assert check_output(model, Path("birds-calibrated.safetensors")).exists()
    Path("link.safetensors").symlink_to(model)
    for same in (model, Path("link.safetensors")):
        with pytest.raises(ConfigError, match="is the model itself"):
            check_output(model, same)
    Path("folder.pt").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(model, Path("folder.pt"))
    with pytest.raises(ConfigError, match="does not exist"):
        check_output(model, Path("nowhere/x.pt"))
    with pytest.raises(ModelFileError, match="ends in"):
        check_output(model, Path("x.txt"))


PLAIN = {"backend": "torch", "precision": "fp32", "workers": 0}


def test_predictions_of_a_calibrated_model(found: Found, model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    write_calibrated(model, path, replace(found.calibration, threshold=0.6), network="convnext_v2_atto")
    files = sorted(data.glob("*/*.png"))[:40]
    with Predictor(model, Options(**PLAIN, top="all")) as predictor:
        raw = list(predictor.stream(files))
    with Predictor(path, Options(**PLAIN, top="all", min_score="auto")) as predictor:
        assert predictor.layout.novelty
        rows = list(predictor.stream(files))
    assert all(row.novelty is None for row in raw)
    for plain, row in zip(raw, rows, strict=True):
        shares = np.array(plain.scores) ** (1 / found.calibration.temperature)
        assert row.labels == plain.labels
        np.testing.assert_allclose(row.scores, shares / shares.sum(), rtol=1e-5)
        assert row.novelty is not None and 0 <= row.novelty <= 1
        wanted = "not_in_list" if row.novelty > 0.95 else "unsure" if row.scores[0] < 0.6 else "ok"
        assert row.status == wanted
    assert len({row.status for row in rows}) > 1


@pytest.mark.parametrize("tta", [False, True])
def test_novelty_is_the_same_to_the_last_bit_for_any_batches(
    found: Found, model: Path, data: Path, tmp_path: Path, tta: bool
) -> None:
    path = tmp_path / "new.safetensors"
    write_calibrated(model, path, found.calibration, network="convnext_v2_atto")
    files = sorted(data.glob("*/*.png"))[:30]
    order = np.random.default_rng(0).permutation(30)

    def rows(batch_size: int, paths: list[Path], threads: int) -> list[Row]:
        with Predictor(path, Options(**PLAIN, batch_size=batch_size, threads=threads, tta=tta)) as predictor:
            return list(predictor.stream(paths))

    wanted = rows(1, files, 1)
    assert rows(7, [files[index] for index in order], 2) == [wanted[index] for index in order]
    assert len({row.novelty for row in wanted}) > 20


def test_auto_needs_a_threshold(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto takes the threshold that birder calibrate has found, and this model"):
        Predictor(model, Options(**PLAIN, min_score="auto"))
    bare = Calibration(temperature=2.0, pictures=100, data="")
    write_calibrated(model, tmp_path / "new.pt", bare, network="convnext_v2_atto")
    with pytest.raises(ConfigError, match="has none"):
        Predictor(tmp_path / "new.pt", Options(**PLAIN, min_score="auto"))
    with Predictor(tmp_path / "new.pt", Options(**PLAIN)) as predictor:
        assert not predictor.layout.novelty


def test_embeddings_have_no_novelty(found: Found, model: Path, data: Path, tmp_path: Path) -> None:
    write_calibrated(model, tmp_path / "new.pt", found.calibration, network="convnext_v2_atto")
    with Predictor(tmp_path / "new.pt", Options(**PLAIN), embeddings=True) as predictor:
        assert not predictor.layout.novelty
        rows = list(predictor.stream(sorted(data.glob("*/*.png"))[:3]))
    assert all(row.embedding is not None and row.novelty is None for row in rows)


def test_a_training_from_a_calibrated_file_does_not_carry_it_over(
    found: Found, model: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "new.pt"
    write_calibrated(model, path, found.calibration, network="convnext_v2_atto")
    here = Run(device="cpu", dtype="float32", threads=1, workers=0)
    recipe = Recipe(
        data=str(data), start=str(path), epochs=1, batch_size=64, schedule=Schedule(warmup_epochs=0.0), run=here
    )
    fitted = fit(recipe, tmp_path / "run")
    assert read_model(path).calibration is not None
    assert read_model(fitted.model).calibration is None


def test_a_run_goes_on_where_it_ended(found: Found, model: Path, data: Path, tmp_path: Path) -> None:
    """The novelty of what is known already comes from the journal, and the file is that of an unbroken run."""
    path, folder = tmp_path / "new.pt", tmp_path / "photos"
    write_calibrated(model, path, found.calibration, network="convnext_v2_atto")
    folder.mkdir()
    files = sorted(data.glob("*/*.png"))[:24]

    def run(name: str, count: int) -> Summary:
        for file in files[:count]:
            if not (folder / file.name).exists():
                os.link(file, folder / file.name)
        job = Job(model=str(path), paths=(folder,), output=tmp_path / name, options=Options(**PLAIN))
        return job.run()

    run("r.csv", 10)
    summary = run("r.csv", 24)
    assert (summary.kept, summary.predicted) == (10, 14)
    run("unbroken.csv", 24)
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "unbroken.csv").read_bytes()
    assert "novelty" in (tmp_path / "r.csv").read_text().splitlines()[0]
