"""The benchmark of the server, small: it works, and finds no answer that is another's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["--pictures", "60", "--seconds", "3", "--open-seconds", "2", "--rate", "4x", "--clients", "64"]
PLAIN = "--backend torch --precision fp32 --threads 1 --workers 1 --batch-size 8"


@pytest.mark.slow
def test_the_benchmark_of_the_server(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "benchmarks" / "serving.py"), "--out", str(tmp_path), *SMALL]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    ended = subprocess.run(
        [*command, f"--options={PLAIN}"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "serving.json").read_text())
    (closed,), opened = report["closed"], report["open"]
    assert closed["wrong"] == opened["wrong"] == []
    assert closed["statuses"].keys() == {"200"} and closed["statuses"]["200"] > 64
    assert opened["statuses"]["200"] > 10
    assert max(report["memory_mib"]) < 1.5 * report["memory_mib"][0]
    assert closed["server_cpu"] > closed["clients_cpu"] > 0
    assert "birder serve, 64 clients" in ended.stdout
