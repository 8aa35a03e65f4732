"""The server on this computer, for all tests of downloads."""

import pytest

from birder.hub import transfer
from tests.loopback import home, server

__all__ = ["home", "server"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts."""
    monkeypatch.setattr(transfer, "PAUSE_S", 0.0)
