"""``birder runs``: the table, the JSON, and what is said where there is nothing."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.training.test_runs import a_run, trained_in

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Birder = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)


def cells(shown: str) -> list[list[str]]:
    """The rows of a table, without its frame."""
    rows = [line.replace("┃", "│").strip("│").split("│") for line in shown.splitlines() if line[0] in "│┃"]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_table(birder: Birder, tmp_path: Path) -> None:
    """Names in brackets are no markup."""
    a_run(tmp_path / "runs" / "old", epochs=2, written=1e9)
    a_run(tmp_path / "runs" / "a [b] run", written=1.2e9)
    a_run(tmp_path / "runs" / "deep" / "begun", done=0, written=1.1e9)
    with trained_in(tmp_path / "runs" / "deep" / "begun"):
        code, out, errors = birder("runs")
    assert (code, errors) == (0, "")
    times = [datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") for seconds in (1e9, 1.1e9, 1.2e9)]
    assert cells(out) == [
        ["run", "network", "epoch", "state", "best", "loss", "written"],
        ["runs/old", "vit_t16", "2/2", "finished", "70.0%", "1.000", times[0]],
        ["runs/deep/begun", "vit_t16", "0/3", "running", "", "", times[1]],
        ["runs/a [b] run", "vit_t16", "2/3", "stopped", "70.0%", "1.000", times[2]],
    ]


def test_long_paths_are_folded_and_not_cut_off(birder: Birder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "convnext_v2_tiny_of_all_the_birds_of_the_western_palearctic_384px"
    a_run(tmp_path / "runs" / name)
    _, out, _ = birder("runs")
    assert "".join(row[0] for row in cells(out)[1:]) == f"runs/{name}"


def test_json(birder: Birder, tmp_path: Path) -> None:
    a_run(tmp_path / "elsewhere" / "Vögel", written=1e9)
    a_run(tmp_path / "elsewhere" / "begun", done=0, written=1.1e9)
    code, out, errors = birder("runs", "elsewhere", "--format", "json")
    assert (code, errors) == (0, "")
    whole = {"network": "vit_t16", "data": "birds", "epochs": 3}
    assert json.loads(out) == [
        {
            **whole,
            "folder": "elsewhere/Vögel",
            "epoch": 2,
            "state": "stopped",
            "best_val_top1": 0.7,
            "loss": 1.0,
            "written": datetime.fromtimestamp(1e9).isoformat(),
        },
        {
            **whole,
            "folder": "elsewhere/begun",
            "epoch": 0,
            "state": "stopped",
            "best_val_top1": None,
            "loss": None,
            "written": datetime.fromtimestamp(1.1e9).isoformat(),
        },
    ]
    assert "Vögel" in out


@pytest.mark.parametrize("folder", ["runs", "empty", "file.txt"])
def test_where_there_are_none(birder: Birder, tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no run")
    words = [] if folder == "runs" else [folder]
    message = f"birder: {folder} holds no runs; birder train begins one, and --out says where\n"
    assert birder("runs", *words) == (2, "", message)
