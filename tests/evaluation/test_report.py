"""A report is four files that say what the evaluation says."""

import csv
import json
import os
from pathlib import Path

import pytest

from birder.data.samples import read_samples
from birder.data.tables import check_folder
from birder.errors import ConfigError
from birder.evaluation.classification import Evaluation, evaluate
from birder.evaluation.report import write_report
from birder.model_file import ModelInfo
from birder.networks import Network


@pytest.fixture
def evaluation(network: Network, info: ModelInfo, colours: Path) -> Evaluation:
    return evaluate(network, info, read_samples(colours, info.class_to_idx))


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_four_files(evaluation: Evaluation, colours: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    write_report(folder, evaluation)
    assert sorted(os.listdir(folder)) == ["confused.csv", "per_class.csv", "predictions.csv", "report.json"]
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == evaluation.to_dict()
    classes = rows(folder / "per_class.csv")
    assert [row["name"] for row in classes] == ["Blue", "Green", "Red"]
    assert list(classes[1].values()) == ["Green", "1.000000", "0.500000", "0.666667", "2", "1", "0.094531", "0.905469"]
    assert classes[2]["recall"] == classes[2]["recall_low"] == ""
    assert rows(folder / "confused.csv") == [
        {"name": "Green", "predicted": "Red", "count": "1", "share": "0.500000", "cost": "1.000000"}
    ]
    predictions = rows(folder / "predictions.csv")
    assert [(row["label"], row["label_1"]) for row in predictions] == [
        ("Blue", "Blue"),
        ("Blue", "Blue"),
        ("Blue", "Blue"),
        ("Green", "Green"),
        ("Green", "Red"),
        ("", ""),
    ]
    assert predictions[4]["path"] == str(colours / "Green" / "2.png")
    assert predictions[0]["score_1"] == "0.909443"
    assert predictions[5]["reason"] == "not_an_image: not a picture"


def test_families(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report(tmp_path, evaluation, {"Blue": "Cold", "Green": "Cold", "Red": "Warm"})
    assert "families.csv" in os.listdir(tmp_path)
    cold, warm = rows(tmp_path / "families.csv")
    assert (cold["name"], cold["recall"], cold["species"], cold["species_right"]) == (
        "Cold",
        "0.800000",
        "2",
        "0.800000",
    )
    assert (warm["name"], warm["precision"], warm["species_right"]) == ("Warm", "0.000000", "")
    summary = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in summary["families"]] == ["Cold", "Warm"]
    assert summary["families"][1]["species_right"] is None and summary["cross_family_errors"] == 1.0
    assert summary["top1"] == 0.8


def test_an_old_report_is_replaced(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("old")
    write_report(tmp_path, evaluation)
    write_report(tmp_path, evaluation)
    assert json.loads((tmp_path / "report.json").read_text())["pictures"] == 5


def test_places_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "file" / "below")
    check_folder(tmp_path / "new" / "newer")
    assert os.listdir(tmp_path) == ["file"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        check_folder(tmp_path / "new")
