"""``birder calibrate`` from the command line: what it writes, says and refuses."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from birder.model_file import load_model, read_model

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]


def test_a_calibrated_model_and_what_it_predicts(
    birder: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    code, out, errors = birder("calibrate", model, "--data", data, "--max-error", "0.3")
    assert code == 0 and model.read_bytes() == before
    assert "the calibrated model is birds-calibrated.safetensors" in errors
    info = load_model("birds-calibrated.safetensors")[1]
    assert info.calibration is not None and info.calibration.novelty is not None
    lines = {line[:18].strip(): line[18:].strip() for line in out.splitlines()}
    assert lines["temperature"].startswith(f"{info.calibration.temperature:.3f}  (300 pictures, top-1")
    assert re.fullmatch(r"\d+\.\d% before, \d+\.\d% after", lines["calibration error"])
    assert re.fullmatch(r"-\d\.\d+ before, -\d\.\d+ after", lines["log-likelihood"])
    assert re.search(r"with the right one in \d\d\.\d% \(90% asked for\)", lines["prediction sets"])
    assert info.calibration.threshold is not None
    assert lines["threshold"].startswith(f"{info.calibration.threshold:.3f} answers")
    assert lines["novelty"].endswith("; not_in_list above 0.95")

    words = ("--backend", "torch", "--precision", "fp32", "--workers", "0", "--min-score", "auto")
    code, out, errors = birder("predict", "birds-calibrated.safetensors", data, "--output", "r.csv", *words)
    assert code == 0
    with open("r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-2:] == ["novelty", "taken"]
    assert len(rows) == 300 and all(0 <= float(row["novelty"]) <= 1 for row in rows)
    new = [row["status"] == "not_in_list" for row in rows]
    assert new == [float(row["novelty"]) > 0.95 for row in rows] and 0 < sum(new) < 40
    assert f"{sum(new)} not_in_list" in errors
    code, out, errors = birder("results", "summary", "r.csv")
    assert f"{sum(new)} not in the list, 0 without an answer" in errors
    assert birder("results", "filter", "r.csv", "--output", "new.csv", "--status", "not_in_list")[0] == 0
    assert len(Path("new.csv").read_text().splitlines()) == sum(new) + 1
    assert birder("results", "filter", "r.csv", "--output", "new.csv", "--min-novelty", "0.95")[0] == 0


def test_with_pictures_of_other_things(birder: Run, model: Path, data: Path, others: Path, tmp_path: Path) -> None:
    output = tmp_path / "new.pt"
    code, out, _ = birder("calibrate", model, "--data", data, "--others", others, "--output", output)
    assert code == 0 and "AUROC" in out and "against a low score alone" in out
    assert ("novelty            left out" in out) == (read_model(output).calibration.novelty is None)  # type: ignore[union-attr]
    code, out, _ = birder("calibrate", model, "--data", data, "--novelty", "none", "--output", output)
    assert code == 0 and "novelty" not in out and "AUROC" not in out


def test_a_picture_that_cannot_be_read_is_told(birder: Run, model: Path, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "birds.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(data.glob("*/*.png"))[:120]]
    table.write_text("\n".join(["path,label", *rows, f"{tmp_path / 'none.png'},Emu"]))
    code, _, errors = birder("calibrate", model, "--data", table, "--output", tmp_path / "new.pt")
    assert code == 1 and "not read:" in errors and "missing" in errors and (tmp_path / "new.pt").exists()


def test_refusals_leave_nothing(birder: Run, model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "new.pt"
    few = tmp_path / "few.csv"
    paths = sorted(data.glob("*/*.png"))
    few.write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in paths[:99])]))
    other = tmp_path / "other.csv"
    other.write_text("path,label\n" + "\n".join(f"{path},Dodo" for path in paths))
    for words, message in (
        (("--data", few), "99 pictures that can be read are too few"),
        (("--data", other), "Dodo"),
        (("--data", data, "--max-error", "nan"), "max_error: must be"),
        (("--data", tmp_path / "nowhere"), "no such file or folder"),
    ):
        code, _, errors = birder("calibrate", model, "--output", output, *words)
        assert code == 2 and message in errors and not output.exists()
    assert birder("calibrate", model, "--data", data, "--output", model)[0] == 2
    code, _, errors = birder("predict", model, data, "--min-score", "auto")
    assert code == 2 and "birder calibrate" in errors
