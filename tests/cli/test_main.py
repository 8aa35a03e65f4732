"""The command ``birder`` itself: help, errors, Ctrl-C, closed pipes. Where a process matters it is a real one."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from birder import __version__
from birder.cli import __main__ as command_line
from birder.cli.__main__ import GO_ON, main
from birder.config import to_dict
from birder.data.drawn import DrawnBirds, write_folder
from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats
from birder.training.logbook import Logbook
from birder.training.recipe import Recipe, Schedule

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # sys.argv is set here

Run = Callable[..., tuple[int, str, str]]
COMMANDS = {
    "data",
    "demo",
    "distill",
    "drawn",
    "embed",
    "evaluate",
    "models",
    "networks",
    "predict",
    "pretrain",
    "probe",
    "calibrate",
    "explain",
    "recipes",
    "report",
    "results",
    "runs",
    "serve",
    "train",
}
BIRDER = [sys.executable, "-m", "birder"]

# Runs command lines in one fresh interpreter: for each exit code, output, and whether torch is loaded afterwards.
SCRIPT = """
import contextlib, io, json, sys
from birder.cli.__main__ import GO_ON, main
for line in json.loads(sys.argv[1]):
    sys.argv, out, code = ["birder", *line], io.StringIO(), None
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), "torch" in sys.modules]))
"""


def _options(table: dict[str, object], prefix: str = "--") -> list[str]:
    found = []
    for name, value in table.items():
        if isinstance(value, dict) and name != "network_options":
            found += _options(value, f"{prefix}{name}.")
        else:
            found.append(prefix + name.replace("_", "-"))
    return found


OPTIONS = _options(to_dict(Recipe(data="", val="", schedule=Schedule(warmup_epochs=1.0))))


@pytest.fixture
def environment(root: Path) -> dict[str, str]:
    """Of the processes that the tests start."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    environment.pop("PYTHONUNBUFFERED", None)
    return environment


def test_help_names_every_command(birder: Run) -> None:
    code, out, errors = birder("--help")
    assert (code, errors) == (0, "")
    assert {line.split()[1] for line in out.splitlines() if line.startswith("│ ") and line[2] not in " -"} == COMMANDS
    assert "Train a network on your own photographs." in out


def test_no_arguments_show_the_help(birder: Run) -> None:
    assert birder() == birder("--help")


def test_version(birder: Run) -> None:
    assert birder("--version") == (0, f"{__version__}\n", "")


def test_an_unknown_command_suggests(birder: Run) -> None:
    code, out, errors = birder("tarin", "--data", "x")
    assert (code, out) == (2, "")
    assert 'Unknown command "tarin". Did you mean "train"?' in " ".join(errors.split())


def test_our_errors_are_one_message(birder: Run) -> None:
    code, out, errors = birder("networks", "convnext_v2_ato")
    assert (code, out) == (2, "")
    assert errors.startswith("birder: no network matches 'convnext_v2_ato'; did you mean convnext_v2_atto")
    assert errors.count("\n") == 1


def test_errors_of_the_system_are_one_message(birder: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, errors = birder("drawn", tmp_path / "file" / "folder")
    assert code == 2
    assert errors.startswith(f"birder: {tmp_path / 'file' / 'folder'}")
    assert errors.endswith(": Not a directory\n") and errors.count("\n") == 1


@pytest.mark.parametrize("error", [OSError("a bug"), ValueError("a bug")], ids=repr)
def test_bugs_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", broken)
    with pytest.raises(type(error), match="a bug"):
        main()


def test_the_help_of_every_command_loads_no_torch(environment: dict[str, str]) -> None:
    lines = [["--help"], ["--version"], *([name, "--help"] for name in sorted(COMMANDS)), ["tarin"], ["train", "--x"]]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)], env=environment, capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [code for code, _, _ in answers] == [0] * (2 + len(COMMANDS)) + [2, 2]
    assert not any(torch_loaded for _, _, torch_loaded in answers)
    helps = {line[0]: out for line, (_, out, _) in zip(lines, answers, strict=True) if line[-1] == "--help"}
    for name in COMMANDS:
        assert helps[name].startswith(f"Usage: birder {name} ")
    words = set(helps["train"].split())
    assert {"--network-options", "--optim.weight-decay", "--schedule.warmup-epochs", "--val"} <= set(OPTIONS)
    assert not set(OPTIONS) - words
    assert {"--recipe", "--out"} <= words
    assert "Probability of blanking out a rectangle." in " ".join(helps["train"].replace("│", " ").split())


