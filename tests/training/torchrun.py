"""Real processes under torchrun, for the tests of several."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def start(root: Path, processes: int, *words: object) -> subprocess.Popen[str]:
    """So many processes of ``python`` with these words, in a group of their own; errors are part of the output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = ["--nproc-per-node", str(processes), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *together, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0, timeout_s: float = 300.0) -> str:
    """What it said until it ended with this code."""
    said, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == code, said[-5000:]
    return said
