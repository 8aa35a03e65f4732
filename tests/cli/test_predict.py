"""``birder predict`` from the command line: rows, summary, exit codes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birder.cli.progress import printable, reading_processes
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.signature import rgb_stats

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, list[str], str]]
PLAIN = ("--backend", "torch", "--precision", "fp32")


@pytest.fixture
def run(birder: Callable[..., tuple[int, str, str]]) -> Run:
    """Run a command line; exit code, lines of the output, and what went to the error stream."""

    def call(*words: object) -> tuple[int, list[str], str]:
        code, out, err = birder("predict", *words, *([] if "--backend" in words else PLAIN))
        return code, out.splitlines(), err

    return call


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes the streams for a terminal of 160 columns."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = create_network("convnext_v2_atto", 3, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(net.classifier.weight)
    path = tmp_path / "model.safetensors"
    save_model(path, net, class_to_idx={"Wren": 0, "Great [Tit]": 1, "Größe": 2}, rgb_stats=rgb_stats("birder"))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b [bold].png", "deep/ü.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").touch()
    return folder


def test_lines_without_a_terminal(run: Run, model: Path, photos: Path) -> None:
    code, lines, errors = run(model, photos)
    assert code == 0
    cells = [line.split("\t") for line in lines]
    assert [row[0] for row in cells] == [str(photos / name) for name in ("a.png", "b [bold].png", "deep/ü.png")]
    info = load_model(model)[1]
    for _, status, reason, label, score in cells:
        assert (status, reason) == ("ok", "") and label in info.class_to_idx
        assert 1 / 3 < float(score) < 1
    assert "torch fp32" in errors and "as asked" in errors
    assert "3 pictures, 0 could not be read, " in errors and "images/s" in errors
    assert "passed over: 1 .txt" in errors


def test_some_that_cannot_be_read(run: Run, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, photos, photos / "notes.txt", photos / "gone.jpg")
    assert code == 1
    assert lines[2] == f"{photos / 'c.jpg'}\terror\tnot_an_image: not a picture\t\t"
    assert lines[4] == f"{photos / 'notes.txt'}\terror\tempty: the file is empty\t\t"
    assert lines[5] == f"{photos / 'gone.jpg'}\terror\tmissing: no such file\t\t"
    assert "6 pictures, 3 could not be read" in errors


def test_none_that_can_be_read(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "c.jpg").touch()
    code, lines, _ = run(model, tmp_path / "c.jpg")
    assert (code, lines) == (1, [f"{tmp_path / 'c.jpg'}\terror\tempty: the file is empty\t\t"])


def test_a_table_on_a_terminal(run: Run, terminal: None, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, photos)
    text = "\n".join(lines)
    assert code == 1
    assert f"in {photos}" in text
    assert "│ b [bold].png │" in text  # no mark-up of rich
    assert "not_an_image: not a picture" in text
    assert "%" in text and "next best" in text
    assert "not_an_image" not in errors  # it stands in the table
    assert "4 pictures, 1 could not be read" in errors


def test_a_long_table_is_cut(run: Run, terminal: None, model: Path, photos: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    code, lines, errors = run(model, *([photos / "a.png"] * 60), photos / "c.jpg")
    assert code == 1
    assert sum("a.png" in line for line in lines) == 50
    assert lines[-1] == "and 11 more; --output results.csv keeps them all"
    assert f"not read: {photos / 'c.jpg'}: not_an_image: not a picture" in errors


def test_output_to_a_file(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    output = tmp_path / "x.csv"
    words = (model, photos, "--output", output, "--top", 2, "--batch-size", 2, "--workers", 1)
    code, lines, errors = run(*words)
    assert (code, lines) == (1, [])
    assert f"not read: {photos / 'c.jpg'}: not_an_image: not a picture" in errors
    assert f"results in {output}" in errors and "4 pictures: 3 ok, 1 error (1 not_an_image)" in errors
    rows = table(output)
    assert list(rows[0]) == ["path", "status", "reason", "label_1", "score_1", "label_2", "score_2", "taken"]
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b [bold].png", "c.jpg", "ü.png"]
    assert [row["reason"] for row in rows] == ["", "", "not_an_image: not a picture", ""]
    assert float(rows[0]["score_1"]) >= float(rows[0]["score_2"]) > 0
    account = json.loads((tmp_path / "x.csv.run.json").read_text(encoding="utf-8"))
    assert account["statuses"] == {"ok": 3, "error": 1} and account["codes"] == {"not_an_image": 1}
    assert (account["backend"], account["options"]["top"]) == ("torch fp32", 2)

    before = output.stat().st_mtime_ns
    code, _, errors = run(*words)
    assert (code, output.stat().st_mtime_ns) == (1, before)
    assert f"{output} has them all" in errors and "4 pictures, 4 of them known from before" in errors


def test_an_account_that_is_gone_or_not_ended_is_written_again(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    words, account = (model, photos, "--output", tmp_path / "x.csv"), tmp_path / "x.csv.run.json"
    assert run(*words)[0] == 0
    whole = json.loads(account.read_text(encoding="utf-8"))
    account.unlink()
    assert run(*words)[0] == 0
    assert json.loads(account.read_text(encoding="utf-8"))["finished"]
    account.write_text(json.dumps({**whole, "finished": ""}), encoding="utf-8")
    assert run(*words)[0] == 0
    assert json.loads(account.read_text(encoding="utf-8"))["finished"]
    account.write_text(json.dumps({**whole, "settings": None}), encoding="utf-8")
    code, _, errors = run(*words)
    assert code == 2 and "settings" in errors


def test_a_later_run_predicts_what_is_new(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    words = (model, photos, "--output", tmp_path / "x.csv")
    assert run(*words)[0] == 0
    (photos / "b [bold].png").unlink()
    Image.new("RGB", (9, 9), "red").save(photos / "aa.png")
    Image.new("RGB", (9, 9), "blue").save(photos / "a.png")
    code, _, errors = run(*words)
    assert code == 0 and "1 new, 1 removed, 1 modified since; the others are kept" in errors
    assert [Path(row["path"]).name for row in table(tmp_path / "x.csv")] == ["a.png", "aa.png", "ü.png"]
    assert run(model, photos, "--output", tmp_path / "y.csv")[0] == 0
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "y.csv").read_bytes()


def test_another_question_for_the_same_file_is_refused(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    words = (model, photos, "--output", tmp_path / "x.csv")
    assert run(*words)[0] == 0
    wanted = (tmp_path / "x.csv").read_bytes()
    code, _, errors = run(*words, "--top", 1)
    assert code == 2 and "top" in errors and "--restart" in errors
    assert (tmp_path / "x.csv").read_bytes() == wanted
    assert run(*words, "--top", 1, "--restart")[0] == 0
    assert list(table(tmp_path / "x.csv")[0]) == ["path", "status", "reason", "label_1", "score_1", "taken"]


def test_parts_are_joined_to_the_whole(run: Run, birder: Callable, model: Path, photos: Path, tmp_path: Path) -> None:
    many = [photos] * 50  # 150 rows, so that there are three blocks
    assert run(model, *many, "--output", tmp_path / "whole.csv")[0] == 0
    for part in (1, 2):
        assert run(model, *many, "--output", tmp_path / f"{part}.csv", "--shard", f"{part}/2")[0] == 0
    code, _, errors = birder("results", "merge", tmp_path / "2.csv", tmp_path / "1.csv", "--output", tmp_path / "m.csv")
    assert code == 0, errors
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_all_classes_and_a_checklist(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    assert run(model, photos, "--output", tmp_path / "x.csv", "--top", "all")[0] == 0
    assert list(table(tmp_path / "x.csv")[0])[-3:] == ["label_3", "score_3", "taken"]
    (tmp_path / "list.txt").write_text("wren\nGröße\nPuffin\n", encoding="utf-8")
    code, _, errors = run(model, photos, "--output", tmp_path / "y.csv", "--classes", tmp_path / "list.txt")
    assert code == 0 and "1 of 3 names are no classes of the model: Puffin" in errors
    rows = table(tmp_path / "y.csv")
    assert list(rows[0])[-3:] == ["open_score_1", "open_score_2", "taken"]
    assert {row["label_1"] for row in rows} | {row["label_2"] for row in rows} == {"Wren", "Größe"}


def test_the_fastest_is_found_and_remembered(
    run: Run, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "home"))
    wanted = run(model, photos)[1]
    code, lines, errors = run(model, photos, "--backend", "auto")
    assert code == 0 and "batches of" in errors
    for line, plain in zip(lines, wanted, strict=True):
        assert line.split("\t")[3] == plain.split("\t")[3]
        assert abs(float(line.split("\t")[4]) - float(plain.split("\t")[4])) < 0.03
    assert list((tmp_path / "home" / "backends").iterdir())
    assert run(model, photos, "--backend", "auto")[1] == lines


def test_embeddings_in_both_forms(birder: Callable, model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_text("no picture")
    for name in ("x.npy", "x.parquet"):
        code, _, errors = birder("embed", model, photos, "--output", tmp_path / name, *PLAIN)
        assert code == 1, errors
    array = np.load(tmp_path / "x.npy")
    index = table(tmp_path / "x.npy.csv")
    assert array.shape == (3, 16) and [row["row"] for row in index] == ["0", "1", "", "2"]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "x.parquet")
    assert np.abs(np.stack([row for row in parquet["embedding"].to_pylist() if row]) - array).max() == 0


def test_watching_a_folder(model: Path, photos: Path, tmp_path: Path) -> None:
    output, said = tmp_path / "x.csv", tmp_path / "said"
    words = ("predict", model, photos, "--output", output, "--watch", "--interval", "0.2", *PLAIN)
    with open(said, "w") as errors:
        process = subprocess.Popen([sys.executable, "-m", "birder.cli", *map(str, words)], stderr=errors)
    try:
        _wait(lambda: output.exists() and len(table(output)) == 3)
        Image.new("RGB", (9, 9), "red").save(photos / "new.png")
        _wait(lambda: len(table(output)) == 4)
        _wait(lambda: "1 new since" in said.read_text())
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_more_species_than_there_are(run: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    assert run(model, photos, "--output", tmp_path / "x.csv", "--top", 9)[0] == 0
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()[0].endswith("label_3,score_3,taken")


def test_many_failures_are_counted(run: Run, model: Path, tmp_path: Path) -> None:
    code, _, errors = run(
        model, *(tmp_path / f"{number}.jpg" for number in range(14)), "--output", tmp_path / "x.jsonl"
    )
    assert code == 1
    assert errors.count("no such file") == 10
    assert "not read: 4 more" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "EMPTY"], "no pictures in"),
        (["MODEL", "PHOTOS", "--output", "x.xlsx"], "ends in .csv, .jsonl, .parquet"),
        (["MODEL", "PHOTOS", "--output", "none/x.csv"], "does not exist; create it first"),
        (["nothing.pt", "PHOTOS"], "nothing.pt: no such file"),
        (["MODEL", "PHOTOS", "--network", "convnext_v2_ato"], "did you mean convnext_v2_atto"),
        (["MODEL", "PHOTOS", "--device", "moon"], "moon"),
        (["MODEL", "PHOTOS", "--top", "0"], "top: must be 1 or more"),
        (["MODEL", "PHOTOS", "--backend", "opnvino"], "openvino"),
        (["MODEL", "PHOTOS", "--shard", "3/2"], "--shard needs --output"),
        (["MODEL", "PHOTOS", "--output", "x.csv", "--shard", "3/2"], "from 1/16 to 16/16"),
        (["MODEL", "PHOTOS", "--classes", "none.txt"], "none.txt"),
        (["MODEL", "PHOTOS", "--topp", "3"], "Did you mean --top?"),
        (["MODEL"], "paths"),
    ],
)
def test_wrong_use(run: Run, model: Path, photos: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "film.mp4").touch()
    known = {"MODEL": model, "PHOTOS": photos, "EMPTY": tmp_path / "empty"}
    code, _, errors = run(*(known.get(word, word) for word in words))
    assert code == 2
    assert message.lower() in " ".join(errors.split()).lower()
    assert "Traceback" not in errors
    if words[-1] == "EMPTY":
        assert "1 .mp4" in errors


def test_file_names_that_are_no_text(run: Run, terminal: None, model: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"odd\xff\x1b[31m\n.png")
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    except OSError:
        pytest.skip("this file system only takes names in UTF-8")
    code, lines, _ = run(model, tmp_path / name)
    assert code == 0
    assert any("odd\\udcff\\x1b[31m\\n.png" in line for line in lines)


def test_printable() -> None:
    assert printable(Path("Größe 鳥/a.jpg")) == "Größe 鳥/a.jpg"
    assert printable("a\tb\x1b") == "a\\tb\\x1b"


def test_few_pictures_need_no_other_process() -> None:
    assert reading_processes(32, 32) == 0
    assert 1 <= reading_processes(33, 32) <= 8


def test_torch_is_imported_only_when_the_command_runs() -> None:
    code = (
        "import sys, birder.cli.predict, birder.cli.evaluate;"
        "print([name for name in ('torch', 'numpy', 'PIL', 'rich.console') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in result.stdout and "numpy" not in result.stdout and "PIL" not in result.stdout


def test_the_hard_pictures(run: Run, model: Path, shared: Path, tmp_path: Path) -> None:
    code, _, _ = run(model, shared / "hard_images", "--output", tmp_path / "x.csv")
    assert code == 1
    found = {Path(row["path"]).relative_to(shared / "hard_images").as_posix(): row for row in table(tmp_path / "x.csv")}
    expected = {row["file"]: row["expected"] for row in table(shared / "hard_images" / "manifest.csv")}
    assert set(expected) - set(found) == {"variants/no_extension"}
    for name, row in found.items():
        assert bool(row["reason"]) != bool(row["label_1"])
        if expected[name].startswith("decodes") and "refused" not in expected[name]:
            assert row["status"] == "ok", name
        if expected[name].startswith("refused"):
            assert row["status"] == "error", name
