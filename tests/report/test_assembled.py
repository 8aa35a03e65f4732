"""The data of a report are the numbers of the evaluations."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birder.data.samples import Samples
from birder.errors import ConfigError, DataError
from birder.evaluation.conformal import resplits
from birder.evaluation.metrics import macro_f1
from birder.evaluation.paired import mcnemar
from birder.report.assembled import build_report
from birder.report.sources import Source, told_apart

Pictures = Callable[..., Samples]
Sources = Callable[..., Source]
NAMES = ("Dunnock", "Emu", "Magpie", "Robin", "Serin", "Wren")


@pytest.fixture
def one(pictures: Pictures, source: Sources) -> tuple[Source, dict[str, Any]]:
    made = source(pictures(NAMES, each=10))
    return made, build_report([made], place=str(Path(made.samples.name(0)).parents[1]), command="birder report it")


def test_the_report_is_plain_json(one: tuple[Source, dict[str, Any]]) -> None:
    assert json.loads(json.dumps(one[1], allow_nan=False)) == one[1]


def test_summary(one: tuple[Source, dict[str, Any]]) -> None:
    made, report = one
    labels, predicted = made.evaluation.labels, made.evaluation.ranked[:, 0]
    summary = report["sources"][0]["summary"]
    top1, low, high = summary["estimates"]["top1"]
    assert top1 == pytest.approx((labels == predicted).mean(), abs=1e-4) and low < top1 < high
    assert summary["estimates"]["macro_f1"][0] == pytest.approx(macro_f1(labels, predicted, 6), abs=1e-4)
    assert set(summary["estimates"]) == {"top1", "top3", "top5", "macro_f1", "balanced_accuracy", "ece", "brier"}
    assert f"names {round(100 * top1)} right" in summary["sentence"]
    assert report["data"]["pictures"] == 60 and report["data"]["species"] == 6


def test_species_and_confusion_count_every_picture(one: tuple[Source, dict[str, Any]]) -> None:
    made, report = one
    labels, predicted = made.evaluation.labels, made.evaluation.ranked[:, 0]
    species, confusion = report["sources"][0]["species"], report["sources"][0]["confusion"]
    for row, label in enumerate(species["label"]):
        own = labels == label
        assert species["samples"][row] == own.sum()
        assert species["recall"][row] == pytest.approx((predicted[own] == label).mean(), abs=1e-4)
        assert species["wrong"][row] == (predicted[own] != label).sum()
        mistakes = np.bincount(predicted[own & (predicted != label)], minlength=6)
        assert species["taken_count"][row] == mistakes.max()
        assert not mistakes.max() or mistakes[species["taken"][row]] == mistakes.max()
    matrix = np.zeros((6, 6), int)
    matrix[confusion["label"], confusion["predicted"]] = confusion["count"]
    expected = np.zeros((6, 6), int)
    np.add.at(expected, (labels, predicted), 1)
    np.testing.assert_array_equal(matrix, expected)
    for order in report["sources"][0]["orders"].values():
        assert sorted(order) == list(range(6))


def test_calibration(one: tuple[Source, dict[str, Any]]) -> None:
    made, report = one
    calibration = report["sources"][0]["calibration"]
    confidence, right = made.evaluation.confidence, made.evaluation.right
    assert sum(item[2] for item in calibration["bins"]) == 60
    for low, high, number, mean, accuracy in calibration["bins"]:
        inside = (confidence > low) & (confidence <= high)
        assert number == inside.sum()
        if number:
            assert mean == pytest.approx(confidence[inside].mean(), abs=1e-4)
            assert accuracy == pytest.approx(right[inside].mean(), abs=1e-4)
        else:
            assert mean is None and accuracy is None
    curve = calibration["coverage"]
    for threshold, coverage, accuracy in zip(*curve.values(), strict=True):
        answered = confidence >= threshold * (1 - 1e-4)
        assert coverage == pytest.approx(answered.mean(), abs=1e-4)
        assert accuracy == pytest.approx(right[answered].mean(), abs=1e-4)
    assert [row["wanted"] for row in calibration["sets"]] == [0.8, 0.9, 0.95]
    assert all(abs(row["coverage"] - row["wanted"]) < 0.06 for row in calibration["sets"])
    evaluation = made.evaluation
    direct = resplits(1 - evaluation.label_probability, 1 - evaluation.probabilities, 0.9, draws=200)
    assert calibration["sets"][1]["size"] == pytest.approx(direct.size, rel=1e-3)


def test_galleries_show_what_they_say(one: tuple[Source, dict[str, Any]]) -> None:
    _, report = one
    galleries = {
        name: [report["pictures"][place] for place in places]
        for name, places in report["sources"][0]["galleries"].items()
    }
    sure = {name: [picture["answers"][0][0][1] for picture in shown] for name, shown in galleries.items()}
    assert sure["mistakes"] == sorted(sure["mistakes"], reverse=True)
    assert all(picture["answers"][0][0][0] != picture["label"] for picture in galleries["mistakes"])
    assert sure["certain"] == sorted(sure["certain"], reverse=True) and len(sure["certain"]) == 24
    assert sure["uncertain"] == sorted(sure["uncertain"])
    assert all(picture["url"].startswith("data:image/jpeg;base64,") for picture in report["pictures"])
    assert report["pictures"][0]["path"].startswith("class ")
    for pair in report["sources"][0]["pairs"]:
        a, b = pair["sides"]
        for side, other in ((a, b), (b, a)):
            shown = [report["pictures"][place] for place in side["shown"]]
            assert all(picture["label"] == side["label"] for picture in shown)
            taken = [picture["answers"][0][0][0] == other["label"] for picture in shown]
            assert not shown or sum(taken) == min(3, side["mistaken"])
    assert sum(bool(pair["sides"][0]["shown"]) for pair in report["sources"][0]["pairs"]) == 8


def test_two_sources(pictures: Pictures, source: Sources) -> None:
    samples = pictures(NAMES, each=10)
    first, second = source(samples, skill=3.0), source(samples, name="other.csv", skill=0.5, seed=1)
    report = build_report([first, second])
    (pair,) = report["comparison"]["pairs"]
    right, also = first.evaluation.right, second.evaluation.right
    assert pair["only_a"] == (right & ~also).sum() and pair["only_b"] == (~right & also).sum()
    assert pair["both"] + pair["neither"] + pair["only_a"] + pair["only_b"] == 60
    assert pair["difference"] == pytest.approx(right.mean() - also.mean(), abs=1e-4)
    assert pair["p_value"] == pytest.approx(mcnemar(pair["only_a"], pair["only_b"]), rel=1e-3)
    for row in pair["species"]:
        own = first.evaluation.labels == row["label"]
        assert row["difference"] == right[own].sum() - also[own].sum() != 0
    for shown, winner, loser in ((pair["shown_first"], 0, 1), (pair["shown_second"], 1, 0)):
        for place in shown:
            picture = report["pictures"][place]
            assert picture["answers"][winner][0][0] == picture["label"] != picture["answers"][loser][0][0]


def test_sources_are_compared_on_the_pictures_that_both_have(pictures: Pictures, source: Sources) -> None:
    samples = pictures(NAMES, each=10)
    some = samples.select(np.random.default_rng(3).permutation(60)[:25])
    first, second = source(samples, skill=1.0), source(some, name="other.csv", skill=1.0, seed=1)
    report = build_report([first, second])
    right = dict(zip(map(str, first.evaluation.paths), first.evaluation.right.tolist(), strict=True))
    both = [
        also and right[str(path)]
        for path, also in zip(second.evaluation.paths, second.evaluation.right.tolist(), strict=True)
    ]
    assert report["comparison"]["pictures"] == 25
    (pair,) = report["comparison"]["pairs"]
    assert pair["both"] == sum(both) and pair["both"] + pair["only_b"] == second.evaluation.right.sum()


def test_sources_with_other_classes_are_joined_by_name(pictures: Pictures, source: Sources) -> None:
    samples = pictures(NAMES, each=4)
    turned = Samples(
        samples._pictures,
        6 - samples.labels,
        {"Albatross": 0} | {name: 6 - label for name, label in samples.class_to_idx.items()},
    )
    report = build_report([source(samples, skill=9.0), source(turned, name="b.csv", skill=9.0)])
    assert report["names"] == ["Albatross", *NAMES]
    (pair,) = report["comparison"]["pairs"]
    assert pair["both"] == 24 and pair["difference"] == 0 and pair["p_value"] == 1


def test_families(pictures: Pictures, source: Sources) -> None:
    made = source(pictures(NAMES, each=10), skill=0.5)
    family_of = {name: "First" if label < 3 else "Second" for label, name in enumerate(NAMES)}
    report = build_report([made], family_of=family_of)
    families = report["sources"][0]["families"]
    labels, predicted = made.evaluation.labels // 3, made.evaluation.ranked[:, 0] // 3
    assert families["name"] == ["First", "Second"]
    for family in (0, 1):
        assert families["recall"][family] == pytest.approx((predicted[labels == family] == family).mean(), abs=1e-4)
    wrong = made.evaluation.ranked[:, 0] != made.evaluation.labels
    assert report["sources"][0]["costly"]["other_family"] == pytest.approx(
        (labels != predicted)[wrong].mean(), abs=1e-4
    )
    assert report["sources"][0]["orders"]["family"] == [0, 1, 2, 3, 4, 5]


def test_pictures_that_are_gone_have_no_thumbnail(pictures: Pictures, source: Sources) -> None:
    samples = pictures(NAMES, each=4)
    made = source(samples)
    for path in samples.paths:
        path.unlink()
    report = build_report([made])
    assert {picture["url"] for picture in report["pictures"]} == {""}


def test_sources_on_other_pictures_are_refused(pictures: Pictures, source: Sources) -> None:
    samples = pictures(NAMES, each=4)
    half, rest = samples.select(np.arange(0, 24, 2)), samples.select(np.arange(1, 24, 2))
    with pytest.raises(DataError, match="is not among the pictures"):
        build_report([source(half), source(rest)])
    with pytest.raises(DataError, match="no picture that all sources"):
        build_report([source(samples), source(half), source(rest)])


def test_too_many_sources_are_refused(pictures: Pictures, source: Sources) -> None:
    made = source(pictures(NAMES, each=4))
    with pytest.raises(ConfigError, match="one to 3"):
        build_report([made] * 4)
    with pytest.raises(ConfigError, match="not 0"):
        build_report([])


def test_sources_of_one_name_are_told_apart() -> None:
    assert told_apart(["a", "best.pt", "best.pt"]) == ["a", "best.pt (1)", "best.pt (2)"]


def test_numbers_that_are_not_known_are_none(pictures: Pictures, source: Sources) -> None:
    made = source(pictures(NAMES, each=10))
    whole = made.evaluation
    ranked, probabilities = whole.ranked[:, :3].copy(), whole.probabilities[:, :3].copy()
    ranked[:, 2], probabilities[:, 2] = -1, math.nan
    known = np.where(whole.ranked[:, 0] == whole.labels, whole.label_probability, math.nan).astype(np.float32)
    cut = replace(whole, ranked=ranked, probabilities=probabilities, label_probability=known)
    report = build_report([replace(made, evaluation=cut)])
    assert report["sources"][0]["summary"]["estimates"]["top5"][0] is None
    assert report["sources"][0]["calibration"]["sets"] == []
    assert {len(picture["answers"][0]) for picture in report["pictures"]} == {2}
