"""Where birder keeps what it downloads, and whether it may use the network."""

import os
from pathlib import Path

NO = {"", "0", "false", "no", "off"}


def home() -> Path:
    """The folder of downloaded models and of the user's own catalogue.

    ``$BIRDER_HOME``; without it ``birder`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` where it is not set.
    """
    chosen = os.environ.get("BIRDER_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "birder"


def offline() -> bool:
    """Whether ``$BIRDER_OFFLINE`` forbids to use the network."""
    return os.environ.get("BIRDER_OFFLINE", "").lower() not in NO
