"""A training process that is killed at random moments, and started again, ends as one that was left alone.

``KILLS=30 pytest -m slow tests/training/test_killed.py`` kills it thirty times; three times are enough in between.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.broken_off import assert_ends_the_same, state, wait_for_steps, words, write_birds
from tests.training.torchrun import finish

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("SEED", "0"))
GO_ON = 75
"""Exit code of a run that was asked to stop."""


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    write_birds(folder)
    return folder


def start(root: Path, birds: Path, out: Path) -> subprocess.Popen[str]:
    """The process; a checkpoint is written after every step."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words(birds, out)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def unbroken(root: Path, birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(start(root, birds, out))
    return out


def test_killed_at_random_moments(root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    out, moments = tmp_path / "run", random.Random(SEED)
    killed = 0
    while killed < KILLS:
        seen = {path.name for path in (out / "checkpoints").glob("0*.pt")}
        process = start(root, birds, out)
        wait_for_steps(out, process, seen)
        time.sleep(moments.uniform(0.0, 1.2 / KILLS))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break  # it was quicker
        killed += 1
    print(f"killed {killed} times, last at step {state(out)['engine']['step']} of {state(unbroken)['engine']['step']}")
    finish(start(root, birds, out))
    assert_ends_the_same(out, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop(number: signal.Signals, root: Path, birds: Path, unbroken: Path, tmp_path: Path) -> None:
    """The whole group is asked, as a terminal, torchrun and Slurm do; the process that reads pictures does not mind."""
    out = tmp_path / "run"
    process = start(root, birds, out)
    wait_for_steps(out, process, set())
    time.sleep(0.2)
    os.killpg(process.pid, number)
    said = finish(process, GO_ON)
    step = state(out)["engine"]["step"]
    assert 0 < step < 45
    assert f"stopped at step {step} of 45; the same command goes on" in said
    assert f"goes on at step {step} of 45" in finish(start(root, birds, out))
    assert_ends_the_same(out, unbroken)


UNFORESEEN = """
from pathlib import Path
import sys

from birder.data.augment import training_transform
from birder.data.loader import TrainingSet, training_batches
from birder.data.samples import read_samples
from birder.training.recipe import Augment

pictures = TrainingSet(read_samples(Path(sys.argv[1])), training_transform((32, 32), Augment(policy="none")), seed=0)
batches = training_batches(pictures, batch_size=8, start=0, stop=10, workers=1)
next(batches)
raise RuntimeError("out of memory")
"""


def test_an_error_that_nobody_has_foreseen_ends_the_process(root: Path, birds: Path) -> None:
    """Those who read do not mind SIGTERM, by which Python ends its children; it would wait for them for ever."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", UNFORESEEN, str(birds / "train")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: out of memory"
