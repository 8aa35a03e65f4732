"""``birder report`` from the command line: models and tables, the page, wrong use."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from birder.data.samples import read_samples
from birder.evaluation.classification import evaluate
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.signature import rgb_stats

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]
NAMES = ("Emu", "<script>alert(1)</script>", "Magpie", "Wren")


@pytest.fixture
def run(birder: Run) -> Run:
    """Run a command line; exit code, output, and what went to the error stream."""
    return partial(birder, "report")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = create_network("convnext_v2_atto", 4, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(net.classifier.weight)
    path = tmp_path / "model.safetensors"
    save_model(path, net, class_to_idx={name: label for label, name in enumerate(NAMES)}, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    lines = ["path,label"]
    (tmp_path / "data").mkdir()
    for label, name in enumerate(NAMES):
        for number in range(4):
            colours = random.integers(0, 255, (2, 2, 3), np.uint8)
            Image.fromarray(colours).resize((20, 20)).save(tmp_path / "data" / f"{label}-{number}.png")
            lines.append(f"{label}-{number}.png,{name}")
    (tmp_path / "data" / "set.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "data" / "set.csv"


def report_in(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    report: dict[str, Any] = json.loads(found[1])
    return report


def test_a_model(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "report.html"
    code, _, errors = run(model, "--data", data, "--output", page, "--title", "Mine", "--no-speed")
    assert code == 0, errors
    assert f"the report is in {page}" in errors
    report = report_in(page)
    (source,) = report["sources"]
    net, info = load_model(model)
    result = evaluate(net, info, read_samples(data, info.class_to_idx))
    assert report["title"] == "Mine" and report["made_by"]["Command"].startswith("birder report ")
    assert source["summary"]["estimates"]["top1"][0] == pytest.approx(result.top1, abs=1e-4)
    assert source["kind"] == "model" and source["size"]["parameters"] > 0 and source["speed"] is None
    assert len(source["map"]["x"]) == 16 and len(source["looked_at"]["heat"]) > 0
    assert len(source["provenance"]["SHA-256 of the model"]) == 64
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_the_speed_is_measured(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    code, _, errors = run(model, "--data", data, "--output", tmp_path / "r.html", "--no-explain")
    assert code == 0, errors
    speed = report_in(tmp_path / "r.html")["sources"][0]["speed"]
    assert speed["per_second"] > 0 and speed["one_ms"] > 0 and speed["batch"] >= 1
    assert speed["backend"] in speed["chosen"]


def test_a_model_and_its_results_agree(birder: Run, run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "results.csv", tmp_path / "report.html"
    precise = ("--backend", "torch", "--precision", "fp32", "--exact", "--workers", "0")
    assert birder("predict", model, data.parent, "--output", table, *precise)[0] == 0
    taxonomy = tmp_path / "taxonomy.csv"
    taxonomy.write_text("name,family\n" + "".join(f"{name},F{name[0]}\n" for name in NAMES), encoding="utf-8")
    words = ("--data", data, "--output", page, "--taxonomy", taxonomy, "--no-speed", "--no-explain")
    code, _, errors = run(table, model, *words)
    assert code == 0, errors
    report = report_in(page)
    (pair,) = report["comparison"]["pairs"]
    assert (pair["only_a"], pair["only_b"], pair["difference"]) == (0, 0, 0)
    assert report["families"] is not None and report["sources"][1]["looked_at"] is None
    first, second = (source["summary"]["estimates"] for source in report["sources"])
    assert first["ece"] == pytest.approx(second["ece"], abs=1e-4)
    assert (
        report["sources"][0]["provenance"]["SHA-256 of the model"]
        == report["sources"][1]["provenance"]["SHA-256 of the model"]
    )


def test_a_picture_that_cannot_be_read(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    (data.parent / "0-0.png").write_text("no picture")
    code, _, errors = run(model, "--data", data, "--output", tmp_path / "r.html", "--no-speed", "--no-explain")
    assert code == 1 and "not read:" in errors
    assert report_in(tmp_path / "r.html")["sources"][0]["summary"]["unreadable"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "--output", "r.html"], "--data"),
        (["MODEL", "--data", "DATA"], "--output"),
        (["MODEL", "--data", "DATA", "--output", "r.pdf"], "a report is a page, such as report.html"),
        (["MODEL", "--data", "DATA", "--output", "MODEL/r.html"], "is a file"),
        (["MODEL", "--data", "nothing", "--output", "r.html"], "nothing: no such file or folder"),
        (["nothing.csv", "--data", "DATA", "--output", "r.html"], "nothing.csv: no such file"),
        (["rows.npy", "--data", "DATA", "--output", "r.html"], "rows.npy has embeddings and no names"),
        (["DATA", "--data", "DATA", "--output", "r.html"], "is no table of results"),
        (["nothing.pt", "--data", "DATA", "--output", "r.html"], "nothing.pt: no such file"),
        (["MODEL"] * 4 + ["--data", "DATA", "--output", "r.html"], "one to 3"),
        (["MODEL", "--data", "DATA", "--output", "r.html", "--taxonomy", "DATA"], "family"),
    ],
)
def test_wrong_use(
    run: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = run(*(word.replace("MODEL", str(model)).replace("DATA", str(data)) for word in words))
    assert code == 2
    assert message in " ".join(errors.replace("│", " ").split())
    assert not (tmp_path / "r.html").exists()


def test_results_of_other_pictures(run: Run, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("path,status,reason,label_1,score_1,taken\nelsewhere/x.jpg,ok,,Emu,0.9,\n", encoding="utf-8")
    code, _, errors = run(table, "--data", data, "--output", tmp_path / "r.html")
    assert code == 2 and "has none of the 16 labelled pictures" in errors
