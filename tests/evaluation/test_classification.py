"""An evaluation of pictures whose answers are known."""

import json
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birder.data.samples import Files, Samples, read_samples
from birder.data.shards import write_shards
from birder.errors import DataError, ModelFileError, NotFinite
from birder.evaluation.classification import Evaluation, evaluate, halves
from birder.evaluation.metrics import ClassScore, Confusion
from birder.inference.embeddings import Embedded, embeddings
from birder.model_file import ModelInfo
from birder.model_file.calibration import Calibration
from birder.networks import Network


@pytest.mark.parametrize(("batch_size", "workers"), [(32, 0), (2, 1)])
def test_the_numbers(network: Network, info: ModelInfo, colours: Path, batch_size: int, workers: int) -> None:
    samples = read_samples(colours, info.class_to_idx)
    result = evaluate(network, info, samples, batch_size=batch_size, workers=workers)
    assert result.pictures == 5
    assert result.top1 == 0.8
    assert result.top1_interval == pytest.approx((0.375535, 0.963776), abs=1e-5)
    assert result.top3 == result.top5 == 1.0
    assert result.balanced_accuracy == (1 + 0.5) / 2
    assert result.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert [(row.name, row.f1, row.samples, row.predicted) for row in result.classes] == [
        ("Blue", 1.0, 3, 3),
        ("Green", pytest.approx(2 / 3), 2, 1),
        ("Red", 0.0, 0, 1),
    ]
    assert isinstance(result.classes[0], ClassScore)
    assert result.confused == [Confusion(name="Green", predicted="Red", count=1, share=0.5, cost=1.0)]
    assert result.costliest == result.confused
    assert [(Path(failure.path).name, failure.code) for failure in result.failures] == [("3.png", "not_an_image")]


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_in_tar_files(network: Network, info: ModelInfo, colours: Path, tmp_path: Path, workers: int) -> None:
    samples = read_samples(colours, info.class_to_idx)
    write_shards(samples, tmp_path / "shards", prefix="x", samples_per_shard=2)
    wanted = evaluate(network, info, samples)
    found = evaluate(network, info, read_samples(tmp_path / "shards", info.class_to_idx), batch_size=2, workers=workers)
    assert [path.name for path in found.paths] == [f"sample{number:09d}.png" for number in range(5)]
    assert found.classes == wanted.classes and np.array_equal(found.probabilities, wanted.probabilities)
    assert not found.failures and len(wanted.failures) == 1


def test_an_answer_that_is_no_number_is_not_left_out_of_the_count(
    network: Network, info: ModelInfo, colours: Path
) -> None:
    answer = network.forward
    network.forward = lambda images: answer(images) / 0 * 0  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=r"1\.png: not_finite: the network's answer is not a number"):
        evaluate(network, info, read_samples(colours, info.class_to_idx))


def test_every_picture_has_its_own_row(network: Network, info: ModelInfo, colours: Path) -> None:
    result = evaluate(network, info, read_samples(colours, info.class_to_idx))
    names = [path.relative_to(colours).as_posix() for path in result.paths]
    assert names == ["Blue/1.png", "Blue/2.png", "Blue/4.png", "Green/1.png", "Green/2.png"]
    assert result.labels.tolist() == [0, 0, 0, 1, 1]
    assert result.ranked[:, 0].tolist() == [0, 0, 0, 1, 2]
    assert result.ranked.shape == result.probabilities.shape == (5, 3)
    sure = np.exp(3) / (np.exp(3) + 2)
    assert np.abs(result.probabilities[:, 0] - sure).max() < 1e-6
    assert np.abs(result.label_probability - [sure, sure, sure, sure, 1 / (np.exp(3) + 2)]).max() < 1e-6
    assert result.label_probability.dtype == np.float32 and result.embeddings is None


def test_calibration_of_the_answers(network: Network, info: ModelInfo, colours: Path) -> None:
    result = evaluate(network, info, read_samples(colours, info.class_to_idx))
    sure = np.exp(3) / (np.exp(3) + 2)
    assert result.ece == pytest.approx(sure - 0.8, abs=1e-6)  # all answers are equally sure, and 4 of 5 are right
    assert result.brier == pytest.approx((4 * (1 - sure) ** 2 + sure**2) / 5, abs=1e-6)
    assert [(row.pictures, row.accuracy) for row in result.reliability if row.pictures] == [(5, 0.8)]


def calibrated(info: ModelInfo, temperature: float) -> ModelInfo:
    return info._replace(calibration=Calibration(temperature=temperature, pictures=10, data="00"))


def test_a_calibrated_model_gives_calibrated_probabilities(network: Network, info: ModelInfo, colours: Path) -> None:
    samples = read_samples(colours, info.class_to_idx)
    plain, warm = evaluate(network, info, samples), evaluate(network, calibrated(info, 2.0), samples)
    sure = np.exp(1.5) / (np.exp(1.5) + 2)
    assert np.abs(warm.probabilities[:, 0] - sure).max() < 1e-6
    assert np.abs(warm.label_probability[:4] - sure).max() < 1e-6
    assert warm.top1 == plain.top1 and warm.ece < plain.ece
    one = evaluate(network, calibrated(info, 1.0), samples)
    assert np.abs(one.probabilities - plain.probabilities).max() < 1e-6