def test_no_command_imports_torch_before_it_runs(environment: dict[str, str], root: Path) -> None:
    names = [f"birder.cli.{path.stem}" for path in sorted((root / "birder" / "cli").glob("[!_]*.py"))]
    assert {f"birder.cli.{name}" for name in COMMANDS - {"distill", "embed"}} <= set(names)  # which stand beside others
    code = (
        f"import importlib, sys\nfor name in {names}:\n  importlib.import_module(name)\nprint('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def _interrupt(command: list[str], environment: dict[str, str], line_start: str) -> tuple[int, str]:
    """Start a process, send Ctrl-C to its group when it shows such a line; exit code and all it showed."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    shown = ""
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            shown += line
            if line.startswith(line_start):
                os.killpg(process.pid, signal.SIGINT)
    watchdog.cancel()
    return process.wait(), shown


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal there")
def test_ctrl_c_stops_and_the_same_command_goes_on(
    birder: Run, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many epochs that it cannot end by itself; the reading process gets the signal too, as in a terminal."""
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), tmp_path / "data", 4)
    (tmp_path / "recipe.toml").write_text(
        "size = [32, 32]\nepochs = 2000\nbatch_size = 4\n"
        "network_options = { in_channels = [8, 8, 16, 16], num_layers = [1, 1, 1, 1] }\n"
        "augment = { policy = 'none' }\nrun = { device = 'cpu', dtype = 'float32', threads = 1, workers = 1 }\n"
    )
    words = ["train", "--recipe", tmp_path / "recipe.toml", "--data", tmp_path / "data", "--out", tmp_path / "run"]
    code, shown = _interrupt(BIRDER + [str(word) for word in words], environment, "epoch 3/2000")
    assert code == GO_ON
    assert re.search(r"\nbirder: stopped at step \d+ of 4000; the same command goes on\n$", shown)
    assert "Traceback" not in shown
    last = len(epochs_of(tmp_path / "run"))
    assert last >= 2

    say = Logbook.say

    def say_until(log: Logbook, text: str) -> None:
        say(log, text)
        if text.startswith(f"epoch {last + 2}/"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Logbook, "say", say_until)
    code, out, errors = birder(*words, "--run.workers", 0)
    assert (code, out) == (GO_ON, "")
    lines = errors.splitlines()
    assert re.fullmatch(rf"{tmp_path / 'run'} goes on at step \d+ of 4000", lines[1])
    assert [line.split()[1] for line in lines[2:-1]] == [f"{last + 1}/2000", f"{last + 2}/2000"]
    assert epochs_of(tmp_path / "run") == list(range(1, last + 3))


def epochs_of(run: Path) -> list[int]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["epoch"] for line in records if line["kind"] == "epoch"]


def test_whoever_reads_may_close_the_pipe(environment: dict[str, str], tmp_path: Path) -> None:
    """More is printed than a pipe holds, so that the process is still writing when ``head`` has gone."""
    net = create_network("convnext_v2_atto", 2, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    save_model(tmp_path / "m.safetensors", net, class_to_idx={"a": 0, "b": 1}, rgb_stats=rgb_stats("birder"))
    DrawnBirds(size=(32, 32)).draw(0, 0).image.save(tmp_path / f"{'x' * 240}.png")
    words = [
        "predict",
        tmp_path / "m.safetensors",
        *[tmp_path / f"{'x' * 240}.png"] * 400,
        "--workers",
        "0",
        "--backend",
        "torch",
        "--precision",
        "fp32",
    ]
    command = BIRDER + [str(word) for word in words]
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as predict,
        subprocess.Popen(["head", "-1"], stdin=predict.stdout, stdout=subprocess.PIPE, text=True) as head,
    ):
        assert predict.stdout is not None
        predict.stdout.close()
        shown = head.communicate(timeout=120)[0]
        assert predict.stderr is not None
        assert predict.stderr.read() == "birder: torch fp32, batches of 8: as asked\n"
        assert predict.wait() == 1
    assert shown.startswith(f"{tmp_path}/xxx") and shown.count("\n") == 1


def test_a_pipe_that_was_closed_before(environment: dict[str, str]) -> None:
    """What little was printed only meets the closed pipe at the very end."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "import birder.cli.__main__ as line; line.app = lambda: print('a few words'); line.main()"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_the_log_is_shown_and_put_back(birder: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was adapted in an older file is said on stderr; a program that calls ``main`` keeps its own settings."""
    logger = logging.getLogger("birder")
    before = (logger.level, list(logger.handlers))

    def adapting() -> None:
        logger.info("adapted")
        raise SystemExit(0)

    monkeypatch.setattr(command_line, "app", adapting)
    assert birder() == (0, "", "birder: adapted\n")
    assert (logger.level, logger.handlers) == before
