"""Decoders that do harm, for tests of what reads pictures; and waiting for what becomes of it."""

import time
from collections.abc import Callable
from pathlib import Path

_PLUGIN = """
import ctypes, os, signal, time
from pathlib import Path
from PIL import Image

def opened(file, name):
    word, _, rest = file.read().decode().partition(" ")
    if word == "SEGFAULT":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "EXIT":
        os._exit(3)
    if word == "HANG":
        ctypes.PyDLL(None).sleep(100)  # with Python's lock held, as a decoder in C may
    if word == "NOISE":
        os.write(1, b"to the output" * 10000)
        os.write(2, b"to the errors" * 10000)
    if word == "ONCE" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while word == "WAIT" and not Path(rest).exists():
        time.sleep(0.01)
    if word == "NOTE":
        with open(rest, "a") as note:
            note.write(".")
    return Image.new("RGB", (50, 40), "red")

words = (b"SEGFAULT", b"EXIT", b"HANG", b"NOISE", b"ONCE", b"WAIT", b"NOTE")
Image.preinit()
Image.register_open("ODD", opened, lambda beginning: beginning.startswith(words))
"""


def add_decoders(modules: Path) -> None:
    """Let programs that find modules in this folder read files whose first word says what becomes of their reader."""
    (modules / "sitecustomize.py").write_text(_PLUGIN)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether a condition comes true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