def test_the_embeddings_are_those_of_the_network(network: Network, info: ModelInfo, colours: Path) -> None:
    samples = read_samples(colours, info.class_to_idx)
    del network.forward  # the plain colours; embeddings are classified by the network itself
    plain = evaluate(network, info, samples)
    result = evaluate(network, info, samples, batch_size=2, embeddings=True)
    assert result.embeddings is not None and result.embeddings.dtype == np.float16
    rows = [row for row in embeddings(network, info.rgb_stats, samples) if isinstance(row, Embedded)]
    wanted = np.stack([row.embedding for row in rows])
    assert np.abs(result.embeddings - wanted).max() <= 2**-11 * np.abs(wanted).max()
    assert np.abs(wanted).max() > 0.1
    assert np.abs(result.probabilities - plain.probabilities).max() < 1e-6


def test_what_is_too_large_for_half_precision() -> None:
    assert halves(np.array([1e9, -1e9, 0.5], np.float32)).tolist() == [65504.0, -65504.0, 0.5]


def drawn_evaluation(count: int, classes: int) -> Evaluation:
    random = np.random.default_rng(0)
    labels = random.choice(classes, count, p=random.dirichlet(np.ones(classes)))
    ranked = random.integers(0, classes, (count, 5), dtype=np.int32)
    ranked[random.random(count) < 0.8, 0] = -2
    ranked[:, 0] = np.where(ranked[:, 0] == -2, labels, ranked[:, 0])
    probabilities = np.sort(random.dirichlet(np.ones(6) / 2, count)[:, :5].astype(np.float32))[:, ::-1]
    names = [f"bird {number}" for number in range(classes)]
    return Evaluation(
        names=names,
        paths=[],
        labels=labels,
        ranked=ranked,
        probabilities=probabilities,
        label_probability=probabilities[:, 0],
        failures=[],
    )


def test_the_estimates_are_those_of_drawn_pictures() -> None:
    result = drawn_evaluation(300, 20)
    found = result.estimates
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(getattr(result, name), abs=1e-12)
        assert estimate.low < estimate.value < estimate.high
    random, wanted = np.random.default_rng(0), []
    for _ in range(1000):
        some = random.integers(300, size=300)
        labels, ranked, probabilities = result.labels[some], result.ranked[some], result.probabilities[some]
        wanted.append(replace(result, labels=labels, ranked=ranked, probabilities=probabilities))
    for name, estimate in found.items():
        values = [getattr(draw, name) for draw in wanted]
        low, high = np.quantile(values, [0.025, 0.975]) - 2 * (np.mean(values) - estimate.value)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.slow
def test_the_estimates_of_many_pictures_take_seconds_and_little_memory() -> None:
    result = drawn_evaluation(50_000, 700)
    tracemalloc.start()
    began = time.monotonic()
    result.estimates  # noqa: B018
    assert time.monotonic() - began < 60
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_the_summary_is_plain_data(network: Network, info: ModelInfo, colours: Path) -> None:
    summary = evaluate(network, info, read_samples(colours, info.class_to_idx)).to_dict()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["pictures"], summary["unreadable"], summary["top1"]) == (5, 1, 0.8)
    assert (summary["classes_of_the_model"], summary["classes_with_pictures"]) == (3, 2)
    assert summary["classes"][2]["recall"] is None and summary["classes"][2]["recall_low"] is None
    assert list(summary["estimates"]) == ["top1", "top3", "top5", "macro_f1", "balanced_accuracy", "ece", "brier"]
    assert len(summary["reliability"]) == 15 and summary["reliability"][0]["accuracy"] is None
    assert summary["failures"][0]["reason"] == "not_an_image: not a picture"


def test_the_rows_can_be_watched(network: Network, info: ModelInfo, colours: Path) -> None:
    seen = []

    def watch(rows):  # type: ignore[no-untyped-def]
        for row in rows:
            seen.append(Path(row.path).name)
            yield row

    evaluate(network, info, read_samples(colours, info.class_to_idx), watch=watch)
    assert seen == ["1.png", "2.png", "3.png", "4.png", "1.png", "2.png"]


def test_a_network_in_training_goes_on_training(network: Network, info: ModelInfo, colours: Path) -> None:
    network.train()
    evaluate(network, info, read_samples(colours, info.class_to_idx))
    assert all(module.training for module in network.modules())


def test_what_cannot_be_compared(network: Network, info: ModelInfo, colours: Path) -> None:
    samples = read_samples(colours)  # numbers its own two classes
    with pytest.raises(DataError, match="do not have the model's classes"):
        evaluate(network, info, samples)
    with pytest.raises(ModelFileError, match="names 2 classes"):
        evaluate(network, info._replace(class_to_idx=samples.class_to_idx), samples)
    bad = Samples(Files.at([colours / "Blue/3.png", colours / "x"]), [0, 0], info.class_to_idx)
    with pytest.raises(DataError, match=r"none of the 2 pictures can be read; .*3.png: not_an_image: not a picture"):
        evaluate(network, info, bad)
