"""``birder evaluate`` from the command line: numbers, report, exit codes."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.samples import read_samples
from birder.evaluation.classification import evaluate
from birder.model_file import load_model, save_model
from birder.model_file.calibration import Calibration
from birder.networks import create_network
from birder.signature import rgb_stats

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]
NAMES = ("Emu", "Great [Tit]", "Magpie", "Wren")


@pytest.fixture
def run(birder: Run) -> Run:
    """Run a command line; exit code, output, and what went to the error stream."""
    return partial(birder, "evaluate")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = create_network("convnext_v2_atto", 4, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(net.classifier.weight)
    path = tmp_path / "model.pt"
    save_model(path, net, class_to_idx={name: label for label, name in enumerate(NAMES)}, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            colours = random.integers(0, 255, (2, 2, 3), np.uint8)
            Image.fromarray(colours).resize((20, 20)).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_the_numbers_are_those_of_the_library(run: Run, model: Path, data: Path) -> None:
    code, out, errors = run(model, "--data", data)
    assert code == 0
    net, info = load_model(model)
    result = evaluate(net, info, read_samples(data, info.class_to_idx))
    low, high = result.top1_interval
    lines = out.splitlines()
    assert lines[0] == f"top-1     {result.top1:.1%}  (95 % interval {low:.1%} to {high:.1%}, 16 pictures)"
    top3, top5, f1, mean, brier = (
        result.estimates[name] for name in ("top3", "top5", "macro_f1", "balanced_accuracy", "brier")
    )
    assert lines[1] == f"top-3     {result.top3:.1%}  ({top3.low:.1%} to {top3.high:.1%})"
    assert lines[2] == f"top-5     100.0%  ({top5.low:.1%} to 100.0%)"
    assert lines[3] == f"macro F1  {f1.value:.1%}  ({f1.low:.1%} to {f1.high:.1%}, 4 classes of the model)"
    assert lines[4].startswith(f"balanced  {mean.value:.1%}  ({mean.low:.1%} to {mean.high:.1%}, ")
    assert lines[5].startswith(f"ECE       {result.ece:.1%}  (")
    assert lines[6].startswith(f"Brier     {result.brier:.3f}  ({brier.low:.3f} to {brier.high:.3f}, ")
    assert 0 < result.top1 < 1
    order = [row.name for row in sorted(result.classes, key=lambda row: (row.f1, row.name)) if row.samples]
    found = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert found[:4] == order
    assert found[4] == result.confused[0].name
    assert errors.startswith("16 pictures, 0 could not be read")


def test_rows_limit_the_tables(run: Run, model: Path, data: Path) -> None:
    _, out, _ = run(model, "--data", data, "--rows", 2)
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert "and 2 more species" in out
    assert "│" not in run(model, "--data", data, "--rows", 0)[1]


def test_a_report(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    (data / "Emu" / "9.jpg").write_text("no picture")
    code, _, errors = run(model, "--data", data, "--output", tmp_path / "report", "--batch-size", 5, "--workers", 1)
    assert code == 1
    assert f"not read: {data / 'Emu' / '9.jpg'}: not_an_image: not a picture" in errors
    assert len(os.listdir(tmp_path / "report")) == 4
    summary = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert (summary["pictures"], summary["unreadable"]) == (16, 1)


def test_families(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    taxonomy = tmp_path / "taxonomy.csv"
    lines = "Emu,Casuariidae\nGreat [Tit],Paridae\nMagpie,Corvidae\nWren,Troglodytidae"
    taxonomy.write_text(f"species,family\n{lines}\n", encoding="utf-8")
    code, out, _ = run(model, "--data", data, "--taxonomy", taxonomy, "--output", tmp_path / "report")
    assert code == 0
    assert "family, worst first" in out and "Casuariidae" in out
    assert "of the mistakes, 100.0% name a species of another family" in out
    assert len((tmp_path / "report" / "families.csv").read_text(encoding="utf-8").splitlines()) == 5
    taxonomy.write_text("species,family\nEmu,Casuariidae\n", encoding="utf-8")
    code, out, errors = run(model, "--data", data, "--taxonomy", taxonomy)
    assert code == 2 and "has no family for 3 of 4 species" in errors and "top-1" not in out


def test_a_calibrated_model_says_so(run: Run, model: Path, data: Path) -> None:
    plain = run(model, "--data", data)[1]
    net, info = load_model(model)
    found = Calibration(temperature=3.0, pictures=10, data="00")
    save_model(model, net, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats, calibration=found)
    out = run(model, "--data", data)[1]
    assert "calibrated, with a temperature of 3" in out and "calibrated" not in plain
    assert out.splitlines()[:5] == plain.splitlines()[:5] and out.splitlines()[6] != plain.splitlines()[6]


def test_a_table_of_pictures(run: Run, model: Path, data: Path) -> None:
    lines = [f"{name}/{number}.png,{name}" for name in NAMES for number in range(2)]
    (data / "set.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    code, out, _ = run(model, "--data", data / "set.csv")
    assert code == 0 and "8 pictures" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL"], "--data"),
        (["MODEL", "--data", "nothing"], "nothing: no such file or folder"),
        (["nothing.pt", "--data", "DATA"], "nothing.pt: no such file"),
        (["MODEL", "--data", "DATA", "--output", "MODEL"], "is a file"),
        (["MODEL", "--data", "DATA", "--rows", "-1"], "Must be >= 0"),
    ],
)
def test_wrong_use(run: Run, model: Path, data: Path, words: list[str], message: str) -> None:
    known = {"MODEL": model, "DATA": data}
    code, out, errors = run(*(known.get(word, word) for word in words))
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors and "top-1" not in out


def test_pictures_of_other_species(run: Run, model: Path, data: Path) -> None:
    (data / "Emu").rename(data / "Emus")
    code, _, errors = run(model, "--data", data)
    assert code == 2
    assert "1 of 4 classes are not among the model's" in errors
    assert "Emus (4 pictures); did you mean Emu?" in errors
