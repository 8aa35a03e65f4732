"""Running the command line in this process."""

import sys
from collections.abc import Callable

import pytest

from birder.cli.__main__ import main

Birder = Callable[..., tuple[int, str, str]]


@pytest.fixture
def birder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Birder:
    """Run ``birder`` with some words; exit code, output, and what went to the error stream."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["birder", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out, captured.err

    return call
